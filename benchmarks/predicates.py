"""Filters that differ from query to query, of known shares, over real attributes; their bits and the truth under them.

A predicate takes the rows with one value of a column (a vendor), or with at least some score, and of these a window of
another column (time) that holds as many as wanted. Which value and which window, chance says: no two are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import measure
import numpy as np
import records
from datasets import Dataset, K
from numpy.typing import NDArray
from records import Columns, Condition, Conditions, Records

SHARES = {"50 %": 0.5, "10 %": 0.1, "1 %": 0.01, "0.1 %": 0.001}
SIFT = "sift_bsds_128_l2"
Kind = tuple[str | None, str]  # the column of the first condition, and that of the window
KINDS: dict[str, dict[str, Sequence[Kind]]] = {
    records.CVE: {
        "50 %": [(None, "published"), ("cvss_v2", "published")],
        "10 %": [("severity", "published"), ("cvss_v2", "published"), ("cwe", "published")],
        "1 %": [("vendor", "published"), ("cwe", "published")],
        "0.1 %": [("product", "published"), ("vendor", "published")],
    },
    f"{SIFT}/random": {share: [(None, "random")] for share in SHARES},
    f"{SIFT}/image": {**{share: [(None, "image")] for share in SHARES}, "0.1 %": [("image", "random")]},
    "synthetic": {
        "50 %": [(None, "published")],
        "10 %": [("severity", "published"), ("cvss_v2", "published")],
        "1 %": [("vendor", "published")],
        "0.1 %": [(None, "published")],
    },
}


class Table:
    """Columns as arrays, texts as numbers of a dictionary: what NumPy tests quickest."""

    def __init__(self, columns: Columns) -> None:
        self.n = len(next(iter(columns.values())))
        self.codes: dict[str, dict[str, int]] = {}
        self.arrays = {name: self._array(name, values) for name, values in columns.items()}

    def _array(self, name: str, values: Sequence[Any]) -> NDArray[Any]:
        some = next(value for value in values if value is not None)
        if isinstance(some, str):
            codes = self.codes[name] = {text: i for i, text in enumerate(sorted({v for v in values if v is not None}))}
            return np.array([-1 if value is None else codes[value] for value in values], np.int32)
        if None in values or isinstance(some, float):
            return np.array([np.nan if value is None else value for value in values], np.float64)
        array = np.array(values, np.int64)
        narrow = array.astype(np.int32)
        return narrow if np.array_equal(narrow, array) else array

    def mask(self, conditions: Conditions) -> NDArray[np.bool_]:
        """Return a bool a row, whether it passes; a missing value never does."""
        passes = np.ones(self.n, bool)
        for condition in conditions:
            array, value = self.arrays[condition.column], condition.value
            if condition.sign == "=":
                passes &= array == (self.codes[condition.column][value] if isinstance(value, str) else value)
            else:
                passes &= array >= value if condition.sign == ">=" else array <= value
        return passes


@dataclass(frozen=True)
class Truth:
    """How far the tenth of the rows that pass is from each query, and which rows those are."""

    data: Dataset
    masks: NDArray[np.uint8]  # packed bits, a row a filter; query i has that of i modulo their number
    radius: NDArray[np.float64]

    def recall(self, ids: NDArray[Any]) -> float:
        """Return mean recall@10 by distance of the answers to the first ``len(ids)`` queries; wrong ones count not."""
        data, right = self.data, np.where(self.allowed(ids), ids, -1)
        found = measure.recalls_by_distance(right, data.vectors, data.queries, data.metric, self.radius, K)
        return float(found.mean())

    def allowed(self, ids: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which answers pass the filter of their query."""
        known = (ids >= 0) & (ids < len(self.data.vectors))
        row = np.where(known, ids, 0)
        which = np.arange(len(ids))[:, None] % len(self.masks)
        return known & ((self.masks[which, row // 8] >> (row % 8).astype(np.uint8)) & 1).astype(bool)


def truth(data: Dataset, table: Table, filters: Sequence[Conditions]) -> Truth:
    """Search the rows that pass by float32 products, and decide among the nearest 60 in float64."""
    masks = np.stack([table.mask(conditions) for conditions in filters])
    norms = np.einsum("ij,ij->i", data.vectors, data.vectors)
    radius = np.empty(len(data.queries))
    for start in range(0, len(data.queries), 64):
        block = data.queries[start : start + 64]
        coarse = (norms if data.metric == "l2" else 0) - 2 * (block @ data.vectors.T)
        coarse[~masks[np.arange(start, start + len(block)) % len(masks)]] = np.inf
        ids = np.argpartition(coarse, K + 50, axis=1)[:, : K + 50]
        exact = measure.squared_or_negated(data.vectors, ids, block, data.metric)
        exact[~np.isfinite(np.take_along_axis(coarse, ids, axis=1))] = np.inf
        radius[start : start + len(block)] = np.partition(exact, K - 1, axis=1)[:, K - 1]
    return Truth(data, np.packbits(masks, axis=1, bitorder="little"), radius)


# ---------------------------------------------------------------- predicates


def make(columns: Columns, kinds: Mapping[str, Sequence[Kind]], n_filters: int) -> dict[str, list[Conditions]]:
    """Return so many predicates of each share; at least K rows pass each."""
    rng, chosen = np.random.default_rng(0), {}
    n = len(next(iter(columns.values())))
    for share, of_share in kinds.items():
        wanted = max(K, round(SHARES[share] * n))
        pools = [_Pool(columns, *kind, wanted) for kind in of_share]
        chosen[share] = [pools[i % len(pools)].draw(rng) for i in range(n_filters)]
    return chosen


class _Pool:
    """The predicates of a kind: the first conditions that let enough rows pass, and the window's values under each."""

    def __init__(self, columns: Columns, first: str | None, order: str, wanted: int) -> None:
        self.order, self.wanted = order, wanted
        along = np.array(columns[order])
        firsts: list[tuple[Conditions, NDArray[np.bool_]]] = [((), np.ones(len(along), bool))]
        if first is not None:
            values = columns[first]
            sign = ">=" if isinstance(next(v for v in values if v is not None), float) else "="
            distinct = sorted({value for value in values if value is not None})
            conditions = [Condition(first, sign, value) for value in distinct]
            table = Table({first: values})
            firsts = [((c,), table.mask((c,))) for c in conditions]
        self.firsts = [(c, np.sort(along[mask])) for c, mask in firsts if mask.sum() >= wanted]
        if not self.firsts:
            raise SystemExit(f"no value of {first} has {wanted} rows")

    def draw(self, rng: np.random.Generator) -> Conditions:
        """Return one at random."""
        first, along = self.firsts[rng.integers(len(self.firsts))]
        at = int(rng.integers(len(along) - self.wanted + 1))
        low, high = along[[at, at + self.wanted - 1]].tolist()
        return (*first, Condition(self.order, ">=", low), Condition(self.order, "<=", high))


# ---------------------------------------------------------------- sources


def load(
    name: str, *, n_queries: int, n_filters: int, limit: int | None
) -> tuple[Records, dict[str, list[Conditions]]]:
    """Load a data set of KINDS, with the columns that predicates are on, and make these.

    The filters of the records are all of them, named as `named` says.
    """
    if name not in KINDS:
        raise SystemExit(f"no predicates for {name!r}; there are {', '.join(KINDS)}")
    base = name.split("/")[0]
    if base == SIFT:
        data = datasets.load(base, n_queries=n_queries, limit=limit)
        n = len(data.vectors)
        with np.load(datasets.data_folder() / f"{SIFT}.npz", allow_pickle=False) as file:
            images = file["base_image"][:n].tolist()
        columns: Columns = {"image": images, "random": np.random.default_rng(1).permutation(n).tolist()}
        texts = [""] * n
    else:
        found = records.load(base, n_queries=n_queries, limit=limit)
        data, columns, texts = found.data, found.columns, found.texts
    chosen = make(columns, KINDS[name], n_filters)
    filters = {named(share, i): one for share, of_share in chosen.items() for i, one in enumerate(of_share)}
    used = {column for other in KINDS if other.split("/")[0] == base for kinds in KINDS[other].values()
            for kind in kinds for column in kind}  # fmt: skip
    return Records(data, {name: column for name, column in columns.items() if name in used}, texts, filters), chosen


def named(share: str, number: int) -> str:
    """Return the name of a predicate among the filters of the records."""
    return f"{share} {number}"
