"""DuckDB, locked up: it parses the SQL of filters, and evaluates what is more than a comparison.

One connection in memory, that holds only the columns of the question under way. No file, network or extension can be
reached, the configuration is locked, threads and memory are limited, and a question that takes too long is interrupted.
What it is asked is written by `_Writer` from our own tree: names are our own, texts are bound, never quoted.
"""

import os
import re
import threading
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearly.errors import InputError
from nearly.filters.columns import Column, unpack
from nearly.filters.expressions import (
    And,
    Call,
    Case,
    Cast,
    Compare,
    Expression,
    Field,
    In,
    IsNull,
    Literal,
    Not,
    Or,
)
from nearly.filters.functions import FUNCTIONS
from nearly.filters.matching import element_bits

__all__ = ["ask", "serialized"]

Array: TypeAlias = NDArray[Any]
# A column, the lengths of its lists, or whether they hold a text.
Source: TypeAlias = Column | tuple[Column, str | None]

SECONDS = 10.0  # that one question may take
_MANY = 100  # values of an IN
_CONFIGURATION = {
    "enable_external_access": "false",
    "allow_community_extensions": "false",
    "allow_unsigned_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "threads": "1",
    "memory_limit": "512MB",
    "temp_directory": "",
}
# The last of these makes all of them final. Objects that stand for texts are not guessed at.
_SETTINGS = (
    "SET python_enable_replacements = false",
    "SET pandas_analyze_sample = 0",
    "SET lock_configuration = true",
)

_lock = threading.Lock()  # one question at a time: its columns and its interrupt are its own
_connection: Any = None
_of_parents: list[Any] = []  # kept, as ending one in a child would wait for threads that it does not have


def _connected() -> Any:
    global _connection
    if _connection is None:
        import duckdb  # late: dicts and Python expressions rarely need it

        connection = duckdb.connect(":memory:", config=dict(_CONFIGURATION))
        for setting in _SETTINGS:
            connection.execute(setting)
        _connection = connection
    return _connection


def _forget() -> None:
    global _connection
    _connection = None


def _begin_anew() -> None:
    """What a child process does first: its parent's connection and lock are not its own."""
    global _connection, _lock
    _of_parents.append(_connection)
    _connection, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_begin_anew)


def serialized(statement: str) -> str:
    """Return DuckDB's tree of a SELECT as JSON; the statement is parsed, never run."""
    with _lock:
        try:
            asked = (
                "SELECT json_serialize_sql($1::VARCHAR, skip_empty := true, skip_null := true, skip_default := true)"
            )
            return str(_connected().execute(asked, [statement]).fetchall()[0][0])
        except Exception as problem:  # of DuckDB, or a text that is not valid Unicode
            raise InputError(f"the filter cannot be read: {_first_line(problem)}") from None


def ask(expression: Expression, columns: Mapping[str, Column], n: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for every row whether a condition is true, and whether it is false.

    Parameters
    ----------
    expression : Expression
        A condition.
    columns : mapping
        Those that it names, of n rows.

    Raises
    ------
    InputError
        If it is no condition, values are not of a type that its functions take, or it takes too long.
    """
    writer = _Writer(columns)
    sql = writer.write(expression)
    shared = writer.shared()
    if not writer.sources:  # constants alone
        true, false = _run(sql, writer, {"row": np.zeros(1, bool)}, expression)
        return np.full(n, true[0]), np.full(n, false[0])
    if shared is not None:  # one column of texts: each text is asked about once, and null
        assert shared.dictionary is not None
        (name,) = writer.sources
        texts = np.array([*shared.dictionary.texts, None], object)
        codes = np.where(shared.mask(), shared.values, len(texts) - 1)
        answers = _run(sql, writer, {name: texts}, expression)
        return answers[0][codes], answers[1][codes]
    arrays = {key: array for name, source in writer.sources.items() for key, array in _rows(name, source).items()}
    return _run(sql, writer, arrays, expression)


def _run(
    sql: str, writer: "_Writer", arrays: dict[str, Array], expression: Expression
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    with _lock:
        connection = _connected()
        connection.register("filtered", arrays)
        timer = threading.Timer(SECONDS, connection.interrupt)
        timer.start()
        try:
            answer = connection.execute(f"SELECT {sql} AS answer FROM filtered", writer.bound)
            type = str(answer.description[0][1])
            found = answer.fetchnumpy()["answer"]
        except Exception as problem:
            import duckdb

            if isinstance(problem, duckdb.InterruptException):
                raise InputError(f"{expression!r} took more than {SECONDS:g} s and was broken off") from None
            if not isinstance(problem, duckdb.Error):
                raise
            if isinstance(problem, duckdb.InternalException | duckdb.FatalException):
                _forget()  # it answers nothing more
            raise InputError(f"{expression!r} cannot be evaluated: {writer.named(_first_line(problem))}") from None
        finally:
            timer.cancel()
            timer.join()
            connection.unregister("filtered")
    if type not in ("BOOLEAN", "bool"):
        raise InputError(f"{expression!r} is of type {type}, which is no condition; compare it with something")
    known = ~np.ma.getmaskarray(found)
    true = np.asarray(np.ma.getdata(found), bool) & known
    return true, known & ~true


class _Writer:
    """Writes a tree as SQL over columns of its own names."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self.columns = columns
        self.sources: dict[str, Source] = {}  # what each name stands for
        self.bound: list[Any] = []

    def shared(self) -> Column | None:
        """The one column of texts that all depends on, where that is so."""
        sources = list(self.sources.values())
        alone = sources[0] if len(sources) == 1 else None
        return alone if isinstance(alone, Column) and alone.type in ("str", "json") else None

    def named(self, message: str) -> str:
        """Put people's names into DuckDB's messages."""

        def name(match: re.Match[str]) -> str:
            source = self.sources.get(match[0])
            column = source[0] if isinstance(source, tuple) else source
            return repr(column.name) if column else match[0]

        return re.sub(r"\bcolumn_\d+\b", name, message)

    def write(self, node: Expression) -> str:
        if isinstance(node, Field):
            return self._field(self.columns[node.name])
        if isinstance(node, Literal):
            return self._literal(node.value)
        if isinstance(node, Call):
            return self._call(node)
        if isinstance(node, Cast):
            return f"{'TRY_' if node.lenient else ''}CAST({self.write(node.item)} AS {node.type})"
        if isinstance(node, Case):
            checks = (f"WHEN {self.write(when)} THEN {self.write(then)}" for when, then in node.checks)
            return f"CASE {' '.join(checks)} ELSE {self.write(node.otherwise)} END"
        if isinstance(node, Compare):
            return f"({self.write(node.left)} {node.operator} {self.write(node.right)})"
        if isinstance(node, In):
            if not node.values:
                return f"({self.write(node.item)} IS NULL AND NULL)"
            item = self.write(node.item)
            if len(node.values) > _MANY and len({type(value) for value in node.values}) == 1:
                # One list, as planning takes long with each value by itself. Of nulls it would say false, not unknown.
                self.bound.append(list(node.values))
                return f"list_contains(${len(self.bound)}, {item})"
            return f"({item} IN ({', '.join(map(self._literal, node.values))}))"
        if isinstance(node, IsNull):
            return f"({self.write(node.item)} IS NULL)"
        if isinstance(node, Not):
            return f"(NOT {self.write(node.item)})"
        if isinstance(node, And | Or):
            word = " AND " if isinstance(node, And) else " OR "
            return f"({word.join(map(self.write, node.items))})" if node.items else str(isinstance(node, And))
        raise AssertionError(node)

    def _field(self, column: Column) -> str:
        if column.type == "list[str]":
            raise InputError(
                f"column {column.name!r} holds lists; filters test them by contains, length and IS NULL, nothing else"
            )
        name = self._source(column)
        if column.type == "date":
            return f"(DATE '1970-01-01' + {name})"
        if column.type == "datetime":
            return f"make_timestamp({name})"
        return f"CAST({name} AS BIGINT)" if column.type == "int" else name

    def _source(self, source: Source) -> str:
        """The value of a column, null where there is none."""
        names = (
            name
            for name, known in self.sources.items()
            if known is source or (type(known) is tuple and known == source)
        )
        name = next(names, f"column_{len(self.sources)}")
        self.sources[name] = source
        column = source[0] if isinstance(source, tuple) else source
        # Texts come as objects, None among them; DuckDB 1 does not heed the masks of other arrays.
        whole = column.valid is None or (column is source and column.dictionary is not None)
        return name if whole else f"CASE WHEN {name}_there THEN {name} END"

    def _literal(self, value: Any) -> str:
        if value is None or isinstance(value, bool):
            return {None: "NULL", True: "TRUE", False: "FALSE"}[value]
        self.bound.append(value)
        return f"${len(self.bound)}"

    def _call(self, node: Call) -> str:
        first = node.arguments[0]
        if isinstance(first, Field) and (column := self.columns[first.name]).type == "list[str]":
            if node.name == "length":
                return f"CAST({self._source((column, None))} AS BIGINT)"
            if node.name == "contains" and isinstance(node.arguments[1], Literal):
                return self._source((column, str(node.arguments[1].value)))
        function = FUNCTIONS[node.name]
        arguments = list(map(self.write, node.arguments))
        if function.operator:
            alone = len(arguments) == 1
            return f"({function.name} {arguments[0]})" if alone else f"({f' {function.name} '.join(arguments)})"
        return f"{function.name}({', '.join(arguments)})"


def _rows(name: str, source: Source) -> dict[str, Array]:
    """The values of all rows, and which rows have one, as DuckDB reads them."""
    column, part = source if isinstance(source, tuple) else (source, None)
    if column is source and column.dictionary is not None:
        texts = np.array([*column.dictionary.texts, None], object)
        return {name: texts[np.where(column.mask(), column.values, len(texts) - 1)]}
    values: Array
    if column is source:
        values = column.values
    elif part is None:
        assert column.offsets is not None
        values = np.diff(column.offsets)
    else:
        values = unpack(element_bits(column, part, False), len(column))
    return {name: values} if column.valid is None else {name: values, f"{name}_there": column.mask()}


def _first_line(problem: BaseException) -> str:
    """What DuckDB says, without its kinds of errors and how it wrote the question."""
    said = str(problem).partition("\n")[0].partition(" in expression (")[0]
    return re.sub(r"^(\w+ )+Error: ", "", said)
