"""What a graph travels by: the vectors themselves, or codes fitted to them, checked against what is added later."""

from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core, storage
from nearly.arrays import Vectors
from nearly.errors import FormatError, InputError
from nearly.indexes.store import NONE, Store, grow_or_copy, new_table
from nearly.quantizers import QUANTIZERS, Fitted, Plain, Quantizer, Reduced, Scalar, from_state
from nearly.quantizers.base import CODED, SAMPLE, common_norm, squares
from nearly.quantizers.codes import FittedCodes
from nearly.quantizers.specifications import describe, specified

__all__ = ["LINE", "NOBODY", "Travel", "check_quantizer", "usual_quantizer"]

_DRIFT = 0.05  # containment that codes may lose on new vectors before they are fitted anew
_LEAST = 32  # vectors under which a comparison of codes says nothing
LINE = 64  # bytes of a cache line
_ENERGY = 0.97  # share of the variance that codes of several topics keep before they keep all dimensions
_HIGH = 0.97  # targets beyond which a finer code saves more re-ranking than it costs
NOBODY = np.zeros(0, np.uint32)


def usual_quantizer(metric: str, vectors: Vectors, target: float) -> Quantizer:
    """What a graph over these vectors travels by unless told otherwise, under l2, cosine or ip.

    One cache line of codes where the vector allows it, principal components above that.
    """
    if vectors.dim <= LINE - _beside(metric, vectors):
        return Scalar(bits=8)
    return Reduced(energy=0.9 if target <= _HIGH else 0.93)


def _beside(metric: str, vectors: Vectors) -> int:
    """Bytes that 8-bit codes of vectors need beside a byte for each dimension."""
    if metric != "ip":
        return 4
    rows = Vectors(np.ascontiguousarray(vectors.array[:: max(1, len(vectors) // 4096)]), vectors.kind).as_float32()
    return 5 if common_norm(squares(rows)) else 0


def _specification(fitted: Fitted) -> Quantizer:
    """By what to fit anew where only what was fitted is known, as files hold that alone."""
    if not isinstance(fitted, FittedCodes):
        return Plain()
    steps = fitted.step[1:] == fitted.step[:1]
    scale: Literal["global", "dimension", "vector"] = "global" if steps.all() else "dimension"
    code = Scalar(bits=fitted.bits, scale="vector" if fitted.per_vector else scale)
    return Reduced(code=code) if len(fitted.matrix) else code


class Travel:
    """The scorer that walks compare by, and the codes behind it.

    Attributes
    ----------
    quantizer : Quantizer
        What codes are fitted by; fitting anew uses it again.
    fitted : Fitted or None
        None: walks compare the vectors themselves.
    codes : table or None
        A code for each node.
    scorer
        The core's scorer over the codes, or over the vectors.
    """

    def __init__(self, quantizer: Quantizer, store: Store, seed: int) -> None:
        self.quantizer = quantizer
        self.fitted: Fitted | None = None
        self.codes: Any = None
        self.scorer: Any = store.scorer
        self._seed = seed
        self._unproven = NOBODY  # nodes added since the codes were last checked

    def name(self, store: Store) -> str:
        """What it is, for people."""
        return f"{store.kind} vectors" if self.fitted is None else self.fitted.name

    def fit(self, store: Store, n: int, threads: int, quantizer: Quantizer | None = None) -> None:
        """Fit codes to the first n nodes and code them."""
        quantizer = self.quantizer if quantizer is None else quantizer
        if not n or store.metric.name not in CODED or isinstance(quantizer, Plain):
            return self.give_up(store)
        chosen = np.sort(np.random.default_rng(self._seed).permutation(n)[:SAMPLE]).astype(np.uint32)
        bound = common_norm(_squares(store, n, threads)) if store.metric.name == "ip" else 0.0
        fitted = quantizer.fit_floats(
            store.in_form(chosen, threads), metric=store.metric.name, norm_bound=bound, seed=self._seed, threads=threads
        )
        if fitted is None:
            return self.give_up(store)
        self._code_all(fitted, store, n, threads)

    def recode(self, store: Store, n: int, threads: int) -> None:
        """Code the first n nodes by what is fitted, in a new table."""
        assert self.fitted is not None
        self._code_all(self.fitted, store, n, threads)

    def _code_all(self, fitted: Fitted, store: Store, n: int, threads: int) -> None:
        codes = new_table(fitted.row_bytes, n)
        scorer = fitted.scorer(codes)
        scorer.fill(store.scorer, 0, n, threads)
        self.__dict__.update(fitted=fitted, codes=codes, scorer=scorer)  # in one go: Ctrl-C comes before or after

    def give_up(self, store: Store) -> None:
        """Travel by the vectors themselves."""
        self.__dict__.update(fitted=None, codes=None, scorer=store.scorer)

    def follow(self, store: Store) -> None:
        """The store is a new object: its scorer is another one."""
        if self.codes is None:
            self.scorer = store.scorer

    def code(self, store: Store, n: int, fresh: NDArray[np.uint32], threads: int) -> None:
        """Code new nodes, of n that there are now."""
        if self.codes is None:
            return
        self._sized(n)
        for first, last in _runs(fresh):
            self.scorer.fill(store.scorer, first, last, threads)

    def own(self, n: int) -> bool:
        """Copy codes that are a read-only mapping; True if they were."""
        borrowed = self.codes is not None and self.codes.borrowed
        if borrowed:
            self._sized(n)
        return borrowed

    def _sized(self, n: int) -> None:
        assert self.fitted is not None
        codes = grow_or_copy(self.codes, n)
        if codes is not self.codes:
            self.codes = codes
            self.scorer = self.fitted.scorer(codes)

    @staticmethod
    def _specified(file: storage.File, otherwise: Quantizer) -> Quantizer:
        """How the codes in a file were fitted; older files do not say."""
        if "specification" not in file.config:
            return otherwise
        made = specified(file.config["specification"], QUANTIZERS)
        if not hasattr(made, "fit_floats"):
            raise FormatError(f"{file.path} is damaged: its codes are said to be fitted by {made!r}")
        return made  # type: ignore[no-any-return]

    def check(self, store: Store, n: int, fresh: NDArray[np.uint32], threads: int) -> NDArray[np.uint32]:
        """See whether the codes hold for new vectors too; fit them anew, or travel by the vectors, if not.

        Returns the nodes to link again, which earlier calls linked by what the old codes said: none where they hold.
        """
        if self.codes is None:
            return NOBODY
        self._unproven = np.concatenate([store.in_use(self._unproven, n), fresh])  # some may have gone since
        if len(self._unproven) < max(_LEAST, n // 100):
            return NOBODY
        fresh, self._unproven = self._unproven, NOBODY
        old = np.setdiff1d(alive_sample(store, n, 4000, self._seed), fresh)
        if len(old) < _LEAST:  # codes that were fitted to next to nothing
            self.fit(store, n, threads)
            return fresh
        before = self._containment(store, old, old)
        if self._containment(store, fresh, old) >= before - _DRIFT:
            return NOBODY
        for quantizer in (self.quantizer, *self._finer()):
            self.fit(store, n, threads, quantizer)
            if min(self._containment(store, fresh, old), self._containment(store, old, old)) >= before - _DRIFT:
                return fresh
        self.give_up(store)
        return fresh

    def _finer(self) -> list[Quantizer]:
        """What may hold where codes fitted anew do not, from cheap to dear."""
        own = self.quantizer
        more: list[Quantizer] = [replace(own, dims=None, energy=_ENERGY)] if isinstance(own, Reduced) else []
        return [one for one in (*more, Scalar(bits=8)) if one != own]

    def _containment(self, store: Store, nodes: NDArray[np.uint32], others: NDArray[np.uint32]) -> float:
        """Share of the true 10 nearest that codes rank among the first 20, of some nodes in a sample of their like."""
        rng = np.random.default_rng(self._seed)
        probes, like = rng.permutation(nodes)[:48], rng.permutation(nodes)[:2000]
        crowd = np.union1d(like, rng.permutation(others)[:1000]).astype(np.uint32)
        if not len(probes):
            return 1.0
        exact = np.empty((len(probes), len(crowd)), np.float32)
        for probe, distances in zip(probes, exact, strict=True):
            store.scorer.between(int(probe), crowd, distances)
        nearest = _first(exact, 11)
        nearest[np.arange(len(probes)), exact.argmin(axis=1)] = False  # itself, or its twin
        return float((_first(self._compared(store, probes, crowd), 21) & nearest).sum() / max(1, nearest.sum()))

    def _compared(self, store: Store, probes: NDArray[np.uint32], crowd: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Distances by code of each probe from the crowd."""
        places, coded = self._places(crowd), np.empty((len(probes), len(crowd)), np.float32)
        for place, distances in zip(self._places(probes), coded, strict=True):
            self.scorer.between(int(place), places, distances)
        return coded

    def _places(self, nodes: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Where the codes of nodes are."""
        return nodes

    def state(self, n: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and configuration of the first n nodes' codes, as files hold them."""
        if self.fitted is None or self.codes is None:
            return {}, {}
        fitted, values = self.fitted.state()
        named = {f"quantizer_{name}": array for name, array in fitted.items()}
        described = describe(self.quantizer, QUANTIZERS)
        specification = {} if described is None else {"specification": described}
        return {"codes": self.codes.array()[:n], **named}, {"quantizer": values, **specification}

    @classmethod
    def restore(cls, file: storage.File, store: Store, n: int, seed: int) -> Self:
        """Make it of what `state` gave; everything but the codes themselves is checked."""
        self = cls(Plain(), store, seed)
        if "quantizer" in file.config:
            prefix = "quantizer_"
            parts = {name.removeprefix(prefix): a for name, a in file.arrays.items() if name.startswith(prefix)}
            fitted = from_state(parts, file.config["quantizer"])
            if fitted.dim != store.dim or fitted.metric != store.metric.name:
                raise FormatError(f"{file.path} is damaged: its quantizer is for other vectors")
            self.quantizer = cls._specified(file, _specification(fitted))
            self.fitted = fitted
            self.codes = _core.Table.borrow(storage.require(file, "codes", np.uint8, (n, fitted.row_bytes)))
            self.scorer = fitted.scorer(self.codes)
        return self


def check_quantizer(quantizer: Any, metric: str) -> None:
    """Refuse what is no quantizer, and codes of a metric that they cannot stand for."""
    if isinstance(quantizer, type):
        raise InputError(f"quantizer is a class; pass an instance, nearly.{quantizer.__name__}()")
    if not hasattr(quantizer, "fit_floats"):
        names = ", ".join(f"nearly.{kind.__name__}()" for kind in QUANTIZERS.values())
        raise InputError(f"quantizer is {quantizer!r}; pass one of {names}")
    if metric not in CODED and not isinstance(quantizer, Plain):
        raise InputError(f"{type(quantizer).__name__} is for {', '.join(CODED)}, not {metric}; leave quantizer= out")


def _first(distances: NDArray[np.float32], n: int) -> NDArray[np.bool_]:
    """Which of each row are its n least, the earlier ones of those that are as far."""
    if n >= distances.shape[1]:
        return np.ones(distances.shape, bool)
    last = np.partition(distances, n - 1, axis=1)[:, n - 1 : n]
    below, as_far = distances < last, distances == last
    room = n - below.sum(axis=1, keepdims=True)
    return np.asarray(below | (as_far & (as_far.cumsum(axis=1) <= room)))


def alive_sample(store: Store, n_nodes: int, n: int, seed: int) -> NDArray[np.uint32]:
    """At most n nodes that have rows, drawn by the seed."""
    alive = np.flatnonzero(store.column("first_rows")[:n_nodes] != NONE)
    return np.random.default_rng(seed).permutation(alive)[:n].astype(np.uint32)


def _squares(store: Store, n: int, threads: int) -> NDArray[np.float64]:
    """Squared norms of nodes' vectors."""
    blocks = []
    for first in range(0, n, 4096):
        blocks.append(squares(store.in_form(np.arange(first, min(n, first + 4096), dtype=np.uint32), threads)))
    return np.concatenate(blocks)


def _runs(nodes: NDArray[np.uint32]) -> list[tuple[int, int]]:
    """Half-open ranges that the nodes form, in rising order."""
    if not len(nodes):
        return []
    ordered = np.sort(nodes.astype(np.int64))
    cuts = np.flatnonzero(np.diff(ordered) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(ordered, cuts)]
