"""Recall of lists by reach: what a curve says of queries whose neighbors' lists are known."""

import numpy as np
import pytest

from nearly.errors import FormatError
from nearly.tuning import Probing
from nearly.tuning.probing import measure


def measured(kept=(1.0,), least=None, n=400, most=30, n_lists=50, hard=True, seed=0):
    """Return a curve of queries of which each neighbor's gap is drawn, and the gaps of neighbors."""
    rng = np.random.default_rng(seed)
    gaps = np.sort(rng.random((n, n_lists), dtype=np.float32), axis=1)
    gaps -= gaps[:, :1]
    of_neighbors = np.minimum(rng.geometric(0.2, (n, most)) - 1, n_lists - 1)
    group = np.zeros(n, int)
    if hard:
        group[n // 2 :] = 1
        of_neighbors[n // 2 :] = np.minimum(2 * of_neighbors[n // 2 :], n_lists - 1)
    farther = np.sort(rng.random((n, most), dtype=np.float32), axis=1)
    coded = farther + rng.normal(0, 0.1, farther.shape).astype(np.float32)
    curve = measure(gaps, of_neighbors[:, :, None], np.full(n_lists, 20), farther=farther, coded=coded,
                    n_expected=n // 2 if hard else n, group=group, kept=np.array(kept, np.float32),
                    least=np.array(least or kept, np.float32), source="test",
                    seed=1)  # fmt: skip
    curve.__dict__["farther_of_test"], curve.__dict__["coded_of_test"] = farther, coded
    return curve, np.take_along_axis(gaps, of_neighbors, axis=1), gaps


@pytest.mark.parametrize("target", [0.5, 0.8, 0.9, 0.97])
def test_a_reach_holds_as_many_neighbors_as_the_target_wants(target):
    curve, needed, gaps = measured(hard=False)
    chosen = curve.choose(10, target, 1000, 1.0, 0.0)
    within = (needed[:, :10] <= chosen.reach).mean()
    assert target <= within <= target + 0.04
    assert abs(chosen.expected - within) < 0.02
    assert abs(chosen.scanned - (gaps <= chosen.reach).mean()) < 0.02


@pytest.mark.parametrize("target", [0.8, 0.9, 0.97])
def test_under_a_filter_lists_and_codes_are_looked_at_from_the_kth_on(target):
    curve, needed, _ = measured(hard=False)
    farther, coded = curve.__dict__["farther_of_test"], curve.__dict__["coded_of_test"]
    around = curve.around(10, target, 1.0)
    by_lists = needed[:, :10] - farther[:, 9:10] <= around.beyond
    by_codes = coded[:, :10] - farther[:, 9:10] <= around.spread
    assert target <= (by_lists & by_codes).mean() <= target + 0.04
    assert by_codes.mean() >= 1 - (1 - target) / 4
    arrays, config = curve.state()
    older = {k: v for k, v in arrays.items() if not k.endswith(("beyonds", "anchored", "anchored_error", "spreads",
                                                                 "coded", "coded_error"))}  # fmt: skip
    assert Probing.from_state(older, config).around(10, target, 1.0) is None
    assert Probing.from_state(arrays, config).around(10, target, 1.0) == around


def test_a_neighbor_in_two_lists_is_found_by_either():
    gaps = np.tile(np.arange(4, dtype=np.float32), (30, 1))
    both = np.tile(np.array([3, 1]), (30, 5, 1))
    curve = measure(gaps, both, np.full(4, 10), farther=np.zeros((30, 5), np.float32), n_expected=30,
                    group=np.zeros(30, int), kept=np.ones(1, np.float32), least=np.ones(1, np.float32), source="test",
                    seed=0)  # fmt: skip
    reach = curve.choose(3, 0.9, 40, 1.0, 0.0).reach  # between two that were tried, 0 and 1
    assert 0 < reach <= 1
    assert curve.at_width(3, 2) == 1.0


def test_queries_of_other_kinds_are_to_meet_the_target_too():
    curve, needed, _ = measured()
    reach = curve.choose(10, 0.9, 1000, 1.0, 0.0).reach
    assert (needed[200:, :10] <= reach).mean() >= 0.89
    alone = measured(hard=False)[0].choose(10, 0.9, 1000, 1.0, 0.0).reach
    assert reach > alone


def test_a_target_beyond_what_codes_keep_takes_a_greater_depth():
    curve, _, _ = measured(kept=(0.8, 0.9, 0.97, 0.999))
    picked = [curve.choose(10, target, 1000, 0.1, 1.0).depth for target in (0.6, 0.85, 0.95)]
    assert picked == sorted(picked)
    assert picked[-1] >= 2.0
    assert curve.choose(10, 0.9995, 1000, 0.1, 1.0) is None
    cheap = curve.choose(10, 0.7, 1000, 1.0, 0.0).depth  # ranking costs nothing: as deep as it goes
    assert cheap == curve.depths[-1]


def test_codes_that_tell_one_group_less_take_a_wider_reach_and_take_nothing_from_what_others_are_promised():
    alike, _, _ = measured(kept=(0.999,))
    uneven, _, _ = measured(kept=(0.999,), least=(0.98,))
    first, second = (one.choose(10, 0.9, 1000, 1.0, 1.0) for one in (alike, uneven))
    assert second.reach > first.reach
    assert second.expected > first.expected
    assert uneven.at_width(10, 20) == alike.at_width(10, 20)
    state, config = uneven.state()
    again = Probing.from_state({name: a for name, a in state.items() if name != "probing_least"}, config)
    assert (again.least == uneven.kept).all()  # as files before there were topics


def test_more_neighbors_than_were_measured_are_not_promised():
    curve, _, _ = measured()
    assert curve.ks == (1, 3, 10, 30)
    assert curve.choose(30, 0.9, 1000, 1.0, 0.0) is not None
    assert curve.choose(31, 0.9, 1000, 1.0, 0.0) is None


def test_a_fixed_number_of_lists_has_the_recall_of_its_ranks():
    curve, _, _ = measured(hard=False)
    for width in (1, 5, 20, 50):
        expected = 1 - 0.8**width if width < 50 else 1.0
        assert abs(curve.at_width(10, width) - expected) < 0.03


def test_a_curve_is_made_again_of_its_state_and_damage_is_refused():
    curve, _, _ = measured(kept=(0.9, 1.0))
    arrays, values = curve.state()
    again = Probing.from_state(arrays, values)
    assert again.choose(10, 0.9, 1000, 0.5, 1.0) == curve.choose(10, 0.9, 1000, 0.5, 1.0)
    for name, change in (
        ("probing_reaches", lambda a: a[::-1]), ("probing_reaches", lambda a: a[:-1]),
        ("probing_mean", lambda a: a * np.nan),
        ("probing_widths", lambda a: a * 0), ("probing_kept", lambda a: a[:1]),
        ("probing_least", lambda a: a[:1]), ("probing_fixed", lambda a: a.T),
        ("probing_error", lambda a: a.astype(np.float64)), ("probing_depths", lambda a: a * 0),
    ):  # fmt: skip
        with pytest.raises(FormatError, match="damaged"):
            Probing.from_state({**arrays, name: np.ascontiguousarray(change(arrays[name]))}, values)
    for wrong in ({"ks": []}, {"ks": [3, 1]}, {"ks": "many"}, {}):
        with pytest.raises(FormatError, match="damaged"):
            Probing.from_state(arrays, {"source": "", "n_queries": 1, **wrong})
