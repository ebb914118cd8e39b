"""Converts values of other formats to JSON."""

import datetime
import decimal
import math

from engine.core.errors import Location, UserError


def plain(value: object, column: str, where: Location) -> object:
    """VALUE as a JSON value; dates become ISO 8601 text; raises UserError, located at the row, for unsupported types."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return _finite(value, column, where)
        case datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return value.total_seconds()
        case decimal.Decimal():
            return str(value)
        case list() | tuple():
            return [plain(item, column, where) for item in value]
        case dict():
            return {str(key): plain(item, column, where) for key, item in value.items()}
    hint = "supported are text, numbers, lists and objects; remove the column from the data"
    raise UserError(f"column '{column}' has the unsupported type {type(value).__name__}", where, hint)


def _finite(value: float, column: str, where: Location) -> float | None:
    """A finite float; None for NaN, which marks missing values in tables."""
    if math.isinf(value):
        raise UserError(f"column '{column}' is infinite, which JSON cannot represent", where)
    return None if math.isnan(value) else value
