"""Filter of records by columns, as an SQL condition."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from types import EllipsisType

from ontogeny.errors import BadInput

ColumnValue = str | int | None | Sequence[str] | Sequence[int] | EllipsisType
"""A value, several, None for an empty cell, or `...` for any."""


def column_condition(where: str, columns: Mapping[str, ColumnValue]) -> str:
    """An SQL condition for rows that meet `where` and have these values in their columns.

    Raises:
        BadInput: a value is neither a text nor a whole number, or a list is empty.
    """
    conditions = [f"({where})", *(_one(name, value) for name, value in columns.items() if value is not ...)]
    return " and ".join(conditions)


def _one(column: str, value: ColumnValue) -> str:
    if value is None:
        return f"{column} is null"
    if isinstance(value, str | Integral):
        return f"{column} = {_literal(column, value)}"
    if not isinstance(value, Sequence) or not value:
        raise BadInput(f"`{column}` must be a value, a list of values or None, got {value!r}: leave it out for any.")
    return f"{column} in ({', '.join(_literal(column, one) for one in value)})"


def _literal(column: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | Integral):
        raise BadInput(f"`{column}` must be a text or a whole number, got {value!r}: use `query` for other conditions.")
    return sql_text(value) if isinstance(value, str) else str(int(value))


def sql_text(value: str) -> str:
    """A text as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"
