"""Where vectors lie, for a layout: cells of k-means centers, and the cells in which the answer of a search may be."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly import kmeans, metrics
from nearly.collection import queries
from nearly.collection.balls import Balls, as_distances, lies_in_space, placed
from nearly.collection.layout import CELLS, Cut
from nearly.collection.queries import Question
from nearly.collection.state import State, stored
from nearly.errors import InputError
from nearly.filters.expressions import Expression
from nearly.metrics import AnyMetric

__all__ = ["Asked", "Cells", "Space"]

_MOST = 64  # cells, unless told otherwise
_SETS = 64  # sets of cells that searches reach, the most frequent

Array = NDArray[Any]


class Asked(NamedTuple):
    """A search of a workload: its filter, its query (None where it is not known) and how many neighbors it wants."""

    where: Expression | None
    query: Array | None = None
    k: int = 10

    @property
    def key(self) -> str | None:
        """What searches with the same filter share."""
        return None if self.where is None else self.where.key


class Cells(NamedTuple):
    """Centers, each of a numbered cell: what a vector is nearest to says which cell it is in."""

    metric: AnyMetric
    numbers: NDArray[np.int64]
    centers: NDArray[np.float32]

    @classmethod
    def of(cls, state: State, name: str) -> "Cells | None":
        """Those that the segments of a state are laid out by; None where nothing of them is left."""
        balls = [found for part in state.segments if (found := stored(part).rows.balls.get(name)) is not None]
        if not balls:
            return None
        numbers, centers = (np.concatenate([each[i] for each in balls]) for i in (0, 1))
        return cls(metrics.named(state.schema.fields[name].metric), numbers, centers)

    def around(self, vectors: NDArray[np.float32]) -> Balls:
        """Balls around vectors, one a cell."""
        return Balls.around(placed(self.metric, vectors), self.find(vectors))

    def find(self, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """The cell of each vector."""
        found: NDArray[np.int64] = self.numbers[kmeans.assign(placed(self.metric, vectors), self.centers)]
        return found


@dataclass(frozen=True, eq=False)
class Space:
    """The vectors of a field beside the queries of a workload.

    Attributes
    ----------
    cells : Cells
    labels : ndarray of int64
        The cell of each row.
    reach : ndarray of bool of shape (n_searches, n_cells)
        Where a neighbor of each search may be: in cells that come as near as the last it wants.
    """

    cells: Cells
    labels: NDArray[np.int64]
    reach: NDArray[np.bool_]

    @classmethod
    def of(
        cls, state: State, rows: Sequence[Array], asked: Sequence[Asked], name: str, n_cells: int | None
    ) -> "Space | None":
        """What there is to know; None where searches came without queries, or distances are none of space."""
        metric = metrics.named(state.schema.fields[name].metric)
        lacking = "" if lies_in_space(metric) else f"{metric.name} is no distance in space"
        lacking = lacking or ("" if any(each.query is not None for each in asked) else "the workload has no queries")
        if n_cells and lacking:
            raise InputError(f"cells is {n_cells}, but {lacking}; leave it out")
        n = sum(map(len, rows))
        if n_cells == 0 or lacking or not n:
            return None
        n_cells = min(_MOST, max(2, int(n**0.5) // 2)) if n_cells is None else n_cells
        step = max(1, n // (kmeans.PER_CENTER * n_cells))
        sample = [placed(metric, part.vectors(name, mine[::step]).as_float32())
                  for part, mine in zip(state.parts, rows, strict=True)]  # fmt: skip
        centers = kmeans.kmeans(np.concatenate(sample), n_cells, seed=state.schema.seed)
        cells = Cells(metric, np.arange(n_cells), centers)
        reach, farthest = np.zeros((len(asked), n_cells), bool), _farthest(state, asked, name)
        known = np.flatnonzero([each.query is not None for each in asked])
        points = placed(metric, np.stack([np.asarray(asked[i].query, np.float32) for i in known.tolist()]))
        labels = []
        for part, mine in zip(state.parts, rows, strict=True):
            vectors = part.vectors(name, mine).as_float32()
            labels.append(cells.find(vectors))
            if len(vectors):
                balls = Balls.around(placed(metric, vectors), labels[-1])
                near = as_distances(metric, balls.bounds(points)) <= farthest[known, None]
                reach[known[:, None], balls.cells] |= near
        reach[[each.query is None for each in asked]] = True
        return cls(cells, np.concatenate(labels), reach)

    def cuts(self, weights: Array) -> list[Cut]:
        """Sets of cells to divide rows by: halves of space, halves of these, and what searches reach."""
        counted: Counter[bytes] = Counter()
        for reached, weight in zip(self.reach, weights.tolist(), strict=True):
            if weight and not reached.all():
                counted[reached.tobytes()] += weight
        frequent = [np.flatnonzero(np.frombuffer(each, bool)) for each, _ in counted.most_common(_SETS)]
        halves = _halves(self.cells.centers, self.cells.numbers)
        return [{CELLS: cells.tolist()} for cells in (*halves, *frequent) if len(cells)]


def _halves(centers: Array, cells: Array) -> Iterator[Array]:
    """One of two parts of cells that lie together, and so on within either."""
    if len(cells) < 2:
        return
    side = kmeans.assign(centers[cells], kmeans.kmeans(centers[cells], 2)) == 0
    if side.all() or not side.any():  # equal centers
        return
    yield cells[side]
    yield from _halves(centers, cells[side])
    yield from _halves(centers, cells[~side])


def _farthest(state: State, asked: Sequence[Asked], name: str) -> NDArray[np.float64]:
    """The distance of the last neighbor that each search wants; infinite where there are fewer."""
    groups: dict[Any, list[int]] = {}
    for i, each in enumerate(asked):
        if each.query is not None:
            groups.setdefault((each.key, each.k), []).append(i)
    found = np.full(len(asked), np.inf)
    for members in groups.values():
        first = asked[members[0]]
        together = np.stack([np.asarray(asked[i].query) for i in members])
        question = Question(name, first.where, {}, (), state.schema.columns)
        hits = queries.search(replace(state, layout=None), together, first.k, question, workload=True)
        found[members] = hits.distances[:, first.k - 1] if hits.distances.shape[1] >= first.k else np.inf
    return found
