"""Windows in files: what is written of runs and parts, and the checks under which they are read again."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearly import _core, metrics, storage
from nearly.errors import FormatError, InputError
from nearly.indexes.contract import Contract
from nearly.indexes.graph import Rules
from nearly.indexes.sections import Section
from nearly.indexes.store import ELEMENTS, Store
from nearly.indexes.travel import Travel, check_quantizer
from nearly.indexes.window.margins import Margins
from nearly.indexes.window.part import Part
from nearly.indexes.window.run import Run, Shape
from nearly.quantizers import QUANTIZERS, Plain, Quantizer
from nearly.quantizers.specifications import describe, specified

if TYPE_CHECKING:
    from nearly.indexes.window.index import Window

__all__ = ["check", "restore", "state"]


def state(index: "Window") -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and configuration of an index of windows."""
    arrays: dict[str, NDArray[Any]] = {}
    shape, store = index._shape, index._store
    rules = shape.rules
    config: dict[str, Any] = {
        "window": {
            "metric": store.metric.name, "element": store.kind, "dim": store.dim, "column": index._column,
            "next_id": index._next_id, "own_ids": index._own_ids, "branching": shape.branching, "leaf": shape.leaf,
            "overlap": shape.overlap, "beam": rules.beam, "degree": rules.new_degree, "alpha": float(rules.alpha),
            "fill": rules.fill, "recall": float(shape.recall), "seed": shape.seed, "why": index._why,
        },
        "runs": [],
    }  # fmt: skip
    specification = None if shape.quantizer is None else describe(shape.quantizer, QUANTIZERS)
    if specification is not None:
        config["specification"] = specification
    if index._probes is not None:
        arrays["probes"] = index._probes
    for r, run in enumerate(index._runs):
        parts, values = _run_state(run)
        arrays.update({f"run{r}_{name}": array for name, array in parts.items()})
        config["runs"].append(values)
    return arrays, config


def _run_state(run: Run) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    codes, quantizer = run.travel.state(run.n)
    finite = np.where(np.isfinite(run.margins.factors), run.margins.factors, 0.0)
    arrays = {
        "vectors": run.vectors.array()[: run.n], "ids": run.ids, "values": run.values, "starts": run.starts,
        "margins": finite, **codes,
    }  # fmt: skip
    if run.alive is not None:
        arrays["alive"] = run.alive
    parts = []
    for p, (key, part) in enumerate(run.parts.items()):
        curve, promises, measured = part._contract.state()
        own = {"lists": part._lists[0].array(), "entries": np.array(part._graph.entries, np.uint32), **curve}
        if part._hung is not None:
            own["hung"] = part._hung
        arrays.update({f"part{p}_{name}": array for name, array in own.items()})
        linked = int(part._graph.n_nodes)
        parts.append({"key": list(key), "graph": {**promises, "n_linked": linked}, **measured})
    return arrays, {"n": run.n, "element": run.kind, "parts": parts, **quantizer}


def restore(index: "Window", file: storage.File) -> None:
    """Give an index what `state` wrote; everything but bulk numbers is checked."""
    integer, text = storage.config_int, storage.config_str
    metric = metrics.METRICS[text(file, ("window", "metric"), allowed=metrics.METRICS)]
    bits = metric.input == "bits"
    elements = ("bits",) if bits else ELEMENTS
    kind = text(file, ("window", "element"), allowed=elements)
    dim = integer(file, ("window", "dim"), 1, 32768)
    index._fresh(metric, kind, dim)
    rules = Rules(
        integer(file, ("window", "beam"), 1, 65536), integer(file, ("window", "degree"), 2, 512),
        storage.config_float(file, ("window", "alpha"), 1.0, 100.0), storage.config_bool(file, ("window", "fill")),
    )  # fmt: skip
    index._shape = Shape(
        integer(file, ("window", "branching"), 2, 64), integer(file, ("window", "leaf"), 16, 1 << 24),
        storage.config_bool(file, ("window", "overlap")), rules, _quantizer(file, metric.name),
        storage.config_float(file, ("window", "recall"), 0.0, 1.0), integer(file, ("window", "seed"), 0),
    )  # fmt: skip
    index._next_id = integer(file, ("window", "next_id"), 0, 2**63)
    index._own_ids = storage.config_bool(file, ("window", "own_ids"))
    index._why = text(file, ("window", "why"))
    index._column = text(file, ("window", "column"))
    if index._column not in ("int64", "float64") and not index._column.startswith("datetime64["):
        raise FormatError(f"{file.path} is damaged: it calls its values {index._column!r}")
    index._file = file
    if "probes" in file.arrays:
        index._probes = storage.require(file, "probes", np.uint8, (None, index._store.query_bytes))
    listed = file.config.get("runs")
    if not isinstance(listed, list):
        raise FormatError(f"{file.path} is damaged: it lists no runs")
    runs = tuple(_run(Section.of(file, f"run{r}_", part), index, metric, elements) for r, part in enumerate(listed))
    index._become(runs)
    ids = index.ids
    if (len(ids) and int(ids[-1]) >= index._next_id) or (ids[1:] == ids[:-1]).any():
        raise FormatError(f"{file.path} is damaged: an id is there twice, or not below the next one")


def _quantizer(file: storage.File, metric: str) -> Quantizer | None:
    """By what later runs code their vectors; None: by what is usual for them."""
    if "specification" not in file.config:
        return None
    made: Quantizer = specified(file.config["specification"], QUANTIZERS)
    try:
        check_quantizer(made, metric)
    except InputError as problem:
        raise FormatError(f"{file.path} is damaged: {problem}") from problem
    return made


def _run(file: storage.File, index: "Window", metric: Any, elements: Any) -> Run:
    dim = index.dim
    n = storage.config_int(file, "n", 1, 2**31 - 1)
    kind = storage.config_str(file, "element", allowed=elements)
    stride = _core.Plain.row_bytes(ELEMENTS.index("uint8" if kind == "bits" else kind), metric.number, dim)
    dtype = np.float64 if index._column == "float64" else np.int64
    vectors = _core.Table.borrow(storage.require(file, "vectors", np.uint8, (n, stride)))
    ids, values = storage.require(file, "ids", np.int64, (n,)), storage.require(file, "values", dtype, (n,))
    starts = storage.require(file, "starts", np.int64, (None,))
    alive = storage.require(file, "alive", np.bool_, (n,)) if "alive" in file.arrays else None
    own, ordered = (_core.Table.borrow(column.view(np.uint8).reshape(n, 8)) for column in (ids, values))
    travel = Travel(Plain(), Store.empty(metric, kind, dim, 0), index._shape.seed)
    run = Run(index._shape, metric, kind, dim, n, vectors, own, ordered, dtype, travel, starts, {}, alive)
    travel = Travel.restore(file, run.store, n, index._shape.seed)
    factors = storage.require(file, "margins", np.float64, run.margins.factors.shape)
    if not ((factors == 0) | ((factors >= 1) & (factors <= 100))).all():
        raise FormatError(f"{file.path} is damaged: its margins are none")
    run = replace(run, travel=travel, margins=Margins(np.where(factors > 0, factors, np.inf)))
    check(run)
    listed = file.config.get("parts")
    if not isinstance(listed, list):
        raise FormatError(f"{file.path} is damaged: it lists no parts")
    parts, known = {}, list(run.keys())
    for p, part in enumerate(listed):
        section = Section.of(file, f"part{p}_", part)
        key = tuple(part["key"]) if isinstance(part.get("key"), list) else None
        if key not in known or key in parts:
            raise FormatError(f"{file.path} is damaged: it holds a part that has no place")
        parts[key] = _part(section, run, *run.interval(key))
    if len(parts) < len(known):
        raise FormatError(f"{file.path} is damaged: parts are missing")
    return replace(run, parts=parts)


def check(run: Run) -> None:
    """Raise FormatError unless values are in order and leaves follow one another."""
    values, starts = run.values, run.starts
    if (values != values).any() or (values[1:] < values[:-1]).any() or (run.ids < 0).any():
        raise FormatError("the values of this file are damaged: they are not in order")
    if not len(starts) or starts[0] != 0 or (np.diff(starts) < 1).any() or starts[-1] > run.n:
        raise FormatError("the leaves of this file are damaged: they do not follow one another")


def _part(file: storage.File, run: Run, start: int, stop: int) -> Part:
    n, degree = stop - start, run.shape.rules.new_degree
    hung = storage.require(file, "hung", np.uint32, (4, n)) if "hung" in file.arrays else None
    part = Part.over(run, start, stop, hung)
    if hung is not None:
        held = hung[3]
        if (held >= n).any():
            raise FormatError(f"{file.path} is damaged: a row hangs on no node")
        part._store.check(n, n)
    lists = storage.require(file, "lists", np.uint8, (n, degree * 4))
    linked = storage.config_int(file, ("graph", "n_linked"), 0, n)
    part._lists = [_core.Table.borrow(lists)]
    try:
        _core.check_lists(part._lists[0], n, linked, True)
    except ValueError as problem:
        raise FormatError(f"{file.path} is damaged: {problem}") from problem
    entries = [int(e) for e in storage.require(file, "entries", np.uint32, (None,))]
    if any(e >= linked for e in entries) or not entries:
        raise FormatError(f"{file.path} is damaged: its entry nodes do not exist")
    part._contract, part._known = Contract.restore(file), {}
    part._assemble(linked, entries)
    return part
