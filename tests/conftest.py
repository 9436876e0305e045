"""Fixtures for all tests, and how much of them is run.

pytest                                 the fast form: soak tests left out, Hypothesis repeats the same examples
pytest --soak 600 --soak-seed 7        the long form: soak tests, and 600 seconds of new Hypothesis examples
pytest --soak 600 --soak-steps 10000   the same, and longer until state machines that count have done so many steps
pytest --sample 0.1 --soak-seed 7      a tenth of the tests, chosen by the seed
NEARLY_SANITIZED=1 pytest              without the tests marked timing: a sanitizer slows everything down
NEARLY_TEST=overwrite pytest ...       golden files are written again instead of compared; review the diff
"""

import gc
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

# Before NumPy is loaded: threads of OpenBLAS that wait for each other on cores that all tests share took seven eighths
# of the processor time of tests with products and eigenvectors in NumPy (two processes, two cores).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["NEARLY_COSTS"] = "written"  # tests make the same plans everywhere

import hypothesis
import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"

# No deadline: on a busy machine an example may take any time. The fast form never fails by chance.
hypothesis.settings.register_profile("fast", deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("soak", deadline=None, derandomize=False, print_blob=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nearly")
    group.addoption("--soak", type=float, default=0.0, metavar="SECONDS", help="the long form, so much longer")
    group.addoption("--soak-steps", type=int, default=0, metavar="N", help="of state machines that count, in all")
    group.addoption("--sample", type=float, default=1.0, metavar="SHARE", help="run only this share of the tests")
    group.addoption("--soak-seed", type=int, default=0, metavar="SEED", help="of --soak and --sample")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "timing: measures seconds or memory; left out under a sanitizer")
    config.addinivalue_line("markers", "xdist_group(name): run by one process; known also where xdist is not installed")
    hypothesis.settings.load_profile("soak" if config.getoption("--soak") else "fast")


def is_hypothesis(item: pytest.Item) -> bool:
    return hypothesis.is_hypothesis_test(getattr(item, "obj", None))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without looking for cycles in what stays: a third of the time it takes at first."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in its own
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    share, seed, soak = (config.getoption(name) for name in ("--sample", "--soak-seed", "--soak"))
    sanitized = bool(os.environ.get("NEARLY_SANITIZED"))

    def runs(item: pytest.Item) -> bool:
        marked = item.get_closest_marker("soak") is not None
        if (marked and not soak) or (soak and not marked and not is_hypothesis(item)):
            return False
        if sanitized and item.get_closest_marker("timing"):
            return False
        return zlib.crc32(f"{seed} {item.nodeid}".encode()) < share * 2**32

    for item in items:
        # Tests of one index go to one process, which builds it once; others by files: a group costs the scheduler time
        # in proportion to how many there are.
        if item.get_closest_marker("xdist_group") is None:
            case = getattr(item, "callspec", None) and item.callspec.params.get("case")
            item.add_marker(pytest.mark.xdist_group(str(case or item.nodeid.partition("::")[0])))
    if left_out := [item for item in items if not runs(item)]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if runs(item)]


def steps_of(item: pytest.Item) -> int | None:
    """Return the steps that a state machine has done, None where it does not count them."""
    return getattr(getattr(item, "cls", None), "steps", None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """In the long form, repeat a Hypothesis test with new seeds until its share of time and steps is over."""
    seconds, seed, steps = (item.config.getoption(name) for name in ("--soak", "--soak-seed", "--soak-steps"))
    if not seconds or not is_hypothesis(item):
        return (yield)
    deadline = time.monotonic() + seconds / sum(map(is_hypothesis, item.session.items))
    least = math.ceil(steps / max(1, sum(steps_of(each) is not None for each in item.session.items)))
    hypothesis.core.global_force_seed = seed  # what --hypothesis-seed sets; reaches state machines too
    try:
        yield
        while time.monotonic() < deadline or (steps_of(item) or least) < least:
            hypothesis.core.global_force_seed += 1
            item.runtest()
    except BaseException as error:
        error.add_note(f"repeat it: pytest '{item.nodeid}' --soak 1 --soak-seed {hypothesis.core.global_force_seed}")
        raise
    finally:
        hypothesis.core.global_force_seed = None
        item.user_properties.append(("steps", steps_of(item) or 0))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # so that what is said comes last
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Fail where state machines did fewer steps than were wanted; the process that reports knows of all."""
    yield
    wanted = session.config.getoption("--soak-steps")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if wanted and reporter is not None and not hasattr(session.config, "workerinput"):
        done = sum(dict(each.user_properties).get("steps", 0) for each in reporter.getreports("passed"))
        reporter.write_line(f"{done:,} steps of state machines, {wanted:,} wanted", red=done < wanted)
        if done < wanted and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "simd_target" in metafunc.fixturenames:
        from nearly import _core

        metafunc.parametrize("simd_target", _core.simd_targets(), indirect=True)


@pytest.fixture
def simd_target(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once on every CPU target of this machine; the value is its name."""
    from nearly import _core

    before = _core.simd_target()
    assert _core.use_simd_target(request.param)
    yield request.param
    assert _core.use_simd_target(before)


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator in the same state for every test."""
    return np.random.default_rng(20240229)


@pytest.fixture
def golden() -> Callable[[str, Any], None]:
    """Return ``golden(name, value)``: the value must be what tests/golden/<name>.json holds, to the last digit."""

    def compare(name: str, value: Any) -> None:
        path = GOLDEN / f"{name}.json"
        plain = json.loads(json.dumps(value, default=lambda x: x.tolist()))  # NumPy to lists, tuples to lists
        if os.environ.get("NEARLY_TEST") == "overwrite":
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(plain, indent=1) + "\n")
        assert path.exists(), f"there is no {path.name}: run with NEARLY_TEST=overwrite and review what it writes"
        assert plain == json.loads(path.read_text()), f"differs from {path.name}; NEARLY_TEST=overwrite accepts it"

    return compare


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Return the folder of real data sets, or skip the test where there is none."""
    from nearly.evaluate import datasets

    folder = datasets.data_folder()
    if folder is None:
        pytest.skip("no real data: NEARLY_DATA names no folder")
    return folder
