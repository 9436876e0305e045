"""The dict spelling of a filter, in the manner of MongoDB's queries but with SQL's rule for null."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nearly.arrays.words import describe
from nearly.errors import InputError
from nearly.filters.expressions import MAX_DEPTH, And, Compare, Expression, Field, Not, Or, as_literal, did_you_mean

__all__ = ["from_mapping"]


def _exists(field: Field, wanted: Any) -> Expression:
    if not isinstance(wanted, bool):
        raise InputError(f"{{'$exists': ...}} takes True or False, but {describe(wanted)} came")
    return field.is_not_null() if wanted else field.is_null()


def _listed(operator: str, values: Any) -> Iterable[Any]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InputError(f"{{'{operator}': ...}} takes a list of values, but {describe(values)} came")
    return values


_OF_A_COLUMN: dict[str, Callable[[Field, Any], Expression]] = {
    "$eq": lambda field, value: field == value,
    "$ne": lambda field, value: field != value,
    "$gt": lambda field, value: field > value,
    "$gte": lambda field, value: field >= value,
    "$lt": lambda field, value: field < value,
    "$lte": lambda field, value: field <= value,
    "$in": lambda field, values: field.is_in(_listed("$in", values)),
    "$nin": lambda field, values: Not(field.is_in(_listed("$nin", values))),
    "$exists": _exists,
    "$contains": lambda field, value: field.contains(value),
}
_JOINING = ("$and", "$or", "$not")


def from_mapping(where: Mapping[Any, Any]) -> Expression:
    """Return the expression that a dict stands for; several entries must all hold.

    Raises
    ------
    InputError
        If an operator is unknown, or its operand of the wrong kind.

    Examples
    --------
    >>> from_mapping({"$not": {"tags": {"$contains": "draft"}}, "year": 2020})
    ~F.tags.contains('draft') & (F.year == 2020)
    """
    made = _conditions(where, 1)
    if type(where) is dict:  # as it is now
        copy = {name: dict(value) if type(value) is dict else value for name, value in where.items()}
        object.__setattr__(made, "_plain", copy)
    return made


def _conditions(where: Any, depth: int) -> Expression:
    if depth > MAX_DEPTH:
        raise InputError(f"the filter is nested more than {MAX_DEPTH} levels deep; write it flatter, with $in")
    if not isinstance(where, Mapping):
        raise InputError(f"a filter is a dict from columns to conditions, but {describe(where)} came")
    parts = [_condition(key, value, depth) for key, value in where.items()]
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _condition(key: Any, value: Any, depth: int) -> Expression:
    if not isinstance(key, str):
        raise InputError(f"a filter has {describe(key)} as a key, but keys are names of columns, or $and, $or and $not")
    if key == "$not":
        return Not(_conditions(value, depth + 1))
    if key in _JOINING:
        if isinstance(value, Mapping | str) or not isinstance(value, Iterable):
            raise InputError(f"{{'{key}': ...}} takes a list of conditions, but {describe(value)} came; pass [...]")
        parts = tuple(_conditions(each, depth + 1) for each in value)
        return And(parts) if key == "$and" else Or(parts)
    if key.startswith("$"):
        if key in _OF_A_COLUMN:
            raise InputError(f"{key!r} belongs under a column, as in {{'year': {{{key!r}: ...}}}}")
        raise InputError(f"{key!r} is no operator of filters; {did_you_mean(key, _JOINING)}")
    return _of_column(Field(key), value, depth)


def _of_column(field: Field, value: Any, depth: int) -> Expression:
    if depth > MAX_DEPTH:
        raise InputError(f"the filter is nested more than {MAX_DEPTH} levels deep; write it flatter, with $in")
    if value is None:
        raise InputError(
            f"column {field.name!r} is compared with None, which is never true; write {{'$exists': False}}"
        )
    if not isinstance(value, Mapping):
        if isinstance(value, list | tuple | set | frozenset):
            raise InputError(f"column {field.name!r} came with {describe(value)}; write {{'$in': [...]}}")
        return Compare("=", field, as_literal(value, lambda: f"column {field.name!r}"))
    if not value:
        raise InputError(f"column {field.name!r} came with an empty dict; write a value, or {{'$exists': True}}")
    parts: list[Expression] = []
    for operator, operand in value.items():
        if operator == "$not":
            parts.append(Not(_of_column(field, operand, depth + 1)))
        elif operator in _OF_A_COLUMN:
            parts.append(_OF_A_COLUMN[operator](field, operand))
        else:
            hint = did_you_mean(str(operator), [*_OF_A_COLUMN, "$not"])
            raise InputError(f"column {field.name!r} came with {operator!r}, which is no operator of filters; {hint}")
    return parts[0] if len(parts) == 1 else And(tuple(parts))
