"""Answers of a search in parts: many queries with many neighbors do not fit into memory as text."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

import nearly

__all__ = ["Parts"]

_AT_ONCE = 100_000  # neighbors of a part: some 50 MB while they are lines of text


class Parts:
    """The answers, found as they are asked for; iterated once, over (number of the first query, hits).

    Attributes
    ----------
    plan : str
        What was done; of several kinds of parts, one after the other.
    expected_recall : float or None
    seconds : float
        Spent searching.

    Examples
    --------
    >>> import numpy as np
    >>> index = nearly.Flat(np.eye(3, dtype=np.float32))
    >>> parts = Parts(index, np.eye(3, dtype=np.float32), 1, {})
    >>> [(first, hits.ids.tolist()) for first, hits in parts], parts.plan == index.plan
    ([(0, [[0], [1], [2]])], True)
    """

    def __init__(self, index: Any, queries: NDArray[Any], k: int, settings: Mapping[str, Any]) -> None:
        self._index, self._queries, self._k, self._settings = index, queries, k, settings
        self.plan, self.seconds = "", 0.0
        self.expected_recall: float | None = None

    def __iter__(self) -> Iterator[tuple[int, nearly.Hits]]:
        size = max(1, _AT_ONCE // self._k)
        plans: dict[str, None] = {}
        for first in range(0, len(self._queries), size):
            started = time.perf_counter()
            hits = self._index.search(self._queries[first : first + size], self._k, **self._settings)
            self.seconds += time.perf_counter() - started
            plans[hits.plan] = None
            self.plan, self.expected_recall = "; ".join(plans), hits.expected_recall
            yield first, hits
