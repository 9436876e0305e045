"""Finalists in interleaved rounds: ratios of speed at equal recall, what was asked and delivered, builds, curves.

All are built, then take turns on one core, one effort at a time: A B C, then C B A. A ratio is formed within each
round. Records, by "bench":

builds     one per finalist: seconds and peak memory of its build, size of its index
finalists  one per mode, target and pair: the speed of A over that of B at a recall, both interpolated
asked      one per mode, target and pair, where A is asked for recalls: at the recall that A delivered
curve      one per mode and finalist: (recall, median QPS) of the efforts that took turns, those around the targets
"""

import argparse
import itertools
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import measure
import peers
from datasets import Dataset
from worker import PeerError, Worker

Record = dict[str, Any]
Effort = list[float]


class Judge(Protocol):
    """What knows the truth: a data set, or the rows of one that pass a filter."""

    def recall(self, ids: Any) -> float:
        """Return the mean recall of the answers to the first ``len(ids)`` queries."""
        ...


class Pass(NamedTuple):
    """One pass over all queries at one effort."""

    recall: float
    qps: float
    qps_cpu: float


@dataclass(eq=False)
class Finalist:
    """A configuration that was built, and what takes turns in the mode at hand."""

    label: str
    worker: Worker
    series_of_efforts: list[list[Effort]]
    asks: bool
    n_queries: int = 0
    trials: list[tuple[float, float, Effort]] = field(default_factory=list)  # recall, QPS, effort
    chosen: list[int] = field(default_factory=list)  # trials that take turns

    def asked(self, target: float) -> int | None:
        """Return the trial that was asked for a recall; None where efforts are no recalls, or a scan answers."""
        return next((i for i, trial in enumerate(self.trials) if self.asks and trial[2] == [target]), None)


Round = dict[str, dict[int, Pass]]  # by label, then by trial


def compare(data: Dataset, folder: Path, names: list[str], arguments: argparse.Namespace) -> Iterator[Record]:
    """Yield the records of all finalists; one that cannot be built is named in its own and left out."""
    labels = [name + " (again)" * names[:place].count(name) for place, name in enumerate(names)]
    with ExitStack() as stack:
        built: list[Finalist] = []
        for name, label in zip(names, labels, strict=True):  # one after another: a build has the machine to itself
            worker = stack.enter_context(closing(Worker(folder, name, data.metric, arguments.core, label=label)))
            about = {"bench": "builds", "peer": label, "version": peers.version(name), "threads": arguments.threads}
            try:
                found = worker.ask("build", threads=arguments.threads, timeout=arguments.timeout)
            except PeerError as error:
                yield {**about, "error": str(error)}
                continue
            built.append(Finalist(label, worker, found.pop("efforts"), found.pop("asks"), len(data.queries)))
            yield {**about, **found, **memory(found, worker.size(), data.vectors.nbytes)}
        for mode in arguments.modes:
            for finalist in built:
                finalist.trials = try_efforts(finalist, data, mode)
            choose(built)
            rounds = take_turns(built, mode, arguments.rounds)
            yield from results(built, rounds, mode)


def memory(built: Record, size: Record, input_bytes: int) -> Record:
    """Return the index's size and the peak of memory over (input + index); None where a peer cannot save its index."""
    index = size["index_bytes"]
    peak = None if index is None else (built["peak_bytes"] + input_bytes) / (input_bytes + index)
    return {**size, "input_bytes": input_bytes, "peak_over_input_and_index": peak}


# ---------------------------------------------------------------- rounds


def try_efforts(finalist: Finalist, data: Judge, mode: str, best_of: int = 3) -> list[tuple[float, float, Effort]]:
    """Return (recall, QPS, effort) of rising efforts, each the best of so many passes, one where they are long."""
    worker, n, trials = finalist.worker, finalist.n_queries, []
    worker.warm_up(finalist.series_of_efforts[0][0], [mode], min(n, 20))
    for series in finalist.series_of_efforts:
        for effort in series:
            seconds = worker.search(mode, effort, n, keep=True)["seconds"]
            recall = data.recall(worker.ids())
            for _ in range(best_of - 1 if recall > 0.8 and seconds < 2 else 0):
                seconds = min(seconds, worker.search(mode, effort, n)["seconds"])
            trials.append((recall, n / seconds, effort))
            if not finalist.asks and (recall >= 0.995 or seconds > 12):  # what is asked for is always tried
                break
    return trials


def choose(built: Sequence[Finalist]) -> None:
    """Let those efforts take turns that are next to a target, or to a recall that another delivered when asked."""
    asked = {f.label: [f.asked(target) for target in measure.TARGETS] for f in built}
    delivered = [f.trials[i][0] for f in built for i in asked[f.label] if i is not None]
    for finalist in built:
        points = [trial[:2] for trial in finalist.trials]
        near = measure.around_targets(points, [*measure.TARGETS, *delivered])
        finalist.chosen = sorted({*near, *(i for i in asked[finalist.label] if i is not None)})


def take_turns(built: Sequence[Finalist], mode: str, n_rounds: int) -> list[Round]:
    """Return what every round measured: A B C, then C B A, one effort of each at a time."""
    rounds = []
    for order in measure.turns(built, n_rounds):
        turn: Round = {finalist.label: {} for finalist in built}
        for step in range(max((len(finalist.chosen) for finalist in built), default=0)):
            for finalist in order:
                if step < len(finalist.chosen):
                    trial = finalist.chosen[step]
                    recall, _, effort = finalist.trials[trial]
                    n = finalist.n_queries
                    took = finalist.worker.search(mode, effort, n)
                    cpu = max(1e-9, took["cpu_seconds"])
                    turn[finalist.label][trial] = Pass(recall, n / took["seconds"], n / cpu)
        rounds.append(turn)
    return rounds


# ---------------------------------------------------------------- what they say


def results(built: Sequence[Finalist], rounds: Sequence[Round], mode: str) -> Iterator[Record]:
    """Yield the ratios of every pair, and the curve of every finalist."""
    about = {"mode": mode, "rounds": len(rounds)}
    ours = [f for f in built if f.label.startswith("nearly")]
    if not ours or len(ours) == len(built):  # nobody or only us: the first against the rest
        ours = list(built[:1])
    pairs = [(a, b) for a, b in itertools.product(ours, built) if b not in ours]
    for target, (a, b) in itertools.product(measure.TARGETS, pairs):
        at = {"recall": target, "a": a.label, "b": b.label}
        yield {"bench": "finalists", **about, **at, **ratio(rounds, a.label, b.label, target)}
    for target, (a, b) in itertools.product(measure.TARGETS, pairs):
        trial = a.asked(target)
        at = {"asked": target, "a": a.label, "b": b.label}
        if trial is not None:
            delivered = a.trials[trial][0]
            at |= {"recall": delivered, **ratio(rounds, a.label, b.label, delivered, trial)}
        if a.asks:
            yield {"bench": "asked", **about, **at, "scan": trial is None}
    for finalist in built:
        yield {"bench": "curve", **about, "peer": finalist.label, "points": curve(finalist, rounds)}


def ratio(rounds: Sequence[Round], a: str, b: str, recall: float, trial: int | None = None) -> Record:
    """Return the speed of A over that of B at a recall: median and quartiles over rounds, by wall clock and CPU time.

    `trial` is the effort of A that delivered this very recall; without it A is interpolated as B is.
    """
    found: Record = {}
    for speed, prefix in (("qps", ""), ("qps_cpu", "cpu_")):
        pairs = []
        for turn in rounds:
            mine = points(turn[a], speed) if trial is None else [(recall, getattr(turn[a][trial], speed))]
            pairs.append((measure.qps_at(mine, recall), measure.qps_at(points(turn[b], speed), recall)))
        both = [(x, y) for x, y in pairs if x is not None and y is not None]
        if not both:
            return {"reached": {name: speed is not None for name, speed in zip((a, b), pairs[0], strict=True)}}
        found |= measure.quartiles((x / y for x, y in both), prefix)
        found |= {
            f"{speed}_{side}": statistics.median(of) for side, of in zip("ab", zip(*both, strict=True), strict=True)
        }
    return found


def points(passes: dict[int, Pass], speed: str) -> list[measure.Point]:
    """Return (recall, speed) of one finalist in one round."""
    return [(one.recall, getattr(one, speed)) for one in passes.values()]


def curve(finalist: Finalist, rounds: Sequence[Round]) -> list[measure.Point]:
    """Return (recall, median QPS over rounds) by rising recall."""
    return sorted(
        (finalist.trials[trial][0], statistics.median(turn[finalist.label][trial].qps for turn in rounds))
        for trial in finalist.chosen
    )
