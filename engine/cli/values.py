"""Converts text and path arguments without pydantic, which typer would import for it, and whose import takes longer than a plan."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from typer.core import TyperGroup

_PLAIN: dict[Any, Callable[[str], Any]] = {str: str, Path: Path, bool: bool}


@dataclass(frozen=True)
class _Plain:
    """Replaces typer's conversion of one parameter (typer 0.29: `RuntimeParam`)."""

    convert: Callable[[str], Any]
    many: bool

    def coerce(self, value: Any, param: Any, ctx: typer.Context) -> Any:
        if value is None:
            return () if self.many else None
        return [self.convert(item) for item in value] if self.many else self.convert(value)


def command_of(app: typer.Typer) -> Any:
    """The command of APP; its text and path parameters, single or repeated, are converted here, all others by typer."""
    command = typer.main.get_command(app)
    for verb in getattr(command, "commands", {}).values():
        # typer truncates the summary of a command to one line unless it is set as short help.
        verb.short_help = verb.short_help or " ".join((verb.help or "").split("\n\n")[0].split())
    for parameter in _parameters(command, None):
        annotation = parameter.type_descriptor.annotation
        many = get_origin(annotation) is list
        convert = _PLAIN.get(get_args(annotation)[0] if many else annotation)
        # A parameter with constraints (an existing file, a range) keeps typer's conversion.
        if convert and not (parameter.type_descriptor.parameter_info.exists or parameter.type_descriptor.parameter_info.parser):
            parameter._runtime_param = _Plain(convert, many)
    return command


def _parameters(command: Any, parent: typer.Context | None) -> Iterator[Any]:
    """The parameters of a command and of all its subcommands, `--help` included."""
    context = typer.Context(command, parent, **command.context_settings)
    yield from command.get_params(context)
    if isinstance(command, TyperGroup):
        for verb in command.commands.values():
            yield from _parameters(verb, context)
