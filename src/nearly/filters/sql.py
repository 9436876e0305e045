"""The SQL spelling: DuckDB parses what is not plain (plain.py), and its tree becomes ours node by node.

What this file does not name does not get in: every node, and every key of a node, is on a list, so subqueries, tables,
lambdas, stars, windows, aggregates and whatever later versions of DuckDB bring are refused. Nothing of the text itself
is ever run; what DuckDB is asked later is written anew from our tree (asking.py).
"""

import datetime as dt
import json
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from nearly.errors import InputError
from nearly.filters.asking import serialized
from nearly.filters.expressions import (
    MAX_DEPTH,
    And,
    Call,
    Case,
    Cast,
    Expression,
    Field,
    In,
    IsNull,
    Literal,
    Not,
    Or,
    as_literal,
    compare,
    did_you_mean,
)
from nearly.filters.functions import FUNCTIONS, LIKES, TYPES
from nearly.filters.likes import like
from nearly.filters.parameters import Parameters, number
from nearly.filters.plain import from_plain

__all__ = ["by_duckdb", "from_sql"]

Node: TypeAlias = dict[str, Any]

MAX_LENGTH = 1 << 16  # characters of a text: DuckDB takes half a second to parse the worst of that length
_SHOWN = 24  # letters of a filter in a message
_BEFORE, _AFTER = "SELECT\n", "\n"  # no parentheses, so that errors are about what was written
_EVERYWHERE = {"class", "type", "query_location", "query_location_length"}
_COMPARISONS = {
    "COMPARE_EQUAL": "=", "COMPARE_NOTEQUAL": "<>", "COMPARE_LESSTHAN": "<", "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHAN": ">", "COMPARE_GREATERTHANOREQUALTO": ">=",
}  # fmt: skip
_REFUSED = {
    "SUBQUERY": "a subquery", "STAR": "a star", "LAMBDA": "a lambda", "WINDOW": "a window function",
    "COLLATE": "a collation", "POSITIONAL_REFERENCE": "a position of a column", "DEFAULT": "DEFAULT",
    "LAMBDA_REF": "a lambda", "TYPE": "a type",
}  # fmt: skip


_WORDS = {
    "AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "ILIKE", "BETWEEN", "ESCAPE", "CASE", "WHEN", "THEN", "ELSE", "END",
    "CAST", "AS", "TRUE", "FALSE",
}  # fmt: skip


def _is_reserved(word: str) -> bool:
    return bool(json.loads(serialized(f"{_BEFORE}{word} = 1{_AFTER}")).get("error"))


def from_sql(text: str, parameters: Mapping[str, Any] | Sequence[Any] | None) -> Expression:
    """Return the expression that a SQL condition stands for.

    Raises
    ------
    InputError
        If it is no single condition, names what filters do not allow, or its parameters do not fit.

    Examples
    --------
    >>> from_sql("lang IN $langs OR NOT year < $year", {"langs": ["de", "en"], "year": 2020})
    F.lang.is_in(['de', 'en']) | ~(F.year < 2020)
    """
    if len(text) > MAX_LENGTH:
        raise InputError(
            f"the filter has {len(text)} characters, but at most {MAX_LENGTH} are read; pass long lists as parameters, "
            f"year IN $years"
        )
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise InputError(f"the filter is not valid Unicode ({problem.reason}); mend it") from None
    if "\0" in text:
        raise InputError("the filter holds a NUL character, which SQL has no use for; leave it out")
    if not text.strip():
        raise InputError("the filter is an empty text; leave it out, or write a condition")
    plain = from_plain(text, parameters)
    return plain if plain is not None else by_duckdb(text, parameters)


def by_duckdb(text: str, parameters: Mapping[str, Any] | Sequence[Any] | None) -> Expression:
    """Return the same, as DuckDB reads the text."""
    return _Reader(text, parameters).expression()


class _Reader:
    """Reads one text."""

    def __init__(self, text: str, parameters: Mapping[str, Any] | Sequence[Any] | None) -> None:
        self.text, self.parameters = text, Parameters(parameters)

    def expression(self) -> Expression:
        try:
            answer = json.loads(serialized(_BEFORE + self.text + _AFTER))
        except RecursionError:
            raise InputError(f"the filter is nested more than {MAX_DEPTH} levels deep; write it flatter") from None
        if answer.get("error"):
            raise self._unreadable(str(answer.get("error_message")), answer.get("position"))
        statements = answer.get("statements", [])
        if len(statements) != 1:
            raise InputError(f"the filter holds {len(statements)} statements, but one condition is wanted")
        statement = statements[0]
        if set(statement) - {"node", "named_param_map"}:
            raise self._refusal("more than a condition", {})
        node = statement["node"]
        # Everything else that a SELECT may have (FROM, WHERE, GROUP BY, UNION, WITH ...) shows in one of these.
        plain = {"type", "select_list", "from_table", "aggregate_handling", "cte_map"}
        if (
            set(node) - plain
            or node["type"] != "SELECT_NODE"
            or node.get("from_table") != {"type": "EMPTY"}
            or node.get("aggregate_handling") != "STANDARD_HANDLING"
            or node.get("cte_map") not in (None, {}, {"map": []})
            or len(node["select_list"]) != 1
        ):
            raise self._refusal("more than one condition", {})
        expression = self.read(node["select_list"][0], 1)
        self.parameters.require_all_used()
        return expression

    def read(self, node: Node, depth: int) -> Expression:
        """Return one node of DuckDB's tree as one of ours."""
        if depth > MAX_DEPTH:
            raise InputError(f"the filter is nested more than {MAX_DEPTH} levels deep; write it flatter, with IN")
        reader = _READERS.get(node.get("class", ""))
        if reader is None:
            raise self._refusal(_REFUSED.get(node.get("class", ""), str(node.get("class"))), node)
        reads, keys = reader
        if unknown := sorted(set(node) - keys - _EVERYWHERE):
            raise self._refusal(unknown[0].replace("_", " "), node)
        return reads(self, node, depth + 1)

    def _unreadable(self, message: str, position: Any) -> InputError:
        """What DuckDB's parser says, in the terms of who wrote the filter."""
        if "expression depth" in message:
            return InputError(f"the filter is nested more than {MAX_DEPTH} levels deep; write it flatter")
        at = max(int(position or 0) - len(_BEFORE), 0)
        octets = self.text.encode()
        around = (*re.findall(r"\w+$", octets[:at].decode(errors="ignore").rstrip()),
                  *re.findall(r"^\w+", octets[at:].decode(errors="ignore")))  # fmt: skip
        names = [word for word in around if word.upper() not in _WORDS and not word[0].isdigit() and _is_reserved(word)]
        if names:
            hint = f'; {names[0]} is a word of SQL: for the column of that name write "{names[0]}"'
            return InputError(f"the filter cannot be read: {message}{self._at(position)}{hint}")
        # The parser blames the last word of a text that ends too early: what comes after that cannot be right either.
        longer = json.loads(serialized(f"{_BEFORE}{self.text}{_AFTER},,"))
        if int(longer.get("position") or 0) >= len(_BEFORE) + len(octets):
            text = self.text.rstrip()
            if ";" in text:
                return InputError("the filter cannot be read: it has a semicolon, but is to be one condition")
            end = text if len(text) <= _SHOWN else f"…{text[-_SHOWN:]}"
            return InputError(f"the filter ends too early: something is missing behind {end!r}")
        return InputError(f"the filter cannot be read: {message}{self._at(position)}")

    def _at(self, position: Any) -> str:
        """The place in the text that an error is about."""
        at = int(position or 0) - len(_BEFORE)
        octets = self.text.encode()
        return f", at {octets[at : at + 24].decode(errors='ignore')!r}" if 0 <= at < len(octets) else ""

    def _refusal(self, what: str, node: Node) -> InputError:
        where = self._at(node.get("query_location"))
        return InputError(
            f"the filter uses {what}, which filters do not allow{where}; they are made of columns, constants, "
            f"parameters, comparisons, AND, OR, NOT, IN, BETWEEN, IS NULL, LIKE, CASE, CAST and functions of a row"
        )

    def conjunction(self, node: Node, depth: int) -> Expression:
        first, *rest = (self.read(child, depth) for child in node["children"])
        for item in rest:
            first = first & item if node["type"] == "CONJUNCTION_AND" else first | item
        return first

    def comparison(self, node: Node, depth: int) -> Expression:
        left, right = self.read(node["left"], depth), self.read(node["right"], depth)
        if operator := _COMPARISONS.get(node["type"]):
            return compare(operator, left, right)
        if node["type"] not in ("COMPARE_DISTINCT_FROM", "COMPARE_NOT_DISTINCT_FROM"):
            raise self._refusal(node["type"], node)
        # Never unknown: a side that is null makes its own part false.
        both = And((Not(IsNull(left)), Not(IsNull(right)), compare("=", left, right)))
        same = Or((both, And((IsNull(left), IsNull(right)))))
        return same if node["type"] == "COMPARE_NOT_DISTINCT_FROM" else Not(same)

    def between(self, node: Node, depth: int) -> Expression:
        item, low, high = (self.read(node[part], depth) for part in ("input", "lower", "upper"))
        between = And((compare(">=", item, low), compare("<=", item, high)))
        return between if node["type"] == "COMPARE_BETWEEN" else Not(between)

    def operator(self, node: Node, depth: int) -> Expression:
        kind, children = node["type"], node["children"]
        if kind in ("OPERATOR_NOT", "OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            item = self.read(children[0], depth)
            made = {"OPERATOR_NOT": Not, "OPERATOR_IS_NULL": IsNull}.get(kind)
            return made(item) if made else Not(IsNull(item))
        if kind in ("COMPARE_IN", "COMPARE_NOT_IN"):
            item, *values = (self.read(child, depth) for child in children)
            found: Expression
            if all(isinstance(value, Literal) for value in values):
                found = In(item, tuple(value.value for value in values if isinstance(value, Literal)))
            else:
                found = Or(tuple(compare("=", item, value) for value in values))
            return found if kind == "COMPARE_IN" else Not(found)
        if kind == "OPERATOR_COALESCE":
            return self._call("coalesce", [self.read(child, depth) for child in children], node)
        if kind == "OPERATOR_NULLIF":
            return self._call("nullif", [self.read(child, depth) for child in children], node)
        raise self._refusal(kind.replace("_", " ").lower(), node)

    def function(self, node: Node, depth: int) -> Expression:
        name = node["function_name"].lower()
        if node.get("order_bys", {"type": "ORDER_MODIFIER"}) != {"type": "ORDER_MODIFIER"}:
            raise self._refusal("ORDER BY", node)
        if node.get("qualified_name", {"path": [node["function_name"]]}) != {"path": [node["function_name"]]}:
            raise self._refusal("a schema", node)
        if node.get("schema", "main") != "main":  # where DuckDB 1 has its own
            raise self._refusal("a schema", node)
        given = node.get("children", [])
        for argument in node.get("arguments", []):  # from DuckDB 2 on
            if set(argument) != {"expression"}:
                raise self._refusal("a named argument", node)
            given = [*given, argument["expression"]]
        if name == "contains" and given and given[0].get("function_name") == "row" and given[0].keys().isdisjoint(
            ("children", "arguments")
        ):  # fmt: skip
            raise InputError(f"the list behind IN is empty{self._at(node.get('query_location'))}; write what may be in "
                             "it, or IN $list with a parameter, which may be empty")  # fmt: skip
        if name == "contains" and len(given) == 2 and given[0].get("class") == "PARAMETER":
            values = self.parameters.listed(given[0]["identifier"])
            if values is not None:  # x IN $list
                return In(self.read(given[1], depth), values)
        arguments = [self.read(each, depth) for each in given]
        if name in LIKES:
            return self._like(name, arguments, node)
        return self._call(name, arguments, node)

    def _call(self, name: str, arguments: list[Expression], node: Node) -> Expression:
        function = FUNCTIONS.get(name)
        if function is None:
            hint = did_you_mean(name, [known for known in FUNCTIONS if known[0].isalpha()])
            raise InputError(
                f"the filter calls {name}(), which is none of the functions that filters know"
                f"{self._at(node.get('query_location'))}; {hint}"
            )
        if len(arguments) not in function.counts:
            raise InputError(f"{name}() takes {_counts(function.counts)}, but {len(arguments)} came")
        if function.constant is not None and not isinstance(arguments[function.constant], Literal):
            raise InputError(f"{name}() takes a constant pattern; write it as text, or pass it as a parameter")
        return Call(function.name, tuple(arguments))

    def _like(self, name: str, arguments: list[Expression], node: Node) -> Expression:
        item, *rest = arguments
        texts = [part.value for part in rest if isinstance(part, Literal) and isinstance(part.value, str)]
        if len(texts) != len(rest) or not texts:
            raise InputError("LIKE takes a constant pattern; write it as text, or pass it as a parameter")
        cased, negated = LIKES[name]
        found = like(item, texts[0], escape=texts[1] if len(texts) > 1 else None, cased=cased)
        return Not(found) if negated else found

    def column(self, node: Node, depth: int) -> Expression:
        names = node["column_names"]
        if len(names) != 1:
            dotted = ".".join(names)
            raise InputError(
                f'the filter names {dotted!r} in parts; a column whose name has a dot is written "{dotted}", a part of '
                f"JSON json_extract_string({names[0]}, '$.{'.'.join(names[1:])}')"
            )
        return Field(names[0])

    def case(self, node: Node, depth: int) -> Expression:
        checks = []
        for check in node["case_checks"]:
            if set(check) != {"when_expr", "then_expr"}:
                raise self._refusal("an unknown form of CASE", node)
            checks.append((self.read(check["when_expr"], depth), self.read(check["then_expr"], depth)))
        return Case(tuple(checks), self.read(node["else_expr"], depth))

    def cast(self, node: Node, depth: int) -> Expression:
        item = self.read(node["child"], depth)
        wanted = self._type(node)
        if isinstance(item, Literal) and isinstance(item.value, str) and not node.get("try_cast"):
            if wanted == "BOOLEAN" and item.value in ("t", "f"):  # how TRUE and FALSE look before DuckDB 2
                return Literal(item.value == "t")
            if (moment := _moment(item.value, wanted)) is not None:
                return Literal(moment)
        if wanted not in TYPES:
            raise InputError(f"the filter casts to {wanted}; choose one of {', '.join(sorted(set(TYPES.values())))}")
        return Cast(item, TYPES[wanted], bool(node.get("try_cast")))

    def _type(self, node: Node) -> str:
        if "type_expr" not in node:  # before DuckDB 2
            given = node["cast_type"]
            return str(given["id"]).upper() if set(given) == {"id"} else "a type with parameters"
        given = node["type_expr"]
        name = str(given.get("type_name", "")).upper()
        known = {"type_name", "qualified_name"} | _EVERYWHERE
        return (
            name if set(given) <= known and len(given.get("qualified_name", {"path": [0]})["path"]) == 1 else "a type"
        )

    def constant(self, node: Node, depth: int) -> Expression:
        if "literal" in node:
            kind, text = node["literal"].get("kind"), node["literal"].get("text")
            if kind == "STRING":
                return Literal(text or "")
            if kind == "BOOLEAN":
                return Literal(text == "true")
            if kind in ("NULL", "NULL_LITERAL"):
                return Literal(None)
            if kind in ("INTEGER", "NUMERIC"):
                return Literal(int(text.replace("_", "")) if kind == "INTEGER" and len(text) < 100 else number(text))
            raise self._refusal(f"a constant of kind {kind}", node)
        return Literal(_constant_before_2(node, self))

    def parameter(self, node: Node, depth: int) -> Expression:
        return self.parameters.literal(node["identifier"])


_READERS: dict[str, tuple[Callable[[_Reader, Node, int], Expression], set[str]]] = {
    "CONJUNCTION": (_Reader.conjunction, {"children"}),
    "COMPARISON": (_Reader.comparison, {"left", "right"}),
    "BETWEEN": (_Reader.between, {"input", "lower", "upper"}),
    "OPERATOR": (_Reader.operator, {"children"}),
    "FUNCTION": (
        _Reader.function,
        {"function_name", "children", "arguments", "order_bys", "is_operator", "qualified_name", "schema"},
    ),
    "COLUMN_REF": (_Reader.column, {"column_names"}),
    "CASE": (_Reader.case, {"case_checks", "else_expr"}),
    "CAST": (_Reader.cast, {"child", "try_cast", "type_expr", "cast_type"}),
    "CONSTANT": (_Reader.constant, {"literal", "value"}),
    "PARAMETER": (_Reader.parameter, {"identifier"}),
}


def _moment(text: str, type: str) -> dt.date | dt.datetime | None:
    """The constant DATE '...' or TIMESTAMP '...', None where it is another."""
    try:
        if type == "DATE":
            return dt.date.fromisoformat(text)
        if type in ("TIMESTAMP", "DATETIME", "TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"):
            moment = as_literal(dt.datetime.fromisoformat(text), lambda: f"{type} {text!r}").value
            assert isinstance(moment, dt.datetime)
            return moment
    except (ValueError, OverflowError) as problem:
        raise InputError(f"the filter has {type} {text!r}, which is none: {problem}") from None
    return None


def _constant_before_2(node: Node, reader: _Reader) -> Any:
    """A constant as DuckDB 1 writes it: a value with its type."""
    value = node["value"]
    type, plain = value["type"]["id"], value.get("value")
    if value.get("is_null"):
        return None
    if isinstance(plain, dict):
        plain = (plain["upper"] << 64) + plain["lower"]
    if type == "DECIMAL":
        return number(str(Decimal(plain).scaleb(-value["type"]["type_info"].get("scale", 0))))
    if type in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT", "VARCHAR", "BOOLEAN"):
        return plain
    if type == "DOUBLE":
        return number(repr(plain))
    raise reader._refusal(f"a constant of type {type}", node)


def _counts(counts: tuple[int, ...]) -> str:
    low, high = counts[0], counts[-1]
    return f"{low} to {high} arguments" if high > low else f"{low} argument{'s' * (low != 1)}"
