"""Prints a comparison of two tools' labels: rows token by token, how many differ and how, and counts of both."""

from collections.abc import Mapping
from typing import Any

from engine.cli import render, render_preview

CALLED = {"axolotl": "axolotl", "llamafactory": "LLaMA-Factory", "trl": "TRL"}
_MOST = 12
"""Kinds of differences that are shown."""
_COUNTS = {
    "dropped": "left out",
    "cut": "cut",
    "nothing_learned": "nothing learned",
    "end_not_learned": "end of the answer not learned",
    "bos_doubled": "BOS doubled",
}


def comparison(found: Mapping[str, Any]) -> None:
    """Print the comparison of one task; without colours, learned tokens are between ⟦ and ⟧."""
    console, tool = render.out(), CALLED[found["tool"]]
    colour = console.color_system is not None
    for row in found["rows"]:
        console.print(render.text(f"── {row['where']}", style="bold"), soft_wrap=True)
        for side, name in (("theirs", tool), ("ours", "spec")):
            made = row[side]
            if made is None:
                continue
            for piece in made if not isinstance(made, str) else ():
                learned = sum(token["supervised"] for token in piece)
                console.print(render.text(f"{name}: {len(piece)} tokens, {learned} learned", style="magenta"), soft_wrap=True)
                console.print(render_preview.tokens(piece, colour), soft_wrap=True)
            if isinstance(made, str):
                console.print(render.text((f"{name}: ", "magenta"), ("left out: ", "bold yellow"), made), soft_wrap=True)
        if row["difference"] is not None:
            console.print(render.text(("difference: ", "bold"), row["difference"] or "none"), soft_wrap=True)
        console.print("")
    if found["without_rules"]:
        render.note(f"{tool}'s side is not shown: {found['without_rules']}; its own code shows it: --with-python PATH")
    elif found["compared"]:
        title = f"{found['task']}: {found['compared']:,} rows, learned by {tool} and by {found['spec']}"
        render.table(title, ("rows", "difference"), _differences(found["differences"]))
    sides = [side for side in ("theirs", "ours") if side in found["counts"]]
    counts = [
        (words, *(f"{found['counts'][side][key]:,}" for side in sides), _reasons(found, sides) if key == "dropped" else "")
        for key, words in _COUNTS.items()
    ]
    render.table(
        f"of {found['counts']['ours']['rows']:,} rows", ("rows", *({"theirs": tool, "ours": "spec"}[s] for s in sides), ""), counts
    )


def _differences(found: Mapping[str, int]) -> list[tuple[str, str]]:
    """The most frequent differences, with the number of rows of each; the others in one line."""
    listed = [(f"{n:,}", text or "none") for text, n in found.items()]
    rest = [*found.values()][_MOST:]
    return [*listed[:_MOST], *([(f"{sum(rest):,}", f"{len(rest)} further kinds")] if rest else [])]


def _reasons(found: Mapping[str, Any], sides: list[str]) -> str:
    told = {"theirs": CALLED[found["tool"]], "ours": "spec"}
    return "; ".join(f"{told[s]}: {n:,} {why}" for s in sides for why, n in found["counts"][s]["reasons"].items())
