"""Recall curves: what they choose, what they promise, their state, and states that were tampered with."""

import numpy as np
import pytest

from nearly.errors import FormatError
from nearly.tuning import RecallCurve, measure
from nearly.tuning.curve import KS


def trial_of(difficulty, seed=0):
    """Return a search whose share of misses falls as one over width, times a query's difficulty."""
    n = len(difficulty)

    def trial(width, ks):
        rng = np.random.default_rng(seed)  # the same luck at each width: wider never finds less
        luck = rng.random((n, 100))
        miss = np.minimum(0.95, difficulty / width)[:, None]
        found = luck > miss
        return np.stack([found[:, :k].sum(1) for k in ks]).astype(np.int32), difficulty.astype(np.float32)

    return trial


@pytest.fixture
def curve():
    difficulty = np.random.default_rng(1).lognormal(0.5, 1.0, 600)
    return measure(trial_of(difficulty), n_queries=600, n_vectors=10_000, source="a test", seed=0)


@pytest.mark.parametrize("k", [1, 3, 10, 50, 100, 300])
def test_higher_targets_take_more(curve, k):
    before, expected = 0, 0.0
    for target in np.linspace(0.3, 0.999, 40):
        choice = curve.choose(k, target)
        if not choice.met:
            break
        total = float((choice.widths * curve.share).sum())
        assert total >= before - 1e-6
        assert choice.expected >= expected - 1e-6
        assert choice.expected >= target - 1e-6
        before, expected = total, choice.expected
    else:
        assert k <= 300
    assert not curve.choose(k, 1.0).met or curve.best(k) == 1.0


def test_what_is_promised_is_delivered(curve):
    others = np.random.default_rng(2).lognormal(0.5, 1.0, 3000)
    trial = trial_of(others, seed=5)
    for target in (0.8, 0.9, 0.95):
        choice = curve.choose(10, target)
        assert choice.met
        widths = choice.widths[np.searchsorted(curve.bounds, others.astype(np.float32))]
        delivered = [trial(w, (10,))[0][0][widths == w].mean() / 10 * (widths == w).mean() for w in np.unique(widths)]
        assert target - 0.01 <= sum(delivered) <= target + 0.06


def test_hard_queries_get_more(curve):
    widths = curve.choose(10, 0.95).widths
    assert (np.diff(widths.astype(int)) >= 0).all()
    assert widths[-1] > widths[0]


def test_an_unreachable_target_is_said_to_be(curve):
    hopeless = measure(trial_of(np.full(200, 1e6)), n_queries=200, n_vectors=10_000, source="hopeless", seed=0)
    choice = hopeless.choose(10, 0.9)
    assert not choice.met
    assert choice.expected < 0.2
    assert hopeless.best(10) < 0.2


def test_few_queries_need_a_margin():
    difficulty = np.random.default_rng(3).lognormal(0.5, 1.0, 2000)
    few = measure(trial_of(difficulty[:30]), n_queries=30, n_vectors=10_000, source="few", seed=0)
    many = measure(trial_of(difficulty), n_queries=2000, n_vectors=10_000, source="many", seed=0)
    assert few.choose(10, 0.9).expected >= many.choose(10, 0.9).expected - 0.01
    assert few.choose(10, 0.9).expected > 0.9
    assert len(few.share) == 1


def test_recall_at_a_width_rises(curve):
    values = [curve.at_width(10, width) for width in (1, 10, 20, 50, 200, 10_000)]
    assert values == sorted(values)
    assert values[0] >= 0
    assert values[-1] <= 1


def test_small_sets_measure_small_ks():
    curve = measure(trial_of(np.ones(20)), n_queries=20, n_vectors=8, source="small", seed=0)
    assert curve.ks == (1,)
    assert curve.choose(5, 0.5).widths.max() >= 1
    assert set(curve.ks) <= set(KS)


def test_the_same_seed_gives_the_same_curve_and_its_state_gives_it_again(curve):
    difficulty = np.random.default_rng(1).lognormal(0.5, 1.0, 600)
    again = measure(trial_of(difficulty), n_queries=600, n_vectors=10_000, source="a test", seed=0)
    for one, other in ((again, curve), (RecallCurve.from_state(*curve.state()), curve)):
        assert one.state()[1] == other.state()[1]
        for name, array in one.state()[0].items():
            assert array.tobytes() == other.state()[0][name].tobytes()
    assert (RecallCurve.from_state(*curve.state()).choose(10, 0.9).widths == curve.choose(10, 0.9).widths).all()


def test_hostile_states_are_refused(curve):
    arrays, config = curve.state()
    for name, array in arrays.items():
        bad = [array[:-1], array[None], array.astype(np.float64), np.array("x"), np.zeros(0, array.dtype)]
        if array.dtype.kind == "f":
            bad += [np.full_like(array, np.nan), np.full_like(array, np.inf)]
        for wrong in bad:
            with pytest.raises(FormatError):
                RecallCurve.from_state({**arrays, name: wrong}, config)
        with pytest.raises(FormatError):
            RecallCurve.from_state({n: a for n, a in arrays.items() if n != name}, config)
    for wrong in (curve.widths[::-1], curve.widths * 0, np.full_like(curve.widths, 2**31)):
        with pytest.raises(FormatError):
            RecallCurve.from_state({**arrays, "curve_widths": wrong}, config)
    with pytest.raises(FormatError):
        RecallCurve.from_state({**arrays, "curve_bounds": curve.bounds[::-1]}, config)
    for name, values in {
        "ks": [None, [], [10, 1], [0, 10, 100], [1, 10], ["x"], 5, [1, 10, 1e400], [1, 1, 10]],
        "n_queries": [None, "x", 1e400, []],
    }.items():
        for value in values:
            with pytest.raises(FormatError):
                RecallCurve.from_state(arrays, {**config, name: value})
        with pytest.raises(FormatError):
            RecallCurve.from_state(arrays, {n: v for n, v in config.items() if n != name})
    for wrong in (None, [], 5, "x"):
        with pytest.raises(FormatError):
            RecallCurve.from_state(arrays, wrong)
