"""Rows with attributes, and filters of known shares over them: what databases are measured on.

"cve_minilm_384" comes with the records of NEARLY_DATA; "synthetic" is made here, small. A filter is a conjunction of
conditions on real attributes, chosen from the rows so that a share of them passes. The truth is an exact scan of these.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import measure
import numpy as np
from datasets import Dataset, K
from numpy.typing import NDArray

UNFILTERED = "none"
CVE = "cve_minilm_384"
Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Condition:
    """A column compared with a value; what has no value does not pass."""

    column: str
    sign: str  # = or >= or <=
    value: Any

    def passes(self, values: Sequence[Any]) -> NDArray[np.bool_]:
        """Return which values pass."""
        if self.sign == "=":
            return np.array([value == self.value for value in values])
        if self.sign == "<=":
            return np.array([value is not None and value <= self.value for value in values])
        return np.array([value is not None and value >= self.value for value in values])

    def sql(self) -> str:
        """Return the condition in SQL."""
        quoted = "'" + self.value.replace("'", "''") + "'" if isinstance(self.value, str) else self.value
        return f"{self.column} {self.sign} {quoted}"


Conditions = tuple[Condition, ...]


def sql(conditions: Conditions) -> str:
    """Return a conjunction in SQL."""
    return " AND ".join(condition.sql() for condition in conditions)


@dataclass(frozen=True)
class Passing:
    """The rows that pass a filter, and how far the k-th of them is from each query, k being 10 or all where fewer."""

    data: Dataset
    rows: NDArray[np.bool_]
    radius: NDArray[np.float64]
    k: int

    def recall(self, ids: NDArray[Any]) -> float:
        """Return mean recall by distance of the answers to the first ``len(ids)`` queries."""
        data, right = self.data, np.where(self._allowed(ids), ids, -1)
        found = measure.recalls_by_distance(right, data.vectors, data.queries, data.metric, self.radius, self.k)
        return float(found.mean())

    def faults(self, ids: NDArray[Any]) -> dict[str, float]:
        """Return the share of answers that did not come, and of rows that should not have."""
        came = ids >= 0
        return {
            "lacking": float(1 - np.minimum(came.sum(axis=1), self.k).mean() / self.k),
            "wrong": float((came & ~self._allowed(ids)).sum() / max(1, came.sum())),
        }

    def _allowed(self, ids: NDArray[Any]) -> NDArray[np.bool_]:
        known = (ids >= 0) & (ids < len(self.rows))
        return known & self.rows[np.where(known, ids, 0)]


@dataclass(frozen=True)
class Records:
    """A data set whose rows have attributes and a text each, and the filters to search it by."""

    data: Dataset
    columns: Columns
    texts: list[str]
    filters: dict[str, Conditions]

    def passing(self, name: str) -> Passing:
        """Return the truth under a filter."""
        rows = np.ones(len(self.texts), bool)
        for condition in self.filters[name]:
            rows &= condition.passes(self.columns[condition.column])
        k, data = min(K, int(rows.sum())), self.data
        return Passing(data, rows, measure.exact_radius(data.vectors[rows], data.queries, data.metric, k), k)

    def write(self, folder: Path) -> None:
        """Write what a keeper reads beside vectors and queries."""
        (folder / "columns.json").write_text(json.dumps(self.columns))
        (folder / "texts.json").write_text(json.dumps(self.texts))
        filters = {name: [[c.column, c.sign, c.value] for c in conditions] for name, conditions in self.filters.items()}
        (folder / "filters.json").write_text(json.dumps(filters))

    def n_bytes(self) -> int:
        """Return the bytes of vectors, attributes (8 for a number) and texts: what nobody can do without."""
        values = (value for column in (*self.columns.values(), self.texts) for value in column if value is not None)
        return self.data.vectors.nbytes + sum(len(v.encode()) if isinstance(v, str) else 8 for v in values)


@dataclass(frozen=True)
class Rows:
    """What a database is given: vectors with attributes and texts. The key of a row is its number."""

    vectors: NDArray[np.float32]
    columns: Columns
    texts: list[str]

    def __len__(self) -> int:
        return len(self.vectors)

    def dicts(self, start: int, stop: int, **more: list[Any]) -> list[dict[str, Any]]:
        """Return the attributes of some rows, without those that have no value."""
        names = [*self.columns, *more]
        lists = [column[start:stop] for column in (*self.columns.values(), *more.values())]
        found = (zip(names, values, strict=True) for values in zip(*lists, strict=True))
        return [{name: value for name, value in row if value is not None} for row in found]


def read_rows(folder: Path) -> Rows:
    """Return the rows that a driver wrote."""
    columns, texts = (json.loads((folder / f"{name}.json").read_text()) for name in ("columns", "texts"))
    return Rows(np.load(folder / "vectors.npy"), columns, texts)


def read_filters(folder: Path) -> dict[str, Conditions]:
    """Return the filters that a driver wrote."""
    filters = json.loads((folder / "filters.json").read_text())
    return {name: tuple(Condition(*parts) for parts in conditions) for name, conditions in filters.items()}


# ---------------------------------------------------------------- filters


def choose_filters(columns: Columns) -> dict[str, Conditions]:
    """Return filters by name, from none to one row in a thousand: by time where many pass, by names where few do."""
    n, severity = len(columns["published"]), columns["severity"]
    common = Counter(value for value in severity if value is not None).most_common(1)[0][0]
    of_it = [when for when, value in zip(columns["published"], severity, strict=True) if value == common]
    return {
        UNFILTERED: (),
        "50 %": (_newest(columns["published"], n // 2),),
        "10 %": (Condition("severity", "=", common), _newest(of_it, n // 10)),
        "1 %": (_value(columns, "vendor", n / 100),),
        "0.1 %": (_value(columns, "product", n / 1000),),
    }


def _newest(published: Sequence[int], wanted: int) -> Condition:
    """The condition that so many of the newest pass, all of them where there are fewer."""
    return Condition("published", ">=", sorted(published)[-min(wanted, len(published))])


def _value(columns: Mapping[str, Sequence[Any]], column: str, wanted: float) -> Condition:
    """The condition that a column has the value which about so many rows have; of equals the first by name."""
    counts = Counter(value for value in columns[column] if value is not None)
    return Condition(column, "=", min(counts, key=lambda value: (abs(counts[value] - wanted), value)))


# ---------------------------------------------------------------- sources


def load(name: str, *, n_queries: int, limit: int | None = None) -> Records:
    """Load a data set with attributes, as `datasets.load` does."""
    if name not in (CVE, "synthetic"):
        raise SystemExit(f"{name!r} has no records with attributes; there are {CVE} and synthetic")
    data = datasets.load(name, n_queries=n_queries, limit=limit)
    columns, texts = _cve(len(data.vectors)) if name == CVE else _synthetic(len(data.vectors))
    return Records(data, columns, texts, choose_filters(columns))


def _cve(n: int) -> tuple[Columns, list[str]]:
    """Return the first records: times as seconds, so that they are whole numbers to everyone."""
    import duckdb

    path = datasets.data_folder() / "cve_records.parquet"
    text = ("cve_id", "severity", "attack_vector", "cwe", "vendor", "product")
    numbers = ("cvss_v2", "n_products", "n_references", "year", "n_chars")
    times = (f"CAST(epoch({name}) AS BIGINT) AS {name}" for name in ("published", "modified"))
    query = f"SELECT {', '.join([*text, *numbers, *times])}, text FROM read_parquet(?) LIMIT {n}"
    with duckdb.connect() as connection:
        found = connection.execute(query, [str(path)])
        names = [column[0] for column in found.description or ()]
        columns = dict(zip(names, map(list, zip(*found.fetchall(), strict=True)), strict=True))
    return columns, columns.pop("text")


def _synthetic(n: int) -> tuple[Columns, list[str]]:
    """Attributes without a meaning, of the kinds that the real ones have; some have no value."""
    rng = np.random.default_rng(1)
    columns: Columns = {"published": rng.integers(10**9, size=n).tolist(), "cvss_v2": rng.uniform(0, 10, n).tolist()}
    for name, size in (("severity", 3), ("vendor", 100), ("product", n // 4)):
        numbers = (size * rng.beta(1, 3, n)).astype(int).tolist()
        columns[name] = [None if number == size // 2 else f"{name} {number}" for number in numbers]
    return columns, [f"record {i}" for i in range(n)]
