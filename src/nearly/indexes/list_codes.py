"""Codes of the nodes in inverted lists, in their slots: any codes, or those that are looked up 32 at a time."""

import copy
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core, storage
from nearly.errors import FormatError
from nearly.indexes.coarse import in_space
from nearly.indexes.lists import Change, Lists, Nodes
from nearly.indexes.store import Store, as_bytes, grow_or_copy, new_table
from nearly.indexes.travel import Travel
from nearly.quantizers import (
    Fitted,
    FittedAdditive,
    FittedCodes,
    FittedRaBitQ,
    FittedSAQ,
    Product,
    Quantizer,
)
from nearly.quantizers.base import SAMPLE
from nearly.quantizers.listed import BLOCK, MOST_BOOKS, FittedListed

__all__ = ["BlockCodes", "ListCodes", "codes_by", "restore"]

# Codes that are compared in the unit in which centers are, but for those of lengthened rows.
_IN_UNIT = (FittedListed, FittedCodes, FittedRaBitQ, FittedSAQ, FittedAdditive)


def codes_by(quantizer: Quantizer, store: Store, seed: int) -> "ListCodes":
    """What lists hold by a quantizer: product codes of 4 bits are of residuals, and in blocks."""
    if not isinstance(quantizer, Product) or quantizer.bits != 4:
        return ListCodes(quantizer, store, seed)
    books = -(-store.dim // 2) if quantizer.m is None else quantizer.m
    return (BlockCodes if books <= MOST_BOOKS else ListCodes)(quantizer, store, seed)


def restore(file: storage.File, store: Store, n_slots: int, seed: int) -> "ListCodes":
    """Make it of what ``state`` gave."""
    quantizer = file.config.get("quantizer")
    blocks = isinstance(quantizer, dict) and quantizer.get("kind") == FittedListed.kind
    return (BlockCodes if blocks else ListCodes).restore(file, store, n_slots, seed)


class ListCodes(Travel):
    """Codes in slots, so that those of a list follow one another."""

    unit: ClassVar[int] = 1  # slots at multiples of which chunks begin
    of_residuals: ClassVar[bool] = False
    lists: Lists
    blocks: Any = None  # the core's scorer over blocks, or None

    @property
    def tell_distances(self) -> bool:
        """Whether codes are compared in the unit in which centers are."""
        fitted = self.fitted
        return fitted is not None and isinstance(fitted, _IN_UNIT) and not getattr(fitted, "norm_bound", 0.0)

    def _code_all(self, fitted: Fitted, store: Store, n: int, threads: int) -> None:
        codes = new_table(fitted.row_bytes, self.lists.n_slots)
        scorer = fitted.scorer(codes)
        slots, _ = self.lists.in_use()
        scorer.gather(store.scorer, slots, self.lists.nodes(slots), threads)
        self.__dict__.update(fitted=fitted, codes=codes, scorer=scorer)  # in one go: Ctrl-C comes before or after

    def of(self, lists: Lists, store: Store | None = None, threads: int = 0) -> Self:
        """The same codes for other lists: to be coded anew, or, given the store, by what is fitted."""
        made = copy.copy(self)
        made.lists = lists
        if store is not None and self.fitted is not None:
            made._code_all(self.fitted, store, 0, threads)
        return made

    def join(self, lists: Lists) -> None:
        """Know the lists of a file."""
        self.lists = lists

    def put(self, store: Store, change: Change, nodes: Nodes, threads: int) -> None:
        """Code nodes in slots that were reserved for them."""
        if self.codes is not None:
            self._sized(change.n_slots)
            order = np.argsort(change.slots)
            self.scorer.gather(store.scorer, change.slots[order], nodes[order], threads)

    def _places(self, nodes: Nodes) -> Nodes:
        if self.codes is None:
            return nodes
        return self.lists.slots_of(nodes)[0]


class BlockCodes(ListCodes):
    """Codes of what nodes are beyond the centers of their lists, in blocks of 32 slots.

    ``scorer`` stays the store's: these codes are compared within lists only.
    """

    unit: ClassVar[int] = BLOCK
    of_residuals: ClassVar[bool] = True
    quantizer: Product
    fitted: Any = None  # a FittedListed

    def fit(self, store: Store, n: int, threads: int, quantizer: Quantizer | None = None) -> None:
        """Fit codes to the nodes in the lists and code them."""
        slots, owners = self.lists.in_use()
        drawn = np.sort(np.random.default_rng(self._seed).permutation(len(slots))[:SAMPLE])
        vectors = in_space(store, self.lists.nodes(slots[drawn]), threads)
        fitted = FittedListed.fit(
            vectors, self.lists.centers.origins, owners[drawn], self.quantizer, metric=store.metric.name,
            seed=self._seed, threads=threads,
        )  # fmt: skip
        self._code_all(fitted, store, n, threads)

    def _finer(self) -> list[Quantizer]:
        return []  # blocks hold products only

    def recode(self, store: Store, n: int, threads: int) -> None:
        """Other lists leave other residuals: fit anew."""
        self.fit(store, n, threads)

    def _code_all(self, fitted: Any, store: Store, n: int, threads: int) -> None:
        codes = new_table(fitted.block_bytes, self.lists.n_slots // BLOCK)
        blocks = fitted.scorer(self._centers(), codes)
        slots, owners = self.lists.in_use()
        order = np.argsort(slots)
        blocks.fill(store.scorer, slots[order], self.lists.nodes(slots[order]), owners[order], threads)
        self.__dict__.update(fitted=fitted, codes=codes, blocks=blocks)  # in one go

    def _centers(self) -> Any:
        return _core.Table.borrow(as_bytes(self.lists.centers.origins))

    def put(self, store: Store, change: Change, nodes: Nodes, threads: int) -> None:
        """Code nodes in slots that were reserved for them."""
        if self.codes is not None:
            self._sized(change.n_slots)
            order = np.argsort(change.slots)
            self.blocks.fill(store.scorer, change.slots[order], nodes[order], change.lists[order], threads)

    def give_up(self, store: Store) -> None:
        """Compare the vectors themselves."""
        super().give_up(store)
        self.blocks = None

    def follow(self, store: Store) -> None:
        """The store is a new object: its scorer is another one."""
        self.scorer = store.scorer

    def _sized(self, n: int) -> None:
        codes = grow_or_copy(self.codes, n // BLOCK)
        if codes is not self.codes:
            self.__dict__.update(codes=codes, blocks=self.fitted.scorer(self._centers(), codes))

    def _compared(self, store: Store, probes: Nodes, crowd: Nodes) -> NDArray[np.float32]:
        (slots, owners), coded = self.lists.slots_of(crowd), np.empty((len(probes), len(crowd)), np.float32)
        for query, distances in zip(in_space(store, probes), coded, strict=True):
            self.blocks.score(query, slots, owners, distances)
        return coded

    def state(self, n: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and configuration of the codes in the first n slots, as files hold them."""
        return super().state(n // BLOCK)

    @classmethod
    def restore(cls, file: storage.File, store: Store, n: int, seed: int) -> Self:
        """Make it of what `state` gave; everything but the codes themselves is checked."""
        prefix = "quantizer_"
        parts = {name.removeprefix(prefix): a for name, a in file.arrays.items() if name.startswith(prefix)}
        fitted = FittedListed.from_state(parts, file.config["quantizer"])
        if fitted.dim != store.dim or fitted.metric != store.metric.name or n % BLOCK:
            raise FormatError(f"{file.path} is damaged: its quantizer is for other vectors")
        quantizer = cls._specified(file, fitted.quantizer)
        if not isinstance(quantizer, Product):
            raise FormatError(f"{file.path} is damaged: its codes are those of Product, not of {quantizer!r}")
        self = cls(quantizer, store, seed)
        self.fitted = fitted
        self.codes = _core.Table.borrow(storage.require(file, "codes", np.uint8, (n // BLOCK, fitted.block_bytes)))
        return self

    def join(self, lists: Lists) -> None:
        """Know the lists of a file."""
        self.lists = lists
        if self.fitted is not None:
            self.blocks = self.fitted.scorer(self._centers(), self.codes)
