"""Inverted lists in files: what is written of them, and the checks under which they are read again."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearly import _core, storage
from nearly.errors import FormatError, InputError
from nearly.indexes import list_codes
from nearly.indexes.coarse import Centers, check_coarse
from nearly.indexes.guide import guide_restored, guide_state
from nearly.indexes.ivf_contract import ListContract
from nearly.indexes.lists import CHUNK, SPILLS, Lists
from nearly.indexes.store import NONE, Store
from nearly.quantizers.specifications import describe, specified
from nearly.transforms import FittedTransform

if TYPE_CHECKING:
    from nearly.indexes.ivf import IVF

__all__ = ["restore", "state"]

_COARSE = "coarse_"  # before the names of a transform's arrays


def state(index: "IVF") -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and configuration of lists, their codes and their contract, beyond the store's."""
    curve, promises, measured = index._contract.list_state()
    config: dict[str, Any] = {
        "lists": 0 if index._core is None else len(index._lists), "wanted": index._wanted or 0,
        "seed": index._seed, "clustered": index._clustered, "added": index._added, **promises,
        **({} if index._spill is None else {"spill": index._spill}),
        **({} if index._coarse is None else {"coarse": describe(index._coarse, {})}),
    }  # fmt: skip
    parts = {"pending_rows": np.array(index._pending, np.uint32), **curve}
    quantizer: dict[str, Any] = {}
    if index._core is not None:
        made = index._lists
        codes, quantizer = index._codes.state(made.n_slots)
        centers, fitted = _state_of(made.centers)
        parts |= {
            **centers, "chunks": made.chunks.array()[: made.n_chunks],
            "members": made.members.array()[: made.n_slots], **codes,
        }  # fmt: skip
        quantizer |= fitted
    return parts, {"ivf": config, **quantizer, **measured}


def _state_of(centers: Centers) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and configuration of centers."""
    parts: dict[str, NDArray[Any]] = {"centers": centers.rows}
    config: dict[str, Any] = {}
    if centers.guide is not None:
        guide, config["guide"] = guide_state(centers.guide)
        parts |= guide
    if centers.coarse is None:
        return parts, config
    fitted, values = centers.coarse.state()
    if centers.means is not None:
        parts["means"] = centers.means
    return parts | {f"{_COARSE}{name}": array for name, array in fitted.items()}, config | {"coarse": values}


def _centers(file: storage.File, store: Store, n_lists: int, coarse: Any, of_residuals: bool) -> Centers:
    """The centers of a file; everything about them is checked."""
    fitted, width = None, store.dim
    if coarse is not None:
        parts = {n.removeprefix(_COARSE): a for n, a in file.arrays.items() if n.startswith(_COARSE)}
        if not isinstance(file.config.get("coarse"), dict):
            raise FormatError(f"{file.path} is damaged: it does not say how vectors are compared with centers")
        fitted = FittedTransform.from_state(parts, file.config["coarse"])
        width = fitted.dims
        if fitted.dim != store.dim or fitted.metric != store.metric.name or not fitted.leaves_out:
            raise FormatError(f"{file.path} is damaged: what its centers are compared with is of other vectors")
    bits = store.metric.input == "bits"
    rows = np.array(storage.require(file, "centers", np.uint8 if bits else np.float32, (n_lists, width)))
    means = None
    if fitted is not None and of_residuals:
        means = np.array(storage.require(file, "means", np.float32, (n_lists, store.dim)))
    if not all(np.isfinite(part).all() for part in (rows, means) if part is not None):
        raise FormatError(f"{file.path} is damaged: a center is not finite")
    return Centers(rows, fitted, means, guide_restored(file, rows, store.metric))


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
    if "coarse" in file.config["ivf"]:
        try:
            index._coarse = check_coarse(specified(file.config["ivf"]["coarse"], {}), store.metric)
        except InputError as problem:
            raise FormatError(f"{file.path} is damaged: {problem}") from problem
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
    chunks = storage.require(file, "chunks", np.uint8, (None, CHUNK.itemsize))
    members = storage.require(file, "members", np.uint8, (None, 4))
    following = chunks.view(CHUNK)["next"][:, 0].astype(np.int64)
    following = np.sort(following[following != NONE])
    # Every further chunk follows one other: no way from the first chunks leads back.
    if len(chunks) < n_lists or not np.array_equal(following, np.arange(n_lists, len(chunks))):
        raise FormatError(f"{file.path} is damaged: its lists are not chains of chunks")
    index._codes = list_codes.restore(file, store, len(members), index._seed)
    borrowed = _core.Table.borrow(chunks), _core.Table.borrow(members)
    centers = _centers(file, store, n_lists, index._coarse, index._codes.of_residuals)
    index._lists = Lists(store, centers, *borrowed, index._codes.unit)
    index._codes.join(index._lists)
    try:
        index._assemble()
    except ValueError as problem:
        raise FormatError(f"{file.path} is damaged: {problem}") from problem
    index._check_lists(str(file.path))
