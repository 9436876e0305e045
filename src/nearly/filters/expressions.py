"""The one tree that every spelling of a filter becomes. A node is immutable; what it means is in evaluating.py.

Conditions (true, false or unknown for a row) are `Compare`, `In`, `IsNull`, `And`, `Or` and `Not`; values are `Field`,
`Literal`, `Call`, `Cast` and `Case`. A value of type bool is a condition too.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn, TypeAlias, cast

import numpy as np

from nearly.arrays.words import describe, listing
from nearly.errors import InputError
from nearly.filters.inference import plain as number

__all__ = [
    "And",
    "Call",
    "Case",
    "Cast",
    "Compare",
    "Expression",
    "Field",
    "In",
    "IsNull",
    "Literal",
    "Not",
    "Or",
    "Scalar",
    "as_literal",
    "compare",
    "did_you_mean",
]

Scalar: TypeAlias = bool | int | float | str | dt.date | dt.datetime | None

FLIPPED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
OPPOSITE = {"=": "<>", "<>": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
MAX_DEPTH = 200  # of a tree: what walks it recurses
_PLAIN = frozenset((bool, int, str))  # constants of exactly these types need no look


class Expression:
    """A condition on the columns of a row, in its checked form.

    Made by `parse` from SQL or a dict, or by operators on `nearly.F`. ``&``, ``|`` and ``~`` join conditions.

    Attributes
    ----------
    columns : frozenset of str
        Names of the columns that it reads.
    key : str
        A text that two expressions share if, and only if, they are the same tree: for caches.

    Notes
    -----
    SQL's three-valued logic holds in every spelling: a comparison with null is neither true nor false, and a row passes
    only where the whole is true.

    Examples
    --------
    >>> from nearly.filters import F
    >>> wanted = (F.year >= 2020) & ~F.lang.is_in(["en", "de"])
    >>> sorted(wanted.columns)
    ['lang', 'year']
    >>> wanted
    (F.year >= 2020) & ~F.lang.is_in(['en', 'de'])
    """

    # Found when first asked for, as a filter is searched with again and again; and the dict that it came as, if any.
    __slots__ = ("_columns", "_key", "_plain")

    __nearly_condition__ = True  # for those who take bits and ids, and know no filters

    _columns: frozenset[str]
    _key: str
    _plain: dict[str, object]

    @property
    def plain(self) -> dict[str, object] | None:
        """The dict that stood for it, a copy; None where it came in another spelling. The core reads most of these."""
        try:
            return self._plain
        except AttributeError:
            return None

    @property
    def columns(self) -> frozenset[str]:
        try:
            return self._columns
        except AttributeError:
            found = self._names()
            object.__setattr__(self, "_columns", found)
            return found

    @property
    def key(self) -> str:
        try:
            return self._key
        except AttributeError:
            found = _key(self)
            object.__setattr__(self, "_key", found)
            return found

    def children(self) -> tuple["Expression", ...]:
        """Return the nodes directly below."""
        return ()

    def _names(self) -> frozenset[str]:
        """The columns of all nodes, level by level; `InputError` where there are too many levels."""
        names = set()
        level: Sequence[Expression] = (self,)
        for _ in range(MAX_DEPTH):
            below: list[Expression] = []
            for node in level:
                if isinstance(node, Field):
                    names.add(node.name)
                else:
                    below += node.children()
            if not below:
                return frozenset(names)
            level = below
        raise InputError(f"the filter is nested more than {MAX_DEPTH} levels deep; write it flatter, with IN")

    def __and__(self, other: object) -> "And":
        return And((*_parts(self, And), *_parts(_condition(other, "&"), And)))

    def __or__(self, other: object) -> "Or":
        return Or((*_parts(self, Or), *_parts(_condition(other, "|"), Or)))

    def __rand__(self, other: object) -> NoReturn:
        _condition(other, "&")
        raise AssertionError

    def __ror__(self, other: object) -> NoReturn:
        _condition(other, "|")
        raise AssertionError

    def __invert__(self) -> "Not":
        return Not(self)

    def __bool__(self) -> NoReturn:
        raise InputError(
            f"{self!r} is a filter, neither true nor false; join filters by &, | and ~ in parentheses, not by and, or, "
            f"not or a chain such as 1 < F.x < 2 (write F.x.between(1, 2))"
        )


class Value(Expression):
    """What has a value in each row: operators compare it."""

    __slots__ = ()

    def _compare(self, operator: str, other: object) -> "Compare":
        if other is None:
            raise InputError(f"{self!r} is compared with None, which is never true; write .is_null() or .is_not_null()")
        right = other if isinstance(other, Value) else as_literal(other, lambda: f"{self!r} {operator}")
        return Compare(operator, self, right)

    def __eq__(self, other: object) -> "Compare":  # type: ignore[override]
        return self._compare("=", other)

    def __ne__(self, other: object) -> "Compare":  # type: ignore[override]
        return self._compare("<>", other)

    def __lt__(self, other: object) -> "Compare":
        return self._compare("<", other)

    def __le__(self, other: object) -> "Compare":
        return self._compare("<=", other)

    def __gt__(self, other: object) -> "Compare":
        return self._compare(">", other)

    def __ge__(self, other: object) -> "Compare":
        return self._compare(">=", other)

    __hash__ = None  # type: ignore[assignment]

    def between(self, low: object, high: object) -> "And":
        """Be at least ``low`` and at most ``high``."""
        return And((self >= low, self <= high))

    def is_in(self, values: Iterable[object]) -> "In":
        """Equal one of the values, none of which may be None."""
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise InputError(f"{self!r}.is_in() takes a list of values, but {describe(values)} came; pass [{values!r}]")
        plain = tuple(as_literal(value, lambda: f"{self!r}.is_in()").value for value in values)
        if None in plain:
            raise InputError(f"{self!r}.is_in() has None among its values; join .is_null() by | or &")
        return In(self, plain)

    def is_null(self) -> "IsNull":
        """Have no value."""
        return IsNull(self)

    def is_not_null(self) -> "Not":
        """Have a value."""
        return Not(IsNull(self))

    def contains(self, part: object) -> "Call":
        """Have ``part`` in it: an element of a list, a part of a text."""
        return Call("contains", (self, as_literal(part, lambda: f"{self!r}.contains()", wanted=str)))

    def starts_with(self, part: object) -> "Call":
        """Begin with a text."""
        return Call("starts_with", (self, as_literal(part, lambda: f"{self!r}.starts_with()", wanted=str)))

    def ends_with(self, part: object) -> "Call":
        """End with a text."""
        return Call("ends_with", (self, as_literal(part, lambda: f"{self!r}.ends_with()", wanted=str)))

    def like(self, pattern: str) -> Expression:
        """Match a pattern of SQL's LIKE: ``%`` is any text, ``_`` one character."""
        from nearly.filters.likes import like  # late: it builds on this module

        as_literal(pattern, lambda: f"{self!r}.like()", wanted=str)
        return like(self, pattern)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Field(Value):
    """The value of a column."""

    name: str

    def __repr__(self) -> str:
        return f"F.{self.name}" if self.name.isidentifier() else f"F[{self.name!r}]"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Literal(Value):
    """A constant; aware datetimes are in UTC and without a zone."""

    value: Scalar

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Call(Value):
    """A function of the table in functions.py."""

    name: str
    arguments: tuple[Expression, ...]

    def children(self) -> tuple[Expression, ...]:
        return self.arguments

    def __repr__(self) -> str:
        parts = list(map(repr, self.arguments))
        if self.name in ("contains", "starts_with", "ends_with"):
            return f"{parts[0]}.{self.name}({parts[1]})"
        if not self.name[0].isalpha():
            return f"({f' {self.name} '.join(parts)})" if len(parts) > 1 else f"({self.name}{parts[0]})"
        return f"{self.name}({', '.join(parts)})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cast(Value):
    """A value as another type; `lenient` gives null where it cannot be one."""

    item: Expression
    type: str
    lenient: bool = False

    def children(self) -> tuple[Expression, ...]:
        return (self.item,)

    def __repr__(self) -> str:
        return f"{'try_' if self.lenient else ''}cast({self.item!r}, {self.type!r})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Case(Value):
    """The value beside the first condition that is true, or the last."""

    checks: tuple[tuple[Expression, Expression], ...]
    otherwise: Expression

    def children(self) -> tuple[Expression, ...]:
        return (*(part for check in self.checks for part in check), self.otherwise)

    def __repr__(self) -> str:
        return f"case({', '.join(f'{when!r}: {then!r}' for when, then in self.checks)}, {self.otherwise!r})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Compare(Expression):
    """Two values compared by one of ``= <> < <= > >=``; unknown where one of them is null."""

    operator: str
    left: Expression
    right: Expression

    def children(self) -> tuple[Expression, ...]:
        return (self.left, self.right)

    def __repr__(self) -> str:
        operator = {"=": "==", "<>": "!="}.get(self.operator, self.operator)
        return f"{self.left!r} {operator} {self.right!r}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class In(Expression):
    """A value equals one of several constants; unknown where it is null."""

    item: Expression
    values: tuple[Scalar, ...]

    def children(self) -> tuple[Expression, ...]:
        return (self.item,)

    def __repr__(self) -> str:
        return f"{self.item!r}.is_in([{listing([repr(value) for value in self.values])}])"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class IsNull(Expression):
    """There is no value; never unknown."""

    item: Expression

    def children(self) -> tuple[Expression, ...]:
        return (self.item,)

    def __repr__(self) -> str:
        return f"{self.item!r}.is_null()"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class And(Expression):
    """All of these; true when there are none."""

    items: tuple[Expression, ...]

    def children(self) -> tuple[Expression, ...]:
        return self.items

    def __repr__(self) -> str:
        return " & ".join(map(_inner, self.items))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Or(Expression):
    """One of these; false when there are none."""

    items: tuple[Expression, ...]

    def children(self) -> tuple[Expression, ...]:
        return self.items

    def __repr__(self) -> str:
        return " | ".join(map(_inner, self.items))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Not(Expression):
    """The opposite; unknown stays unknown."""

    item: Expression

    def children(self) -> tuple[Expression, ...]:
        return (self.item,)

    def __repr__(self) -> str:
        return f"~{_inner(self.item)}"


def compare(operator: str, left: Expression, right: Expression) -> Compare:
    """Return a comparison; where a constant meets a column, the column stands left."""
    if isinstance(left, Literal) and isinstance(right, Field):
        return Compare(FLIPPED[operator], right, left)
    return Compare(operator, left, right)


def as_literal(value: object, where: Callable[[], str], *, wanted: type | None = None) -> Literal:
    """Return a constant as a node.

    Parameters
    ----------
    value : bool, int, float, str, date, datetime, None, or a NumPy scalar
        Aware datetimes are turned into UTC.
    where : callable
        Says what it belongs to, for messages.
    wanted : type, optional
        The only type that will do.

    Raises
    ------
    InputError
        If it is of another kind, or NaN, which equals nothing.
    """
    if type(value) in _PLAIN and (wanted is None or type(value) is wanted):
        return Literal(cast(Scalar, value))
    plain = value
    if isinstance(value, Literal):
        plain = value.value
    elif isinstance(value, np.datetime64):
        plain = None if np.isnat(value) else value.astype("datetime64[us]").item()
        if isinstance(plain, int):
            raise InputError(f"{where()} came with {value}, which is beyond the years 1 to 9999")
    elif isinstance(value, np.generic):
        plain = number(value)
    if isinstance(plain, dt.datetime) and plain.tzinfo is not None:
        try:
            plain = plain.astimezone(dt.UTC).replace(tzinfo=None)
        except OverflowError:
            raise InputError(f"{where()} came with {value}, which is beyond the years 1 to 9999 in UTC") from None
    right = plain is None or isinstance(plain, bool | int | float | str | dt.date)
    if not right or (wanted is not None and not isinstance(plain, wanted)):
        kind = wanted.__name__ if wanted else "bool, int, float, str, date or datetime"
        raise InputError(f"{where()} came with {describe(value)}, but a constant of type {kind} is wanted")
    if isinstance(plain, float) and plain != plain:
        raise InputError(f"{where()} came with NaN, which equals nothing and is stored as null; test for null instead")
    return Literal(_plain(plain))


def _plain(value: Any) -> Scalar:
    """Without subclasses, such as members of an enumeration or a pandas Timestamp."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, dt.datetime):
        return dt.datetime(
            value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond
        )
    if isinstance(value, dt.date):
        return dt.date(value.year, value.month, value.day)
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind.__call__(value) if kind is not str else str.__str__(value)
    raise AssertionError(value)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a hint at what was probably meant, or what there is."""
    names = sorted(names)
    if close := get_close_matches(name, names, n=1, cutoff=0.6) or [n for n in names if n.lower() == name.lower()]:
        return f"did you mean {close[0]!r}?"
    return f"there are {listing(names)}" if names else "there are none"


def _key(part: object) -> str:
    """The name of a node's class with what is in it, in parentheses; of what most filters are made of at once."""
    kind = type(part)
    if kind is Compare:
        compare = cast(Compare, part)
        return f"Compare({compare.operator!r}, {_key(compare.left)}, {_key(compare.right)})"
    if kind is Field:
        return f"Field({cast(Field, part).name!r})"
    if kind is Literal:
        return f"Literal({cast(Literal, part).value!r})"
    if isinstance(part, Expression):
        names = cast(Any, kind).__match_args__
        return f"{kind.__name__}({', '.join([_key(getattr(part, name)) for name in names])})"
    if kind is tuple:
        return f"({', '.join([_key(each) for each in cast(tuple[object, ...], part)])})"
    return repr(part)


def _parts(node: Expression, kind: type) -> tuple[Expression, ...]:
    return node.items if isinstance(node, And | Or) and isinstance(node, kind) else (node,)


def _condition(other: object, operator: str) -> Expression:
    if not isinstance(other, Expression):
        raise InputError(
            f"{operator} joins two filters, but {describe(other)} came; put comparisons in parentheses, as in "
            f"(F.year >= 2020) {operator} (F.lang == 'en')"
        )
    return other


def _inner(node: Expression) -> str:
    return f"({node!r})" if isinstance(node, And | Or | Compare) else repr(node)
