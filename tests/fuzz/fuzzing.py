"""What fuzzers share: cases that a seed gives again, how to repeat one, and the command line."""

import argparse
import contextlib
import faulthandler
import itertools
import random
import sys
import time
from collections.abc import Iterator


def cases(
    seed: int, mutations: int | None = None, seconds: float | None = None, start: int = 0
) -> Iterator[tuple[int, random.Random]]:
    """Yield numbers from ``start`` on, each with a random state of its own, until one of the limits."""
    deadline = time.monotonic() + (float("inf") if seconds is None else seconds)
    for i in itertools.count(start) if mutations is None else range(start, start + mutations):
        if time.monotonic() >= deadline:
            return
        yield i, random.Random(f"{seed}/{i}")


@contextlib.contextmanager
def repeatable(what: str, i: int, seed: int) -> Iterator[None]:
    """Where something is raised, say how to meet it again."""
    try:
        yield
    except BaseException:
        print(f"\n{what} failed; repeat it: --start {i} --mutations 1 --seed {seed}", file=sys.stderr)
        raise


def arguments(doc: str | None, mutations: int) -> argparse.Namespace:
    """Read the limits, the seed and the start that a person gives; so many mutations where there is no limit."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--mutations", type=int, help=f"stop after so many (default {mutations} without --seconds)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="first mutation")
    given = parser.parse_args()
    if given.seconds is None and given.mutations is None:
        given.mutations = mutations
    faulthandler.enable()
    return given
