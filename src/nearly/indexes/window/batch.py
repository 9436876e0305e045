"""The queries of one call, taken apart into pieces of their windows and put together again."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.indexes.allowed import Allowed
from nearly.indexes.window.margins import bits_of
from nearly.indexes.window.run import Run
from nearly.indexes.window.values import Column
from nearly.indexes.window.ways import Asked, Piece, chosen
from nearly.metrics import Metric

__all__ = ["Batch", "Told", "intervals"]


def intervals(run: Run, lows: Column, highs: Column, n: int) -> list[tuple[int, int, NDArray[np.int64]]]:
    """Intervals of ranks that hold something, and the queries that ask for each."""
    if len(lows) == 1:
        start, stop = run.ranks(lows[0], highs[0])
        return [(start, stop, np.arange(n))] if run.count(start, stop) else []
    starts = np.searchsorted(run.values, lows, "left")
    stops = np.maximum(starts, np.searchsorted(run.values, highs, "right"))
    pairs, inverse = np.unique(np.stack([starts, stops], axis=1), axis=0, return_inverse=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(inverse.reshape(-1), minlength=len(pairs)))
    groups = np.split(order, ends[:-1]) if len(pairs) else []
    return [(int(a), int(b), g) for (a, b), g in zip(pairs, groups, strict=True) if run.count(int(a), int(b))]


class Batch:
    """Queries whose windows are made up of pieces; equal pieces are searched for all that ask for them at once."""

    def __init__(self, rows: NDArray[np.uint8], k: int, threads: int) -> None:
        self._rows, self._k, self._threads = rows, k, threads
        n = len(rows)
        self.ids, self.distances = np.full((n, k), -1, np.int64), np.full((n, k), np.inf, np.float32)
        self.work = np.zeros(3, np.int64)
        self.expected = 1.0
        self._jobs: dict[tuple[int, int, int], tuple[Run, Piece, list[NDArray[np.int64]]]] = {}
        self._ways: Counter[str] = Counter()
        self._any = False  # whether something was found
        self._sure, self._asked = 0.0, 0  # expected recall times rows, and rows
        self._passing: list[int] = []
        self._scanned = 0

    def plan(self, run: Run, lows: Column, highs: Column, asked: Asked, method: str) -> None:
        """Take apart what the windows have in a run."""
        for start, stop, which in intervals(run, lows, highs, len(self._rows)):
            way, pieces = chosen(run, start, stop, asked, method)
            self._ways[way] += len(which)
            self._passing.append(run.count(start, stop))
            for piece in pieces:
                key = id(piece.part or run), piece.start, piece.stop
                self._jobs.setdefault(key, (run, piece, []))[2].append(which)
                passing = run.count(piece.start, piece.stop) * len(which)
                recall = 1.0 if piece.how is None else (piece.how.context.expected_recall or 0.0)
                self._sure, self._asked = self._sure + recall * passing, self._asked + passing

    def run_jobs(self) -> None:
        """Search all pieces and keep the nearest."""
        for run, piece, groups in self._jobs.values():
            which = groups[0] if len(groups) == 1 else np.concatenate(groups)
            everyone = len(groups) == 1 and len(which) == len(self._rows)  # in their order
            ids, distances = self._searched(run, piece, self._rows if everyone else self._rows[which])
            if everyone and not self._any:
                self.ids, self.distances = ids, distances
            else:
                self._keep(which, ids, distances)
            self._any = True
        if self._asked:
            self.expected = self._sure / self._asked

    def _searched(self, run: Run, piece: Piece, rows: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        passing = run.count(piece.start, piece.stop)
        if piece.part is not None and piece.how is not None:
            part, start, stop = piece.part, piece.start - piece.part.start, piece.stop - piece.part.start
            only = None
            if passing < len(part):
                alive = None if run.alive is None else run.alive[part.start : part.stop]
                only = Allowed(bits_of(len(part), start, stop, alive), passing)
            found = part._walk(rows, self._k, False, piece.how, only, self._threads)
            stats = found.stats
            if stats is not None:
                self.work += (stats.n_distances, stats.n_hops, stats.n_reranked)
            return found._ids, found._distances
        n, store = piece.stop - piece.start, run.slice(piece.start, piece.stop)
        bits = None
        if passing < n and run.alive is not None:
            bits = bits_of(n, 0, n, run.alive[piece.start : piece.stop])
        ids, distances = np.empty((len(rows), self._k), np.int64), np.empty((len(rows), self._k), np.float32)
        compared = _core.scan(
            store.scorer, store.rows, n, store.query_bytes, rows, store.metric.number, ids, distances,
            np.empty(len(rows), np.uint32), bits, None, self._threads,
        )  # fmt: skip
        assert compared is not None  # these rows are never retired
        self.work[0] += compared
        self._scanned += n
        return ids, distances

    def _keep(self, which: NDArray[np.int64], ids: NDArray[np.int64], distances: NDArray[np.float32]) -> None:
        """The k nearest of what was found so far and now, by (distance, id)."""
        both_ids = np.concatenate([self.ids[which], ids], axis=1)
        both = np.concatenate([self.distances[which], distances], axis=1)
        last = np.where(both_ids < 0, np.iinfo(np.int64).max, both_ids)
        order = np.lexsort((last, both), axis=1)[:, : self._k]
        self.ids[which] = np.take_along_axis(both_ids, order, axis=1)
        self.distances[which] = np.take_along_axis(both, order, axis=1)

    def said(self, n: int, target: float) -> str:
        """What was done, for people."""
        if not self._jobs:
            return "the window is empty"
        ways = ", ".join(f"{way} for {count} of {len(self._rows)} queries" for way, count in self._ways.items())
        if len(self._ways) == 1:
            ways = next(iter(self._ways))
        low, high = min(self._passing), max(self._passing)
        size = f"{low}" if low == high else f"{low} to {high}"
        pieces = [piece for _, piece, _ in self._jobs.values()]
        walked = [f"{p.how.context.plan}, {len(p.part)} vectors" for p in pieces if p.part and p.how]
        parts = walked[:3] + ([f"{len(walked) - 3} more graphs"] if len(walked) > 3 else [])
        if self._scanned:
            parts.append(f"exact scan of {self._scanned} vectors")
        return f"window of {size} of {n} vectors, recall {target:g}, {ways}: " + "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Told:
    """A `Context` whose plan is put into words when it is asked for."""

    metric: Metric
    batch: Batch
    n: int
    target: float

    @property
    def plan(self) -> str:
        """The ways that were taken."""
        return self.batch.said(self.n, self.target)

    @property
    def expected_recall(self) -> float:
        """Of the pieces, by how many rows each holds."""
        return self.batch.expected
