"""Plain conditions in SQL, read without DuckDB: what most filters are, in microseconds.

Comparisons of columns with constants, ``IN``, ``BETWEEN``, ``IS NULL``, ``LIKE`` and functions that test a text or a
list, joined by ``AND``, ``OR``, ``NOT`` and parentheses. It gives the tree that DuckDB's parser leads to (sql.py), or
nothing: whatever is not in this grammar, or would be an error, is for DuckDB to read, and to say what is wrong with it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nearly.errors import InputError
from nearly.filters.expressions import And, Call, Expression, Field, In, IsNull, Literal, Not, Or, compare
from nearly.filters.functions import FUNCTIONS
from nearly.filters.likes import like
from nearly.filters.parameters import Parameters, number

__all__ = ["from_plain"]

# Bare names and spaces are ASCII, as DuckDB's rules for others are its own; a number ends where no word goes on; `!=-`
# is one operator.
_TOKEN = r"""
    [A-Za-z_][A-Za-z0-9_]*+ (?![$\u0080-\U0010FFFF])
  | '[^']*+(?:''[^']*+)*+'
  | "[^"]++(?:""[^"]*+)*+"
  | [<>=]++ | !=(?!-)
  | [(),-]
  | (?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+ (?![\w$.])
  | \$(?:[A-Za-z_][A-Za-z0-9_]*+|[1-9][0-9]*+) (?![\w$])
  | \?
"""
_PROPER = re.compile(_TOKEN, re.VERBOSE)
_TOKENS = re.compile(rf"{_TOKEN} | [^ \t\r\n].*+", re.VERBOSE | re.DOTALL)  # the last: from where no other goes on
_COMPARISONS = {
    "=": "=", "==": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">=",
}  # fmt: skip
_CONSTANTS = {"TRUE": True, "FALSE": False, "NULL": None}
_TESTS = ("contains", "starts_with", "ends_with")
_DIGITS = 100  # from so many on a whole number is read as one with a point
_LEVELS = 50  # of parentheses and NOT: far from where Python's stack, or DuckDB, has enough
# Words that DuckDB does not take for a column wherever a column may stand.
_RESERVED = frozenset(
    re.findall(
        r"\w+",
        """
        ALL ANALYSE ANALYZE AND ANTI ANY ARRAY AS ASC ASOF ASYMMETRIC AT AUTHORIZATION BINARY BOTH BY CASE CAST CHECK
        COLLATE COLLATION COLUMN CONCURRENTLY CONSTRAINT CREATE CROSS DEFAULT DEFERRABLE DESC DESCRIBE DISTINCT DO ELSE
        END EXCEPT FALSE FETCH FOR FOREIGN FREEZE FROM FULL GLOB GROUP HAVING ILIKE IN INITIALLY INNER INTERSECT INTO IS
        ISNULL JOIN LAMBDA LATERAL LEADING LEFT LIKE LIMIT NATURAL NOT NOTNULL NULL OFFSET ON ONLY OR ORDER OUTER
        OVERLAPS PIVOT PIVOT_LONGER PIVOT_WIDER PLACING POSITIONAL PRIMARY QUALIFY REFERENCES RETURNING RIGHT SELECT
        SEMI SETOF SHOW SIMILAR SOME SUMMARIZE SYMMETRIC TABLE TABLESAMPLE THEN TO TRAILING TRUE UNION UNIQUE UNPACK
        UNPIVOT USING VARIADIC VERBOSE WHEN WHERE WINDOW WITH
        """,
    )
)


class _NotPlain(Exception):
    """Something that DuckDB has to read."""


def from_plain(text: str, parameters: Mapping[str, Any] | Sequence[Any] | None) -> Expression | None:
    """Return the expression that a plain condition stands for, or None where DuckDB has to read it.

    Examples
    --------
    >>> from_plain("year >= $first AND NOT lang IN ('de', 'en')", {"first": 2020})
    (F.year >= 2020) & ~F.lang.is_in(['de', 'en'])
    >>> from_plain("lower(lang) = 'de'", None) is None
    True
    """
    tokens = _TOKENS.findall(text)
    if not _PROPER.fullmatch(tokens[-1] if tokens else ""):
        return None
    try:
        reader = _Reader(tokens, Parameters(parameters))
        found = reader.disjunction(1)
        reader.take("")
        reader.parameters.require_all_used()
    except (_NotPlain, InputError):
        return None
    return found


class _Reader:
    """Reads tokens from left to right; one that is empty ends them."""

    __slots__ = ("at", "marks", "parameters", "tokens", "words")

    def __init__(self, tokens: list[str], parameters: Parameters) -> None:
        self.tokens, self.parameters = [*tokens, "", ""], parameters
        self.words = [token.upper() for token in self.tokens]
        self.at = self.marks = 0

    def has(self, word: str) -> bool:
        """Step over a word if it comes next."""
        found = self.words[self.at] == word
        self.at += found
        return found

    def take(self, word: str) -> None:
        if not self.has(word):
            raise _NotPlain

    def disjunction(self, depth: int) -> Expression:
        parts = [self.conjunction(depth)]
        while self.has("OR"):
            parts.append(self.conjunction(depth))
        return _joined(Or, parts)

    def conjunction(self, depth: int) -> Expression:
        parts = [self.condition(depth)]
        while self.has("AND"):
            parts.append(self.condition(depth))
        return _joined(And, parts)

    def condition(self, depth: int) -> Expression:
        if depth > _LEVELS:
            raise _NotPlain
        word = self.words[self.at]
        if word == "NOT":
            self.at += 1
            return Not(self.condition(depth + 1))
        if word == "(":
            self.at += 1
            found = self.disjunction(depth + 1)
            self.take(")")
            return found
        return self.function() if self.words[self.at + 1] == "(" else self.test()

    def test(self) -> Expression:
        """A test of a value, or a value; what follows is not part of it."""
        item, word = self.value(), self.words[self.at]
        if operator := _COMPARISONS.get(word):
            self.at += 1
            return compare(operator, item, self.value())
        if self.has("IS"):
            negated = self.has("NOT")
            self.take("NULL")
            return Not(IsNull(item)) if negated else IsNull(item)
        negated = self.has("NOT")
        found: Expression
        if self.has("IN"):
            found = In(item, self.constants())
        elif self.has("BETWEEN"):
            low = compare(">=", item, self.value())
            self.take("AND")
            found = And((low, compare("<=", item, self.value())))
        elif (word := self.words[self.at]) in ("LIKE", "ILIKE"):
            self.at += 1
            pattern = self.value()
            if not (isinstance(pattern, Literal) and isinstance(pattern.value, str)):
                raise _NotPlain
            found = like(item, pattern.value, cased=word == "LIKE")
        elif negated:
            raise _NotPlain
        else:
            return item
        return Not(found) if negated else found

    def function(self) -> Expression:
        function = FUNCTIONS.get(self.tokens[self.at].lower())
        if function is None or function.name not in _TESTS or self.tokens[self.at + 2][:1] in ("$", "?"):
            raise _NotPlain
        self.at += 2
        item = self.value()
        self.take(",")
        part = self.value()
        self.take(")")
        return Call(function.name, (item, part))

    def constants(self) -> tuple[Any, ...]:
        """What stands behind IN."""
        if self.tokens[self.at][:1] in ("$", "?"):
            values = self.parameters.listed(self.name_of_parameter())
            if values is None:
                raise _NotPlain
            return values
        self.take("(")
        found = []
        while True:
            value = self.value()
            if not isinstance(value, Literal):
                raise _NotPlain
            found.append(value.value)
            if not self.has(","):
                self.take(")")
                return tuple(found)

    def value(self) -> Expression:
        token = self.tokens[self.at]
        first = token[:1]
        if first in ("$", "?"):
            return self.parameters.literal(self.name_of_parameter())
        self.at += 1
        if first == "'":
            return Literal(token[1:-1].replace("''", "'"))
        if first == '"':
            return Field(token[1:-1].replace('""', '"'))
        if first == "-" or first == "." or first.isdigit():
            return Literal(self.number(token))
        word = self.words[self.at - 1]
        if word in _CONSTANTS:
            return Literal(_CONSTANTS[word])
        if word in _RESERVED or not word.isidentifier():
            raise _NotPlain
        return Field(token)

    def number(self, token: str) -> int | float:
        sign = ""
        if token == "-":
            sign, token = token, self.tokens[self.at]
            self.at += 1
            if not token[:1].isdigit() and token[:1] != ".":
                raise _NotPlain
        return int(sign + token) if token.isdigit() and len(sign + token) < _DIGITS else number(sign + token)

    def name_of_parameter(self) -> str:
        """Step over a parameter; those without a name are counted, and do not stand beside others."""
        token = self.tokens[self.at]
        self.at += 1
        if token != "?":
            if self.marks:
                raise _NotPlain
            return token[1:]
        if self.marks == 0 and any(each[:1] == "$" for each in self.tokens):
            raise _NotPlain
        self.marks += 1
        return str(self.marks)


def _joined(kind: type[And] | type[Or], parts: list[Expression]) -> Expression:
    """Several conditions as one; what is joined alike is not nested."""
    if len(parts) == 1:
        return parts[0]
    return kind(tuple(item for part in parts for item in (part.items if isinstance(part, kind) else (part,))))
