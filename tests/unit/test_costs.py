"""Costs that filtered searches are planned by: written down, or measured once for a machine."""

import json
import math

import numpy as np
import pytest

import nearly
from nearly.errors import InputError
from nearly.filters import Filter
from nearly.indexes import pricing
from nearly.tuning import costs
from nearly.tuning.costs import Costs


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.delenv("NEARLY_COSTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    costs.use(None)
    yield
    costs.use(None)


def test_those_of_the_code_serve_until_a_machine_is_measured(monkeypatch, tmp_path):
    assert costs.current() == costs.WRITTEN
    own = Costs(scanned=(1.0, 9.0))
    costs.save(own, costs.costs_file())
    assert costs.costs_file().is_relative_to(tmp_path)
    assert costs.current() == costs.WRITTEN  # not in the middle of a process
    costs.use(None)
    assert costs.current() == own
    assert costs.scanned(65) == 1.0 + 2 * 9.0
    monkeypatch.setenv("NEARLY_COSTS", "written")
    costs.use(None)
    assert costs.current() == costs.WRITTEN
    costs.save(own, tmp_path / "elsewhere" / "c.json")
    monkeypatch.setenv("NEARLY_COSTS", str(tmp_path / "elsewhere" / "c.json"))
    costs.use(None)
    assert costs.current() == own
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["c.json"]


GOOD = {"costs": 1, "compared": [1, 1], "scanned": [1, 1], "exactly": [1, 1], "again": [1, 1], "panel": [1, 1],
        "prepared": 0.1}  # fmt: skip


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"x"', "[" * 10_000, "\x00\xff", "{}"])
def test_files_that_are_no_costs(monkeypatch, text):
    refused(monkeypatch, text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"costs": 2}, {"again": [1]}, {"again": "12"}, {"panel": [10**400, 1]}, {"prepared": True},
        {"again": [1, "x"]}, {"again": [-1, 5]}, {"again": [0, 0]}, {"panel": 1e300},
        {"panel": [1e300, 0]}, {"scanned": [math.nan, 1]}, {"scanned": [1, math.inf]}, {"prepared": []},
        {"prepared": None},
    ],
)  # fmt: skip
def test_files_whose_numbers_are_no_costs(monkeypatch, wrong):
    refused(monkeypatch, json.dumps(GOOD | wrong))


def refused(monkeypatch, text):
    """A cache that holds no costs is passed over, a file that was named is not."""
    path = costs.costs_file()
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    with pytest.warns(UserWarning, match="not used.*holds no costs of a machine"):
        assert costs.current() == costs.WRITTEN
    monkeypatch.setenv("NEARLY_COSTS", str(path))
    costs.use(None)
    with pytest.raises(InputError, match=r"holds no costs.*nearly costs --measure"):
        costs.current()


def test_costs_are_kept_where_the_variable_says_or_not_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(pricing, "_measured", lambda *_: dict.fromkeys(GOOD.keys() - {"costs"}, (1.0, 2.0)))
    monkeypatch.setattr(pricing, "_line", lambda *_: (1.0, 1.0))
    monkeypatch.setenv("NEARLY_COSTS", str(tmp_path / "own.json"))
    found = nearly.measure_costs()
    costs.use(None)
    assert costs.current() == found
    assert [path.name for path in tmp_path.iterdir()] == ["own.json"]
    monkeypatch.setenv("NEARLY_COSTS", "written")
    with pytest.raises(InputError, match="unset it"):
        nearly.measure_costs()
    monkeypatch.setenv("NEARLY_COSTS", str(tmp_path / "own.json" / "below"))
    costs.use(None)
    with pytest.raises(nearly.StateError, match="cannot be written"):
        nearly.measure_costs()
    assert costs.current() == found  # not lost


def test_without_a_home_those_of_the_code_serve(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(costs.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.warns(UserWarning, match="no home folder"):
        assert costs.current() == costs.WRITTEN
    with pytest.raises(InputError, match="no home folder"):
        nearly.measure_costs()


def test_a_good_file_of_other_numbers_is_taken():
    path = costs.costs_file()
    path.parent.mkdir()
    path.write_text(json.dumps(GOOD))
    assert costs.current() == Costs((1, 1), (1, 1), (1, 1), (1, 1), (1, 1), 0.1)


def test_a_machine_is_measured(monkeypatch):
    monkeypatch.setattr(pricing, "_N", 5000)
    monkeypatch.setattr(pricing, "_SETS", 6)
    monkeypatch.setattr(pricing, "_TIMES", 1)
    found = nearly.measure_costs(threads=2)
    assert costs.current() == found
    for line in (found.compared, found.scanned, found.exactly, found.again, found.panel):
        assert line[0] >= 0
        assert line[1] > 0
    costs.use(None)
    assert costs.current() == found  # kept
    costs.use(costs.WRITTEN)
    assert nearly.measure_costs(save=False, threads=1) == costs.current() != costs.WRITTEN


def test_plans_follow_the_costs_and_indexes_do_not(tmp_path):
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((6, 40))
    vectors = (rng.standard_normal((9000, 6)) @ axes).astype(np.float32)
    some = rng.random(9000) < 0.3
    plans = {}
    for name, one in (("quick", (0.001, 0.001)), ("slow", (900.0, 900.0))):
        costs.use(Costs(scanned=one, exactly=one))
        index = nearly.Vamana(vectors, degree=16, beam=40, seed=1)
        plans[name] = index.search(vectors[0], where=Filter.from_mask(some), recall=0.9).plan
        index.save(tmp_path / name)
    assert "scan" in plans["quick"].split(";")[0]
    assert plans["slow"].startswith("Vamana")
    assert (tmp_path / "quick").read_bytes() == (tmp_path / "slow").read_bytes()
