"""The page of commands, from the command line's own parser: what it takes is what the page says."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from engine.cli import main as cli
from tools.markdown import GENERATED, cell, table


def page() -> str:
    """The page's text."""
    command = cli.command()
    verbs = {name: verb for name, verb in command.commands.items() if not verb.hidden}
    parts = [
        "# Commands",
        GENERATED,
        f"    engine {' '.join(_shown(parameter) for parameter in command.params)} COMMAND …",
        command.help,
        _parameters(command),
        table(("command", "does"), [(f"[`{name}`](#engine-{name})", cell(verb.help)) for name, verb in verbs.items()]),
    ]
    for name, verb in verbs.items():
        words = " ".join(["engine", name, *(_shown(parameter) for parameter in verb.params)])
        parts += [f"## engine {name}", f"    {words}", verb.help, _parameters(verb)]
    parts += ["## Exit codes", "[A page of their own](exit-codes.md) says what each means. What `--json` prints: [JSON output](json.md)."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _shown(parameter: Any) -> str:
    """One parameter as a line of usage has it."""
    if parameter.param_type_name == "option":
        text = parameter.opts[0] if parameter.is_flag else f"{parameter.opts[0]} {_value(parameter)}"
        return f"[{text}]{'…' if parameter.multiple else ''}"
    text = _value(parameter) + ("…" if parameter.nargs == -1 else "")
    return text if parameter.required else f"[{text}]"


def _value(parameter: Any) -> str:
    """What stands for the value: the name that help gives it, or the words that are allowed."""
    annotation = parameter.type_descriptor.annotation
    if not parameter.metavar and str(get_origin(annotation)) == "typing.Literal":
        return "|".join(get_args(annotation))
    return str(parameter.metavar or parameter.name.upper())


def _parameters(command: Any) -> str:
    """The table of a command's arguments and options."""
    return table(("argument or option", "means", "default"), list(_rows(command)))


def _rows(command: Any) -> Iterator[tuple[str, str, str]]:
    for parameter in command.params:
        if parameter.param_type_name == "option":
            name = ", ".join(parameter.opts) + ("" if parameter.is_flag else f" {_value(parameter)}")
        else:
            name = _value(parameter)
        given = parameter.default not in (None, False)
        default = "required" if parameter.required else f"`{parameter.default}`" if given else ""
        yield f"`{name}`".replace("|", "\\|"), cell(parameter.help), default
