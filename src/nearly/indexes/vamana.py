"""Vamana: one layer of neighbor lists, pruned so that a walk gets nearer at every step; built in fixed batches."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nearly import arrays, metrics
from nearly.indexes.base import Progress
from nearly.indexes.graph import Rules
from nearly.indexes.labeled import LabeledGraph
from nearly.indexes.store import grow_or_copy, new_table
from nearly.quantizers import Quantizer

__all__ = ["Vamana"]

_BEAM, _ALPHA = 200, 1.2  # unless told otherwise


class Vamana(LabeledGraph):
    """Approximate search on a flat graph (Subramanya et al., DiskANN, NeurIPS 2019, sections 2.2 to 2.4).

    The graph is traversed over codes and the nearest are ranked by the vectors themselves. The same arguments give the
    same bytes for any number of threads: batches search a frozen graph (Manohar et al., ParlayANN, PPoPP 2024).

    Parameters
    ----------
    vectors : array-like of shape (n, dim)
        float32, float16, bfloat16, float64, int8 or uint8; packed bits (uint8) for bit metrics.
    ids : array-like of int, optional
        Not negative, each once; 0..n-1 by default.
    labels : sequence, optional
        For each vector a label (text or a whole number), a list of labels (texts), or None; or a column of such
        (`nearly.filters.Column`). Filters call it ``label``: ``where=F.label == "a"``. Lists of neighbors are made so
        that walks can keep to what has a label (Gollapudi et al., Filtered-DiskANN, WWW 2023, sections 3 and 4;
        docs/filters.md).
    metric : str, default "l2"
        A name in `nearly.metrics.METRICS`.
    degree : int, default 32
        Most neighbors of a node (R), at most 512.
    beam : int, default 200
        Candidates kept while building (L).
    alpha : float, default 1.2
        How much nearer a kept neighbor must be to a candidate to replace it, in squared distance under l2; at least 1.
    quantizer : Quantizer, optional
        What to travel by: `nearly.Plain`, `nearly.Scalar`, `nearly.Reduced`. None chooses by metric and dimension.
    refine : {"memory", "float16", "disk"}, default "memory"
        Where full vectors are, which rank what was found: in memory as they came, in memory as float16 (rounded), or in
        a file from which they are read (docs/memory.md).
    recall : float, default 0.95
        What searches deliver on average unless told otherwise.
    queries : array-like of shape (n_queries, dim), optional
        Queries like those to come, for calibration; None makes some from the data.
    calibrate : bool, default True
        False skips calibration; searches then need ``effort=``.
    order : {"random", "given", "lid_descending", "lid_ascending"} or array-like of int, default "random"
        Order of insertion.
    filter_expansion : int, default 1
        More than 1: beside each list of neighbors a wide one is kept, so many times as long, of what two steps lead to.
        Filtered searches that hop over what does not pass read it where 8 in it pass, a third to a half faster, for 4
        bytes a neighbor (gamma in ACORN: Patel et al., SIGMOD 2024, section 5).
    seed : int, default 0
    threads : int, optional
    progress : callable, optional
        ``progress(done, total)``; None shows a bar on a terminal after two seconds.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.standard_normal((2000, 16), dtype=np.float32)
    >>> index = Vamana(vectors, recall=0.9)
    >>> hits = index.search(vectors[:5], k=3)
    >>> hits.ids[:, 0].tolist(), hits.expected_recall >= 0.9
    ([0, 1, 2, 3, 4], True)

    With labels:

    >>> from nearly import F
    >>> index = Vamana(vectors, labels=["even", "odd"] * 1000, recall=0.9)
    >>> hits = index.search(vectors[0], k=3, where=F.label == "odd")
    >>> (hits.ids % 2).tolist(), hits.plan.startswith("walk within label 'odd'")
    ([1, 1, 1], True)
    """

    kind: ClassVar[str] = "vamana"

    def __init__(
        self,
        vectors: Any,
        *,
        ids: Any = None,
        labels: Any = None,
        metric: Any = "l2",
        degree: int = 32,
        beam: int = _BEAM,
        alpha: float = _ALPHA,
        quantizer: Quantizer | None = None,
        refine: str = "memory",
        recall: float = 0.95,
        queries: Any = None,
        calibrate: bool = True,
        order: Any = "random",
        filter_expansion: int = 1,
        seed: int = 0,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        degree = arrays.check_int(degree, "degree", low=2, high=512)
        beam = arrays.check_int(beam, "beam", low=1, high=65536)
        self._rules = Rules(beam, degree, arrays.check_real(alpha, "alpha", low=1.0, high=100.0),
                            metrics.named(metric) != metrics.METRICS["ip"])  # fmt: skip
        self._seed = arrays.check_seed(seed)
        self._lists, self._slots = [], []
        self._expansion = self._expanded(filter_expansion, degree)
        self._begin_labels(labels)
        self._build(vectors, ids, metric, quantizer=quantizer, recall=recall, queries=queries, calibrate=calibrate,
                    order=order, threads=threads, progress=progress, refine=refine)  # fmt: skip

    def _lay_out(self, fresh: NDArray[np.uint32]) -> None:
        if not self._lists:
            self._lists = [new_table(self._rules.new_degree * 4, self._n_nodes, 255)]
        else:
            self._lists[0] = grow_or_copy(self._lists[0], self._n_nodes, 255)
            self._clear(fresh)
        self._label_first(fresh)

    def _describe_graph(self) -> str:
        beam, alpha = self._rules.beam, self._rules.alpha
        built = (f", beam {beam}" if beam != _BEAM else "") + (f", alpha {alpha:g}" if alpha != _ALPHA else "")
        return f"Vamana graph of degree {self._rules.new_degree}{built}{self._describe_labels()}"
