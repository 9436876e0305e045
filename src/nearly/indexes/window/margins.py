"""How much wider a pool must be where only a piece of a part is in the window.

A pool stretched by the inverse share of rows that pass holds as many of them as it should where passing rows are
spread evenly. Where the value goes with the vector they are not, and what is missing is measured: windows of halves and
eighths of a part, answered at several targets with pools of several widths.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly.indexes import calibration
from nearly.indexes.allowed import Allowed
from nearly.indexes.contract import Effort
from nearly.indexes.store import as_bytes
from nearly.indexes.travel import alive_sample

if TYPE_CHECKING:
    from nearly.indexes.window.part import Part
    from nearly.indexes.window.run import Run

__all__ = ["NONE_KNOWN", "Margins", "bits_of", "measured"]

TARGETS = (0.9, 0.95, 0.99)
FACTORS = (1.0, 1.4, 2.0, 2.8, 4.0)
SHARES = (2, 8)  # inverse shares of a part that windows are measured at; shares beyond the last are not promised
_K, _QUERIES, _WINDOWS = 10, 120, 3
_TOWARDS = 0.2  # how far points are moved towards others to serve as queries
_GIVE = 0.005  # recall below a target that still keeps it, for the mean of windows; four times that for one of them


class Margins(NamedTuple):
    """Factors by (share, target); infinite where none of those that were tried was enough."""

    factors: NDArray[np.float64]

    def factor(self, target: float, stretch: float, beyond: bool = False) -> float:
        """Factor for a target and a pool stretched so: infinite where none is known, unless one ``beyond`` must do."""
        if stretch <= 1.0:
            return 1.0
        at = next((j for j, known in enumerate(TARGETS) if known >= target - 1e-9), None)
        if (at is None or stretch > SHARES[-1]) and not beyond:
            return np.inf
        known = float(self.factors[int(stretch > SHARES[0]), -1 if at is None else at])
        return FACTORS[-1] if beyond and known == np.inf else known


NONE_KNOWN = Margins(np.full((len(SHARES), len(TARGETS)), np.inf))


def bits_of(n: int, start: int, stop: int, alive: NDArray[np.bool_] | None) -> NDArray[np.uint64]:
    """A bit for each of n rows: those of an interval that are alive."""
    if alive is not None:
        flags = np.zeros((n + 63) // 64 * 64, bool)
        flags[start:stop] = alive[start:stop]
        return np.packbits(flags, bitorder="little").view(np.uint64)
    octets = np.zeros((n + 63) // 64 * 8, np.uint8)
    if start == stop:
        return octets.view(np.uint64)
    octets[(start + 7) // 8 : stop // 8] = 255
    if start // 8 == stop // 8:
        octets[start // 8] = (1 << stop % 8) - (1 << start % 8)
    else:
        octets[start // 8] |= 256 - (1 << start % 8) if start % 8 else 0
        octets[stop // 8 : stop // 8 + 1] |= (1 << stop % 8) - 1
    return octets.view(np.uint64)


def measured(run: "Run", probes: NDArray[np.uint8] | None, threads: int) -> Margins:
    """Margins of a run: what its largest part and one of the smallest need, whichever needs more."""
    keys = [key for key in run.parts if not key[2]]
    if not keys:
        return NONE_KNOWN
    factors = np.ones((len(SHARES), len(TARGETS)))
    for part in {max(keys): run.parts[max(keys)], min(keys): run.parts[min(keys)]}.values():
        if part.curve is not None:
            factors = np.maximum(factors, _needed(part, probes, threads))
    return Margins(factors)


def _needed(part: "Part", probes: NDArray[np.uint8] | None, threads: int) -> NDArray[np.float64]:
    """For each share and target the least factor that was tried with which windows reach the target on average."""
    store, n = part._store, len(part)
    if probes is None:
        points = calibration._points(part, alive_sample(store, n, _QUERIES, part._seed))
        rows = as_bytes(calibration._towards(part, points, _TOWARDS, 0))
    else:
        rng = np.random.default_rng((part._seed, n))
        rows = np.ascontiguousarray(probes[np.sort(rng.permutation(len(probes))[:_QUERIES])])
    out = np.ones((len(SHARES), len(TARGETS)))
    for i, share in enumerate(SHARES):
        size = n // share
        truths = []
        for at in np.linspace(0, n - size, _WINDOWS).astype(int).tolist():
            only = Allowed(bits_of(n, at, at + size, None), size)
            truths.append((only, part._scan(rows, _K, False, only, threads, "")._distances[:, -1:]))
        tried = 0  # what a lower target needs, a higher one needs too
        for j, target in enumerate(TARGETS):
            how = part._contract.effort(part, min(_K, n), target, None)
            while not how.scan and tried < len(FACTORS):
                if _reaches(part, rows, how.wider(FACTORS[tried]), truths, target, threads):
                    break
                tried += 1
            out[i, j] = FACTORS[tried] if tried < len(FACTORS) else np.inf
    return out


def _reaches(part: "Part", rows: Any, how: Effort, truths: Any, target: float, threads: int) -> bool:
    shares = [float((part._walk(rows, _K, False, how, only, threads)._distances <= far).mean()) for only, far in truths]
    return float(np.mean(shares)) >= target - _GIVE and min(shares) >= target - 4 * _GIVE
