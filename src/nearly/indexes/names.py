"""Arguments by the names that other libraries give them, and what they are called here."""

from collections.abc import Collection, Iterable
from typing import Any

__all__ = ["known_to", "refuse"]

_OURS = {  # the first that the function has is meant; names in lower case without underscores
    ("k",): "topk limit nneighbors nresults",
    ("where",): "filter mask",
    ("threads",): "numthreads nthreads njobs nproc",
    ("effort",): "ef efsearch nprobe searchlistsize complexity",
    ("metric",): "space metrictype metricname distance distancefunction similarity",
    ("seed",): "randomseed randomstate",
    ("M", "degree"): "m r maxdegree connectivity graphdegree maxconnections",
    ("ef_construction", "beam"): "efconstruction l complexity expansionadd buildlistsize buildcomplexity efc",
    ("alpha",): "a",
    ("recall",): "targetrecall",
    ("quantizer",): "quantization compression",
    ("radius",): "r eps epsilon maxdistance threshold",
    ("ids",): "keys",
    ("metadata",): "metadatas payload payloads attributes",
    ("documents",): "texts docs",
    ("vectors", "rows"): "data x xb embeddings",
}
_ELSEWHERE = {
    "search() takes effort= instead": "ef efsearch nprobe",
    "Python runs one thread at a time": "threads",
    "an index grows by itself": "maxelements capacity initialcapacity",
    "the vectors tell": "d dim dimension ndim dtype",
    "there are no lists to set up: nearly.build chooses": "nlist nlists numleaves ncentroids",
    "add is told its ids": "allowreplacedeleted",
    "nearly.Vamana takes labels": "labels",
}


def refuse(what: str, unknown: Iterable[str], known: Collection[str]) -> None:
    """Raise a TypeError for names that a function does not take, and say which of those it knows are meant."""
    for name in unknown:
        plain = name.lower().replace("_", "")
        ours = [
            next((n for n in names if n in known), None) for names, words in _OURS.items() if plain in words.split()
        ]
        hints = [f"; use {meant}=" for meant in ours if meant is not None]
        hints += [f"; {said}" for said, words in _ELSEWHERE.items() if plain in words.split()]
        if "exact" in known and "effort" not in known and plain in ("effort", *_OURS[("effort",)].split()):
            hints = ["; use recall="]  # of a collection, which finds the effort by itself
        raise TypeError(f"{what} has no argument {name!r}{(hints or [''])[0]}")


def known_to(function: Any) -> Collection[str]:
    """Names of the arguments of `build` or of a constructor: all but the vectors are keywords with defaults."""
    return {"vectors", *function.__kwdefaults__}
