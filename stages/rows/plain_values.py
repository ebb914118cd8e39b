"""Values of other formats as JSON knows them."""

import datetime
import decimal
import math

from engine.core.errors import Location, UserError


def plain(value: object, column: str, where: Location) -> object:
    """VALUE as JSON knows it: dates as ISO 8601 writes them; raises UserError, located at the row, for what JSON has not."""
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
    hint = "rows are text, numbers, lists and objects; leave the column out of the data"
    raise UserError(f"column '{column}' holds a value of type {type(value).__name__}", where, hint)


def _finite(value: float, column: str, where: Location) -> float | None:
    """A float; NaN is how tables of numbers write that there is none."""
    if math.isinf(value):
        raise UserError(f"column '{column}' is infinite, which JSON cannot write", where)
    return None if math.isnan(value) else value
