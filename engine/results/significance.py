"""How p-values are named and written, wherever differences of two models are shown."""

from collections.abc import Iterable

_CORRECTED = {"holm": "p (Holm)", "benjamini_hochberg": "p (Benjamini-Hochberg)", "none": "p (uncorrected)"}


def p_name(corrections: Iterable[str]) -> str:
    """The name of a column of p-values, by how they were corrected."""
    found = set(corrections)
    return _CORRECTED.get(next(iter(found)), "p (corrected)") if len(found) == 1 else "p (corrected)"


def p_text(value: float) -> str:
    """A p-value as tables show it."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
