"""Recall curves: what they choose, what they promise, their state, and states that were tampered with."""

from dataclasses import replace

import numpy as np
import pytest

from nearly.errors import FormatError
from nearly.tuning import RecallCurve, measure
from nearly.tuning.curve import KS
from nearly.tuning.measuring import Effort


def trial_of(difficulty, seed=0):
    """Return a search whose share of misses falls as one over the lists that it reads, times a query's difficulty."""
    n = len(difficulty)

    def trial(effort, ks, which):
        rng = np.random.default_rng(seed)  # the same luck at each effort: more never finds less
        luck = rng.random((n, 100))[which]
        lists = effort.width if np.isinf(effort.reach) else min(effort.width, 10 * (1 + effort.reach) ** 4)
        miss = np.minimum(0.95, difficulty[which] / lists)[:, None]
        found = luck > miss
        return np.stack([found[:, :k].sum(1) for k in ks]).astype(np.int32), int(lists * len(which))

    return trial


def measured(difficulty, n_expected=None, **options):
    """Return the curve of queries of known difficulty, all of them expected unless told otherwise."""
    given = {"most": 100, "n_vectors": 10_000, "source": "a test", "seed": 0, **options}
    n_expected = len(difficulty) if n_expected is None else n_expected
    return measure(trial_of(difficulty), hardness=difficulty.astype(np.float32), n_expected=n_expected, **given)


@pytest.fixture(params=[False, True], ids=["reaches", "widths"])
def curve(request):
    return measured(np.random.default_rng(1).lognormal(0.5, 1.0, 600), stepped=request.param)


@pytest.fixture
def with_harder():
    expected, made = np.random.default_rng(1).lognormal(0.5, 1.0, (2, 500))
    harder = 2 * made
    return measured(np.concatenate([expected, harder[harder > np.quantile(expected, 0.75)]]), n_expected=500)


def delivered(curve, others, target, k=10):
    """Return the mean recall of other queries at the widths that a curve chooses."""
    choice, trial = curve.choose(k, target), trial_of(others, seed=5)
    assert choice.met
    level = np.searchsorted(curve.bounds, others.astype(np.float32))
    efforts = [Effort(*each, choice.anchor) for each in zip(choice.widths, choice.reaches, strict=True)]
    found = [trial(effort, (k,), np.flatnonzero(level == at))[0].sum() for at, effort in enumerate(efforts)]
    return sum(found) / k / len(others)


@pytest.mark.parametrize("k", [1, 3, 10, 50, 100, 300])
def test_higher_targets_take_more(curve, k):
    before, expected = 0, 0.0
    for target in np.linspace(0.3, 0.999, 40):
        choice = curve.choose(k, target)
        if not choice.met:
            break
        total = float(((choice.widths if np.isinf(choice.reaches).any() else choice.reaches + 1) * curve.share).sum())
        assert total >= before - 1e-6
        assert choice.expected >= expected - 1e-6
        assert choice.expected >= target - 1e-6
        before, expected = total, choice.expected
    else:
        assert k <= 300
    assert not curve.choose(k, 1.0).met or curve.best(k) == 1.0


def test_what_is_promised_is_delivered(curve):
    others = np.random.default_rng(2).lognormal(0.5, 1.0, 3000)
    for target in (0.8, 0.9, 0.95):
        found = delivered(curve, others, target)  # a pool of 10, the narrowest, delivers 0.86
        assert target - 0.01 <= found <= max(0.86, target + 0.04)


@pytest.mark.parametrize("shift", [1.0, 1.5, 2.0])
def test_what_is_promised_is_delivered_to_harder_queries_too(with_harder, shift):
    others = shift * np.random.default_rng(2).lognormal(0.5, 1.0, 3000)
    for target in (0.8, 0.9, 0.95, 0.99):
        assert target - 0.01 <= delivered(with_harder, others, target) <= max(0.86, target + 0.04)


def test_harder_queries_form_groups_of_their_own(with_harder):
    assert with_harder.n_easy == 3
    assert len(with_harder.share) == 6
    np.testing.assert_allclose(with_harder.share[:3], 0.25, atol=0.01)  # of the expected ones
    assert with_harder.share.sum() == pytest.approx(1)
    assert with_harder.n_queries > 600


def test_a_pool_holds_what_is_asked_for(curve):
    for k in (1, 7, 20, 33, 50, 100, 300):
        assert curve.choose(k, 0.5).widths.min() >= k


def test_a_target_is_met_wherever_the_widest_pools_meet_it():
    """Few queries have a margin that falls with the width: between two levels that it does not allow lies one."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        few = measured(rng.lognormal(0.5, 0.7, 40), n_vectors=400)
        met = [few.choose(10, target).met for target in (0.5, 0.8, 0.9, 0.95)]
        assert met == sorted(met, reverse=True)


def test_hopeless_queries_do_not_walk_on_and_on():
    """Once whole pools are read, a wider reach changes nothing."""
    trial, asked = trial_of(np.full(200, 1e6)), []

    def counting(effort, ks, which):
        if np.isfinite(effort.reach):
            asked.append(effort.reach)
        return trial(effort, ks, which)

    measure(counting, hardness=np.ones(200, np.float32), n_expected=200, most=10, n_vectors=10_000, source="a test",
            seed=0)  # fmt: skip
    assert asked[-1] <= 3.0  # 10 * 4**4 lists are more than a pool


def test_wide_pools_are_tried_on_the_unsettled_only():
    difficulty = np.random.default_rng(1).lognormal(0.5, 1.0, 600)
    trial, asked = trial_of(difficulty), {}

    def counting(effort, ks, which):
        if np.isfinite(effort.reach):
            asked[effort.reach] = len(which)
        return trial(effort, ks, which)

    measure(counting, hardness=difficulty.astype(np.float32), n_expected=600, most=10, n_vectors=10_000,
            source="a test", seed=0)  # fmt: skip
    n_asked = [n for _, n in sorted(asked.items())]
    assert n_asked[0] == 600
    assert n_asked == sorted(n_asked, reverse=True)
    assert n_asked[-1] < 60


def test_hard_queries_get_more(curve):
    choice = curve.choose(10, 0.95)
    efforts = choice.widths.astype(float) if np.isinf(choice.reaches).any() else choice.reaches
    assert (np.diff(efforts) >= 0).all()
    assert efforts[-1] > efforts[0]


def test_an_unreachable_target_is_said_to_be(curve):
    hopeless = measured(np.full(200, 1e6))
    choice = hopeless.choose(10, 0.9)
    assert not choice.met
    assert choice.expected < 0.2
    assert hopeless.best(10) < 0.2


def test_few_queries_need_a_margin():
    difficulty = np.random.default_rng(3).lognormal(0.5, 1.0, 2000)
    few, many = measured(difficulty[:30]), measured(difficulty)
    assert few.choose(10, 0.9).expected >= many.choose(10, 0.9).expected - 0.01
    assert few.choose(10, 0.9).expected > 0.9
    assert len(few.share) == 1


def test_a_hard_group_answers_by_what_it_delivers_for_sure():
    def chosen(error):
        mean = np.tile(np.array([0.7, 0.9, 0.96, 0.99], np.float32), (1, 2, 1))
        errors = np.zeros_like(mean)
        errors[:, 1] = error
        share = np.array([1, 0], np.float32)  # nothing of the mean depends on the hard group
        bounds, widths = np.ones(1, np.float32), np.array([10, 20, 40, 80], np.uint32)
        reaches, fixed = np.full(4, np.inf, np.float32), mean[:, 0]
        curve = RecallCurve("a test", 1000, bounds, widths, reaches, (10,), mean, errors, share, 1, widths, fixed)
        return curve.choose(10, 0.95)

    known, guessed, unknown = map(chosen, (0.0, 0.01, 0.05))
    assert known.widths[0] == known.widths[1] == guessed.widths[0] < guessed.widths[1]
    assert known.met
    assert guessed.met
    assert not unknown.met


def test_recall_at_a_width_rises(curve):
    values = [curve.at_width(10, width) for width in (1, 10, 20, 50, 200, 10_000)]
    assert values == sorted(values)
    assert values[0] >= 0
    assert values[-1] <= 1


def test_a_recall_that_many_widths_deliver_takes_the_narrowest_of_them():
    """All neighbors of easy queries are found by any pool, so that a walk by reach costs no more than the narrowest."""
    curve = measured(np.full(600, 1e-6))
    assert (curve.fixed[:, -4:] == 1).all()
    assert curve.width_at(1, 1.0) == pytest.approx(curve.pools[0])
    nearly_all = np.full_like(curve.fixed, 0.99991)
    nearly_all[:, -1], nearly_all[:, 0] = 1.0, 0.9
    assert replace(curve, fixed=nearly_all).width_at(1, 0.99995) == pytest.approx(curve.pools[1])


def test_small_sets_measure_small_ks():
    curve = measured(np.ones(20), most=8, n_vectors=8)
    assert curve.ks == (1, 3)
    assert curve.choose(5, 0.5).widths.max() >= 5
    assert set(curve.ks) <= set(KS)


def test_the_same_seed_gives_the_same_curve_and_its_state_gives_it_again(curve):
    difficulty = np.random.default_rng(1).lognormal(0.5, 1.0, 600)
    again = measured(difficulty, stepped=bool(np.isinf(curve.reaches).any()))
    for one, other in ((again, curve), (RecallCurve.from_state(*curve.state()), curve)):
        assert one.state()[1] == other.state()[1]
        for name, array in one.state()[0].items():
            assert array.tobytes() == other.state()[0][name].tobytes()
    assert (RecallCurve.from_state(*curve.state()).choose(10, 0.9).widths == curve.choose(10, 0.9).widths).all()


def test_a_curve_of_the_first_version_is_read():
    """It knew widths alone, and other numbers of neighbors."""
    share = np.array([0.7, 0.3], np.float32)
    mean = np.stack([np.full((2, 3), level, np.float32) for level in (0.7, 0.8, 0.99)], axis=-1).transpose(1, 0, 2)
    arrays = {
        "curve_bounds": np.ones(1, np.float32), "curve_widths": np.array([10, 50, 250], np.uint32),
        "curve_mean": mean, "curve_error": np.full_like(mean, 0.001), "curve_share": share,
    }  # fmt: skip
    for more in ({}, {"n_easy": 1}):
        old = RecallCurve.from_state(arrays, {"source": "before", "n_queries": 200, "ks": [1, 10, 50], **more})
        choice = old.choose(10, 0.95)
        assert choice.met
        assert np.isinf(choice.reaches).all()
        assert (choice.widths > 50).all()
        assert (choice.widths < 250).all()
        assert old.at_width(10, 50) == pytest.approx(0.8)
        assert old.state()[0].keys() == arrays.keys()


def test_hostile_states_are_refused(curve):
    arrays, config = curve.state()
    for name, array in arrays.items():
        bad = [array[:-1], array[None], array.astype(np.float64), np.array("x"), np.zeros(0, array.dtype)]
        if array.dtype.kind == "f":
            bad += [np.full_like(array, np.nan), np.full_like(array, np.inf)]
        for wrong in bad:
            with pytest.raises(FormatError):
                RecallCurve.from_state({**arrays, name: wrong}, config)
        if name != "curve_reaches":  # without it, it is a curve of widths
            with pytest.raises(FormatError):
                RecallCurve.from_state({n: a for n, a in arrays.items() if n != name}, config)
    if "curve_reaches" in arrays:
        for wrong in (curve.reaches[::-1], curve.reaches * 0, curve.reaches - 1):
            with pytest.raises(FormatError):
                RecallCurve.from_state({**arrays, "curve_reaches": wrong}, config)
        with pytest.raises(FormatError):
            RecallCurve.from_state({**arrays, "curve_pools": curve.pools[::-1]}, config)
    for wrong in (np.arange(len(curve.widths), 0, -1, np.uint32), curve.widths * 0, np.full_like(curve.widths, 2**31)):
        with pytest.raises(FormatError):
            RecallCurve.from_state({**arrays, "curve_widths": wrong}, config)
    with pytest.raises(FormatError):
        RecallCurve.from_state({**arrays, "curve_bounds": curve.bounds[::-1]}, config)
    for name, values in {
        "ks": [None, [], [10, 1], [0, 10, 100], [1, 10], ["x"], 5, [1, 10, 1e400], [1, 1, 10]],
        "n_queries": [None, "x", 1e400, []],
        "n_easy": [None, "x", -1, 7, []],
    }.items():
        for value in values:
            with pytest.raises(FormatError):
                RecallCurve.from_state(arrays, {**config, name: value})
        if name != "n_easy":
            with pytest.raises(FormatError):
                RecallCurve.from_state(arrays, {n: v for n, v in config.items() if n != name})
    for wrong in (None, [], 5, "x"):
        with pytest.raises(FormatError):
            RecallCurve.from_state(arrays, wrong)
