"""Inverted lists in files: what is written of them, and the checks under which they are read again."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearly import _core, storage
from nearly.errors import FormatError
from nearly.indexes import list_codes
from nearly.indexes.ivf_contract import ListContract
from nearly.indexes.lists import CHUNK, SPILLS, Lists
from nearly.indexes.store import NONE

if TYPE_CHECKING:
    from nearly.indexes.ivf import IVF

__all__ = ["restore", "state"]


def state(index: "IVF") -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and configuration of lists, their codes and their contract, beyond the store's."""
    curve, promises, measured = index._contract.list_state()
    config: dict[str, Any] = {
        "lists": 0 if index._core is None else len(index._lists.centers), "wanted": index._wanted or 0,
        "seed": index._seed, "clustered": index._clustered, "added": index._added, **promises,
        **({} if index._spill is None else {"spill": index._spill}),
    }  # fmt: skip
    parts = {"pending_rows": np.array(index._pending, np.uint32), **curve}
    quantizer: dict[str, Any] = {}
    if index._core is not None:
        made = index._lists
        codes, quantizer = index._codes.state(made.n_slots)
        parts |= {
            "centers": made.centers, "chunks": made.chunks.array()[: made.n_chunks],
            "members": made.members.array()[: made.n_slots], **codes,
        }  # fmt: skip
    return parts, {"ivf": config, **quantizer, **measured}


def restore(index: "IVF", file: storage.File) -> None:
    """Give an index whose store is there its lists, codes and contract; everything but bulk numbers is checked."""
    store, n = index._store, index._n_nodes
    if not isinstance(file.config.get("ivf"), dict):
        raise FormatError(f"{file.path} holds no lists")
    integer = storage.config_int
    index._seed = integer(file, ("ivf", "seed"), 0)
    index._wanted = integer(file, ("ivf", "wanted"), 0, 1 << 20) or None
    index._clustered = integer(file, ("ivf", "clustered"), 0)
    index._added = integer(file, ("ivf", "added"), 0)
    if "spill" in file.config["ivf"]:
        index._spill = storage.config_str(file, ("ivf", "spill"), allowed=SPILLS)
    index._contract = ListContract.restore(file)
    index._pending = [int(i) for i in storage.require(file, "pending_rows", np.uint32, (None,))]
    nodes = store.column("nodes")
    if len(index._pending) != index._n_removed or any(i >= index._n_rows or nodes[i] != NONE for i in index._pending):
        raise FormatError(f"{file.path} is damaged: it lists removed rows that are in use")
    n_lists = integer(file, ("ivf", "lists"), 0, 1 << 20)
    if not n_lists:
        if n:
            raise FormatError(f"{file.path} is damaged: it holds vectors and no lists")
        index._codes = list_codes.restore(file, store, 0, index._seed)
        return
    bits = store.metric.input == "bits"
    centers = storage.require(file, "centers", np.uint8 if bits else np.float32, (n_lists, store.dim))
    if not bits and not np.isfinite(centers).all():
        raise FormatError(f"{file.path} is damaged: a center is not finite")
    chunks = storage.require(file, "chunks", np.uint8, (None, CHUNK.itemsize))
    members = storage.require(file, "members", np.uint8, (None, 4))
    following = chunks.view(CHUNK)["next"][:, 0].astype(np.int64)
    following = np.sort(following[following != NONE])
    # Every further chunk follows one other: no way from the first chunks leads back.
    if len(chunks) < n_lists or not np.array_equal(following, np.arange(n_lists, len(chunks))):
        raise FormatError(f"{file.path} is damaged: its lists are not chains of chunks")
    index._codes = list_codes.restore(file, store, len(members), index._seed)
    borrowed = _core.Table.borrow(chunks), _core.Table.borrow(members)
    index._lists = Lists(store, np.array(centers), *borrowed, index._codes.unit)
    index._codes.join(index._lists)
    try:
        index._assemble()
    except ValueError as problem:
        raise FormatError(f"{file.path} is damaged: {problem}") from problem
    index._check_lists(str(file.path))
