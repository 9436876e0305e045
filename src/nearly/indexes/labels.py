"""Labels of rows, and what a graph knows of them: which common ones each node has, and where walks within one start.

A label is common from `COMMON` rows on: fewer are scanned sooner than they are walked to, so that lists take no notice
of them. What a node has of common labels is a set, and equal sets are kept once: four bytes a node, however many labels
there are. What a row has is a column as filters read it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly.arrays.words import describe
from nearly.errors import InputError
from nearly.filters import Column, Dictionary, Expression, evaluate_bits, parse
from nearly.filters.columns import code_dtype, narrowed, pack, unpack
from nearly.filters.expressions import And, Call, Compare, Field, In, Literal, Not, Or
from nearly.filters.inference import infer_type
from nearly.indexes.allowed import Allowed
from nearly.indexes.store import NONE, grow_or_copy, new_table

__all__ = ["COMMON", "ENTRIES", "NAME", "Labels", "Within", "as_labels", "is_of_labels", "joined", "no_labels",
           "of_one_type"]  # fmt: skip

NAME = "label"  # of the column, in filters
COMMON = 1000  # rows from which on lists are made for a label; levers table of benchmarks/README.md
ENTRIES = 8  # `Labels::kEntries` of the core
_MOST = 65536  # common labels that the core numbers
_STARTS = 64  # nodes that one walk starts from, over all its labels
_PLANS = 32  # filters whose bits are remembered

Pairs = tuple[NDArray[np.uint32], NDArray[np.uint16]]


class Within(NamedTuple):
    """A filter over labels, in the terms of a graph.

    What is allowed hangs on ``n_nodes`` nodes. All of these are among nodes that have one of some common labels,
    ``n_among`` with a bit in ``among``, and walks may begin at ``starts``. None: no labels cover the filter.
    """

    allowed: Allowed
    n_nodes: int = 0
    among: NDArray[np.uint64] | None = None
    n_among: int = 0
    starts: NDArray[np.uint32] = np.zeros(0, np.uint32)
    named: str = ""


def is_of_labels(where: Any) -> bool:
    """Whether this is a filter over columns, in one of its three spellings, and not a mask or ids."""
    return isinstance(where, str | Mapping | Expression)


def as_labels(labels: Any) -> Column:
    """Return labels as a column of ``str``, ``int`` or ``list[str]``.

    Raises
    ------
    InputError
        If they are neither texts, nor whole numbers, nor lists of texts.
    """
    if isinstance(labels, Column):
        made = labels
    elif isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise InputError(f"labels is {describe(labels)}; pass one label, a list of labels or None for each vector")
    else:
        made = _from_values(labels if isinstance(labels, np.ndarray) else _evened(list(labels)))
    if made.type not in ("str", "int", "list[str]"):
        raise InputError(f"labels are {made.type}, but text, whole numbers or lists of texts are wanted; where a "
                         "vector has several, write numbers as text")  # fmt: skip
    if made.name == NAME:
        return made
    return Column(NAME, made.type, made.values, valid=made.valid, dictionary=made.dictionary, offsets=made.offsets)


def _evened(labels: list[Any]) -> list[Any]:
    """Where some rows have several labels all have a list, or None."""
    several = (list, tuple, set, frozenset, np.ndarray)
    if not any(isinstance(each, several) for each in labels):
        return labels
    lists = [each.tolist() if isinstance(each, np.ndarray) else each for each in labels]
    lists = [sorted(each, key=str) if isinstance(each, set | frozenset) else each for each in lists]
    return [each if isinstance(each, list | tuple) or _is_null(each) else [each] for each in lists]


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _from_values(values: Any) -> Column:
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise InputError(f"labels is {describe(values)}, but one dimension is wanted: one entry for each vector")
    type = infer_type(NAME, values)
    if type is None:
        return Column(NAME, "str", np.zeros(len(values), np.uint8), valid=np.zeros(len(values), bool),
                      dictionary=Dictionary.from_texts([])[0])  # fmt: skip
    return Column.from_values(NAME, values, "int" if type == "float" else type)  # integers beside NaN are floats


def joined(old: Column, new: Column, rows: NDArray[np.uint32], n: int) -> Column:
    """Labels of n rows: those there are, and others in the places of some of them."""
    old, new = of_one_type(old, new)
    dictionary, (first, second) = None, (old.values, new.values)
    if old.dictionary is not None and new.dictionary is not None:
        dictionary, first, second = _merged(old, new)
    elif len(second):  # integers
        first, second = first.astype(np.int64), second.astype(np.int64)
    source = np.arange(n)  # which of all old rows and new ones; one past the end has no label
    source[len(old) :] = len(old) + len(new)
    source[rows] = len(old) + np.arange(len(new))
    valid = np.concatenate([old.mask(), new.mask(), [False]])[source]
    if old.offsets is None or new.offsets is None:
        values = np.concatenate([first, second, np.zeros(1, first.dtype)])[source]
        if dictionary is None:
            values = narrowed(values)
        return Column(NAME, old.type, values, valid=valid, dictionary=dictionary)
    starts = np.concatenate([old.offsets[:-1], new.offsets[:-1] + old.offsets[-1], [0]])[source]
    lengths = np.concatenate([np.diff(old.offsets), np.diff(new.offsets), [0]])[source]
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    at = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
    values = np.concatenate([first, second])[at]
    return Column(NAME, old.type, values, valid=valid, dictionary=dictionary, offsets=offsets)


def of_one_type(old: Column, new: Column) -> tuple[Column, Column]:
    """Two columns of labels in the type that holds both; InputError where one is of texts and one of numbers."""
    for one, other in ((old, new), (new, old)):
        if one.type != other.type and not one.mask().any():  # no label says what type they are
            empty = no_labels(other, len(one))
            return (empty, new) if one is old else (old, empty)
    if old.type == new.type:
        return old, new
    if {old.type, new.type} == {"str", "list[str]"}:
        return (_listed(old), new) if old.type == "str" else (old, _listed(new))
    raise InputError(f"labels of this index are {old.type}, but those that came are {new.type}; write all as text")


def no_labels(like: Column, n: int) -> Column:
    """Rows without labels, in a column like another."""
    offsets = None if like.offsets is None else np.zeros(n + 1, np.int64)
    values = np.zeros(n if offsets is None else 0, like.values.dtype)
    return Column(NAME, like.type, values, valid=np.zeros(n, bool), dictionary=like.dictionary, offsets=offsets)


def _listed(column: Column) -> Column:
    """One label a row as a list of one."""
    valid = column.mask()
    offsets = np.zeros(len(column) + 1, np.int64)
    np.cumsum(valid, out=offsets[1:])
    return Column(NAME, "list[str]", np.ascontiguousarray(column.values[valid]), valid=valid,
                  dictionary=column.dictionary, offsets=offsets)  # fmt: skip


def _merged(old: Column, new: Column) -> tuple[Dictionary, NDArray[Any], NDArray[Any]]:
    """One dictionary for two columns, and their values in it."""
    assert old.dictionary is not None
    assert new.dictionary is not None
    places = [old.dictionary.place(text) for text in new.dictionary.texts]
    if all(known for _, known in places):
        place = np.array([at for at, _ in places] or [0], old.values.dtype)
        return old.dictionary, old.values, place[np.minimum(new.values, len(place) - 1)]
    texts = sorted({*old.dictionary.texts, *new.dictionary.texts}, key=str.encode)
    dictionary, _ = Dictionary.from_texts(texts)
    number, dtype = {text: i for i, text in enumerate(texts)}, code_dtype(len(texts))

    def again(column: Column, texts: list[str]) -> NDArray[Any]:
        table = np.array([number[text] for text in texts] or [0], dtype)
        return table[np.minimum(column.values, len(table) - 1)]  # where there is no label anything may stand

    return dictionary, again(old, old.dictionary.texts), again(new, new.dictionary.texts)


class Labels:
    """The labels of an index.

    Attributes
    ----------
    column : Column
        A row's labels, whether it is in use or not. Replaced, never changed.
    common : list
        The labels that lists are made for, by number: common ones when they were first counted, later ones behind.
    tables : list of Table
        What the core reads: the set of each node, where sets end among their members, the members (numbers of common
        labels, ascending), and `ENTRIES` nodes for each common label.
    version : int
        Counts changes of any of these.
    n_having : int
        Nodes with a common label, once for each that they have.
    """

    def __init__(self, column: Column, common: list[Any] | None = None, tables: list[Any] | None = None) -> None:
        self.column, self.common, self.version = column, common or [], 0
        if tables is None:
            tables = [new_table(4, 0), new_table(4, 1), new_table(2, 0), new_table(4 * ENTRIES, 0)]
        self.tables = tables
        self.n_having = int(self.counts().sum())
        self._plans: dict[str, tuple[Any, Within]] = {}

    @property
    def n_bytes(self) -> int:
        return self.column.n_bytes + sum(int(table.n_bytes) for table in self.tables)

    # -- what nodes have -----------------------------------------------------------------------------------------------

    def _read(self, table: int) -> NDArray[Any]:
        dtype: Any = np.uint16 if table == 2 else np.uint32
        array: NDArray[Any] = self.tables[table].array().view(dtype)
        return array if table == 3 else array.reshape(-1)

    def numbers(self) -> NDArray[np.int32]:
        """Number of the common label that each value of the column is, by code of text or by value; -1 for others."""
        if self.column.dictionary is None:
            raise AssertionError  # integers have no codes
        found = np.full(len(self.column.dictionary) + 1, -1, np.int32)
        for i, label in enumerate(self.common):
            at, known = self.column.dictionary.place(label)
            if known:
                found[at] = i
        return found

    def _pairs(self, rows: NDArray[Any], nodes: NDArray[Any]) -> Pairs:
        """The common labels of some rows, as (node, number)."""
        column = self.column
        if not self.common or not len(rows):
            return np.zeros(0, np.uint32), np.zeros(0, np.uint16)
        if column.offsets is not None:
            starts, lengths = column.offsets[rows], column.offsets[rows + 1] - column.offsets[rows]
            ends = np.cumsum(lengths)
            at = np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1])
            values, nodes = column.values[at], np.repeat(nodes, lengths)
        else:
            there = column.mask()[rows]
            values, nodes = column.values[rows[there]], nodes[there]
        if column.dictionary is not None:
            number = self.numbers()[values]
        else:
            order = np.argsort(np.array(self.common, np.int64))
            ordered = np.array(self.common, np.int64)[order]
            place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
            number = np.where(ordered[place] == values, order[place], -1).astype(np.int32)
        kept = number >= 0
        return nodes[kept].astype(np.uint32), number[kept].astype(np.uint16)

    def place(
        self, column: Column, rows: NDArray[np.uint32], nodes: NDArray[np.uint32], fresh: NDArray[np.uint32],
        n_rows: int, n_nodes: int, of_rows: NDArray[np.uint32],
    ) -> NDArray[np.uint32]:  # fmt: skip
        """Give rows labels, at these nodes, of which some are new; return other nodes that have common labels now which
        they had not. ``of_rows`` has the node of each row that was in use before."""
        self.column = joined(self.column, column, rows, n_rows)
        of_rows = np.concatenate([of_rows[:n_rows], np.full(max(0, n_rows - len(of_rows)), NONE, np.uint32)])
        of_rows[rows] = nodes
        known = len(self.common)
        self.common.extend(self._newly_common(of_rows != NONE))
        self.tables[0] = grow_or_copy(self.tables[0], n_nodes, 0)
        self.tables[3] = grow_or_copy(self.tables[3], len(self.common), 255)
        self._forget(fresh)
        looked_at = np.arange(n_rows) if len(self.common) > known else rows.astype(np.int64)
        looked_at = looked_at[of_rows[looked_at] != NONE]
        changed = self._add_to_sets(*self._pairs(looked_at, of_rows[looked_at]))
        self.version += 1
        return np.setdiff1d(changed, fresh)

    def _newly_common(self, in_use: NDArray[np.bool_]) -> list[Any]:
        """Labels that so many rows in use have by now, most first."""
        column, room = self.column, _MOST - len(self.common)
        rows = in_use & column.mask()
        if column.offsets is not None:
            values = column.values[np.repeat(rows, np.diff(column.offsets))]
        else:
            values = column.values[rows]
        if column.dictionary is not None:
            counts = np.bincount(values, minlength=len(column.dictionary))
            codes = np.flatnonzero(counts >= COMMON)
            labels: list[Any] = [column.dictionary[int(code)] for code in codes]
            counts = counts[codes]
        else:
            codes, counts = np.unique(values, return_counts=True)
            labels, counts = codes[counts >= COMMON].tolist(), counts[counts >= COMMON]
        known = set(self.common)
        return [labels[i] for i in np.argsort(-counts, kind="stable") if labels[i] not in known][:room]

    def _add_to_sets(self, nodes: NDArray[np.uint32], numbers: NDArray[np.uint16]) -> NDArray[np.uint32]:
        """Make the sets of nodes hold these labels, too; return those whose sets are others now."""
        if not len(nodes):
            return np.zeros(0, np.uint32)
        of_node, (own_nodes, own_numbers) = self._read(0), self._members(np.unique(nodes))
        key = np.unique(np.concatenate([nodes, own_nodes]).astype(np.uint64) << np.uint64(16)
                        | np.concatenate([numbers, own_numbers]).astype(np.uint64))  # fmt: skip
        self.n_having += len(key) - len(own_nodes)
        members, owners = (key & np.uint64(0xFFFF)).astype(np.uint16), (key >> np.uint64(16)).astype(np.uint32)
        first = np.flatnonzero(np.diff(owners, prepend=NONE))
        which, hashes = owners[first], np.add.reduceat(_hashed(members), first)
        # Sets are told apart by 64 bits: of a million different ones two are taken for one with a chance of 3e-8, and
        # then a few lists are made for wrong labels.
        unique, example, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        number = self._known_sets(unique)
        missing = np.flatnonzero(number < 0)
        number[missing] = self.tables[1].rows + np.arange(len(missing))
        lengths = np.diff(first, append=len(owners))[example[missing]]
        starts = first[example[missing]]
        at = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
        n_members, n_sets = self.tables[2].rows, self.tables[1].rows
        self.tables[2] = grow_or_copy(self.tables[2], n_members + len(at), 0)
        self._read(2)[n_members:] = members[at]
        self.tables[1] = grow_or_copy(self.tables[1], n_sets + len(missing), 0)
        self._read(1)[n_sets:] = n_members + np.cumsum(lengths)
        after = number[inverse].astype(np.uint32)
        changed: NDArray[np.uint32] = which[of_node[which] != after]
        of_node[which] = after
        return changed

    def _members(self, nodes: NDArray[np.uint32]) -> Pairs:
        """The labels that these nodes have, as (node, number)."""
        ends, sets = self._read(1).astype(np.int64), self._read(0)[nodes]
        starts = np.where(sets > 0, ends[np.maximum(sets, 1) - 1], 0)
        lengths = ends[sets] - starts
        at = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
        return np.repeat(nodes, lengths), self._read(2)[at]

    def _known_sets(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Numbers of the sets with these hashes, -1 where there is none."""
        ends = self._read(1).astype(np.int64)
        if len(ends) == 1:
            return np.full(len(hashes), -1)
        known = np.add.reduceat(_hashed(self._read(2)), ends[:-1])  # no set but the first is empty
        order = np.argsort(known)
        place = np.minimum(np.searchsorted(known, hashes, sorter=order), len(known) - 1)
        return np.where(known[order[place]] == hashes, order[place] + 1, -1)

    def free(self, nodes: NDArray[np.uint32], alive: NDArray[np.bool_], seed: int) -> None:
        """These nodes have no labels any more; labels that they were entries of get others, of those that are alive."""
        self._forget(nodes)
        entries = self._read(3)
        gone = np.isin(entries, nodes).any(axis=1)
        for number in np.flatnonzero(gone).tolist():
            some = np.flatnonzero(self.nodes_with([number]) & alive)
            drawn = np.random.default_rng((seed, number)).permutation(some)[:ENTRIES]
            entries[number] = NONE
            entries[number, : len(drawn)] = np.sort(drawn)
        self.version += 1

    def _forget(self, nodes: NDArray[np.uint32]) -> None:
        self.n_having -= len(self._members(nodes)[0])
        self._read(0)[nodes] = 0

    def own(self) -> bool:
        """Make the tables this process's own; whether any was not."""
        before = list(self.tables)
        self.tables = [grow_or_copy(table, table.rows) for table in before]
        return any(a is not b for a, b in zip(before, self.tables, strict=True))

    def clear(self) -> None:
        """There is no row and no node any more."""
        self.__init__(no_labels(self.column, 0))  # type: ignore[misc]

    def nodes_with(self, numbers: Iterable[int]) -> NDArray[np.bool_]:
        """Which nodes have one of these common labels."""
        ends, members = self._read(1), self._read(2)
        wanted = np.zeros(len(self.common) + 1, bool)
        wanted[list(numbers)] = True
        owners = np.repeat(np.arange(len(ends)), _lengths(ends))
        having = np.zeros(len(ends), bool)
        having[owners[wanted[members[: len(owners)]]]] = True
        return np.asarray(having[self._read(0)])

    def counts(self) -> NDArray[np.int64]:
        """How many nodes have each common label."""
        ends, members = self._read(1), self._read(2)
        of_sets = np.bincount(self._read(0), minlength=len(ends))
        found = np.zeros(len(self.common), np.int64)
        np.add.at(found, members[: int(ends[-1])], np.repeat(of_sets, _lengths(ends)))
        return found

    def starts(self, numbers: Iterable[int]) -> NDArray[np.uint32]:
        """Where walks within these common labels begin."""
        numbers = list(numbers)
        entries = self._read(3)[numbers, : max(1, _STARTS // max(1, len(numbers)))].ravel()
        found: NDArray[np.uint32] = np.unique(entries[entries != NONE])
        return found

    # -- filters -------------------------------------------------------------------------------------------------------

    def within(self, where: Any, of_rows: NDArray[np.uint32], change: int) -> Within:
        """What a filter passes of rows with these nodes, and which nodes a walk for that may keep to; remembered."""
        expression = parse(where)
        state = self.version, change, len(of_rows)
        known = self._plans.get(expression.key)
        if known is None or known[0] != state:
            if len(self._plans) >= _PLANS:
                self._plans = {}
            known = self._plans[expression.key] = state, self._within(expression, of_rows)
        return known[1]

    def _within(self, expression: Expression, of_rows: NDArray[np.uint32]) -> Within:
        column, n = self.column, len(of_rows)
        bits = evaluate_bits(expression, {NAME: column}, len(column))
        passes = np.zeros(n, bool)
        passes[: len(column)] = unpack(bits, len(column))[:n]
        passes &= of_rows != NONE
        found = Within(Allowed(pack(passes), int(passes.sum())))
        if not found.allowed.n or not self.common:
            return found
        number, counts = {label: i for i, label in enumerate(self.common)}, self.counts()

        def size(labels: set[Any]) -> int:
            return sum(int(counts[number[label]]) for label in labels if label in number)

        labels = _cover(expression, False, self.column.offsets is not None, size)
        if labels is None:
            return found
        numbers = sorted(number[label] for label in labels if label in number)
        if not numbers:
            return found
        among = self.nodes_with(numbers)
        passing = np.zeros(len(among), bool)
        rows_of = of_rows[passes]
        passing[rows_of[rows_of < len(among)]] = True
        rest = np.flatnonzero(passing & ~among).astype(np.uint32)  # of rare labels: met at once
        if len(rest) > COMMON:
            return found
        among[rest] = True
        starts = np.union1d(self.starts(numbers), rest).astype(np.uint32)
        named = f"label {self.common[numbers[0]]!r}" if len(labels) == 1 else f"{len(labels)} labels"
        return Within(found.allowed, int(passing.sum()), pack(among), int(among.sum()), starts, named)


def _lengths(ends: NDArray[np.uint32]) -> NDArray[np.int64]:
    """How many members each set has."""
    return np.concatenate([ends[:1], ends[1:] - ends[:-1]]).astype(np.int64)


def _hashed(numbers: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """64 bits for each common label, whose sum stands for a set (splitmix64)."""
    with np.errstate(over="ignore"):
        z = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


def _cover(
    node: Expression, negated: bool, lists: bool, size: Callable[[set[Any]], int]
) -> set[Any] | None:  # fmt: skip
    """Labels of which every row that passes has one, the fewest nodes that are known; None where none are."""
    if isinstance(node, Not):
        return _cover(node.item, not negated, lists, size)
    if isinstance(node, And | Or):
        parts = [_cover(item, negated, lists, size) for item in node.items]
        if isinstance(node, And) != negated:
            return min((part for part in parts if part is not None), key=size, default=None)
        return None if any(part is None for part in parts) else {label for part in parts for label in part or ()}
    if isinstance(node, Compare) and node.operator == ("<>" if negated else "="):
        field, value = (node.left, node.right) if isinstance(node.left, Field) else (node.right, node.left)
        return {value.value} if isinstance(field, Field) and isinstance(value, Literal) else None
    if isinstance(node, In) and not negated and isinstance(node.item, Field):
        return {value for value in node.values if value is not None}
    if isinstance(node, Call) and node.name == "contains" and lists and not negated and len(node.arguments) == 2:
        item, part = node.arguments
        return {part.value} if isinstance(item, Field) and isinstance(part, Literal) else None
    return None
