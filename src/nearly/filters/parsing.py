"""The door: what people write as a filter becomes an expression."""

from collections.abc import Mapping, Sequence
from typing import Any

from nearly.arrays.words import describe
from nearly.errors import InputError
from nearly.filters.expressions import Expression, Literal
from nearly.filters.mapping import from_mapping

__all__ = ["parse"]


def parse(where: Any, parameters: Mapping[str, Any] | Sequence[Any] | None = None) -> Expression:
    """Turn a filter in any of its spellings into the one checked form.

    Parameters
    ----------
    where : str, dict or Expression
        A SQL condition, ``"year >= 2020 AND lang = 'en'"``; a dict, ``{"year": {"$gte": 2020}, "lang": "en"}``; or
        operators on `nearly.F`, ``(F.year >= 2020) & (F.lang == "en")``.
    parameters : mapping or sequence, optional
        Values of ``$name``, or of ``?`` and ``$1``, in SQL. All must be used.

    Returns
    -------
    Expression
        With the names of its columns in ``columns``. Columns and types are checked when it is evaluated.

    Raises
    ------
    InputError
        If it cannot be read, or asks for what filters do not allow.

    Examples
    --------
    >>> parse("year BETWEEN $first AND 2024 AND lang <> 'en'", {"first": 2020})
    (F.year >= 2020) & (F.year <= 2024) & (F.lang != 'en')
    >>> parse({"year": {"$gte": 2020}, "$or": [{"lang": "de"}, {"lang": {"$exists": False}}]})
    (F.year >= 2020) & ((F.lang == 'de') | F.lang.is_null())
    """
    if isinstance(where, str):
        from nearly.filters.sql import from_sql  # late: dicts and expressions need none of it

        return _checked(from_sql(where, parameters))
    if parameters is not None:
        raise InputError(f"parameters go with a filter in SQL, but where is {describe(where)}; put the values into it")
    if isinstance(where, Mapping):
        return _checked(from_mapping(where))
    if isinstance(where, Expression):
        return _checked(where)
    raise InputError(
        f"where is {describe(where)}, but a SQL condition, a dict or an expression such as F.year >= 2020 is wanted"
    )


def _checked(expression: Expression) -> Expression:
    expression.columns  # noqa: B018 - found here once and for all, which refuses what is nested too deep
    if isinstance(expression, Literal) and not (isinstance(expression.value, bool) or expression.value is None):
        raise InputError(f"the filter is {expression!r}, a value and no condition; compare it with something")
    return expression
