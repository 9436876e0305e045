"""What finalists take turns at, and the ratios that come of it, on made-up passes."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import finalists
import measure
from finalists import Finalist, Pass


def finalist(label, *trials, asks=False):
    return Finalist(label, None, [], asks, trials=list(trials))


def one_round(**speeds):
    """QPS by name and trial, at recalls 0.9 and 0.99; processor time is half of it."""
    return {
        name: {i: Pass(recall, qps, 2 * qps) for i, (recall, qps) in enumerate(zip((0.9, 0.99), of, strict=True))}
        for name, of in speeds.items()
    }


def test_a_ratio_is_formed_within_a_round():
    rounds = [one_round(a=(100, 10), b=(50, 5)), one_round(a=(10, 1), b=(5, 0.25)), one_round(a=(9, 9), b=(3, 3))]

    at_90, at_99 = finalists.ratio(rounds, "a", "b", 0.90), finalists.ratio(rounds, "a", "b", 0.99)

    assert (at_90["ratio"], at_90["q25"], at_90["q75"]) == (2.0, 2.0, 2.5)
    assert (at_90["qps_a"], at_90["qps_b"]) == (10, 5)
    assert (at_99["ratio"], at_99["cpu_ratio"]) == pytest.approx((3.0, 3.0))
    assert at_90["qps_cpu_a"] == 20


def test_a_recall_that_one_side_does_not_reach_has_no_ratio():
    rounds = [one_round(a=(100, 10), b=(50, 5))]
    del rounds[0]["b"][1]
    assert finalists.ratio(rounds, "a", "b", 0.95) == {"reached": {"a": True, "b": False}}
    assert finalists.ratio(rounds, "b", "a", 0.95) == {"reached": {"b": False, "a": True}}


def test_what_was_asked_for_is_compared_at_the_recall_that_was_delivered():
    rounds = [{"a": {0: Pass(0.93, 70, 70), 1: Pass(0.97, 40, 40)}, "b": {4: Pass(0.9, 100, 1), 6: Pass(0.99, 10, 1)}}]
    halfway = measure.qps_at([(0.9, 100), (0.99, 10)], 0.97)
    found = finalists.ratio(rounds, "a", "b", 0.97, trial=1)
    assert found["qps_a"] == 40  # the very pass, not a point between two
    assert found["ratio"] == pytest.approx(40 / halfway)


def test_efforts_beside_targets_and_beside_delivered_recalls_take_turns():
    curve = [(r, 10 - i, [i]) for i, r in enumerate((0.5, 0.7, 0.89, 0.91, 0.96, 0.97, 0.98, 0.985, 0.995))]
    peer = finalist("peer", *curve)
    ours = finalist("nearly", (0.85, 9, [0.8]), (0.975, 8, [0.9]), (0.992, 7, [0.95]), asks=True)

    finalists.choose([peer])
    assert peer.chosen == [2, 3, 4, 7, 8]
    finalists.choose([peer, ours])
    assert peer.chosen == [2, 3, 4, 5, 6, 7, 8]  # 0.975 lies between 5 and 6
    assert ours.chosen == [0, 1, 2]


def test_only_efforts_that_are_recalls_are_asked_for():
    trials = [(0.85, 9, [0.9])]
    assert finalist("nearly", *trials, asks=True).asked(0.90) == 0
    assert finalist("nearly", *trials, asks=True).asked(0.99) is None
    assert finalist("scann", *trials).asked(0.90) is None


def test_a_target_beyond_the_graph_is_named_a_scan():
    ours, peer = finalist("nearly", (0.9, 9, [0.9]), asks=True), finalist("peer", (0.9, 5, [10]), (0.99, 3, [20]))
    finalists.choose([ours, peer])
    rounds = [{"nearly": {0: Pass(0.9, 9, 9)}, "peer": {0: Pass(0.9, 5, 5), 1: Pass(0.99, 3, 3)}}]

    records = [r for r in finalists.results([ours, peer], rounds, "batch") if r["bench"] == "asked"]

    assert [(r["asked"], r["scan"], r.get("ratio")) for r in records] == [
        (0.90, False, 1.8), (0.95, True, None), (0.99, True, None)
    ]  # fmt: skip


def test_ours_are_compared_with_every_peer_and_not_with_one_another():
    built = [finalist(name, (0.995, 9, [1])) for name in ("nearly-a", "scann", "nearly-b", "svs")]
    finalists.choose(built)
    rounds = [{f.label: {0: Pass(0.995, 9, 9)} for f in built}]

    found = {(r["a"], r["b"]) for r in finalists.results(built, rounds, "batch") if r["bench"] == "finalists"}

    assert found == {("nearly-a", "scann"), ("nearly-a", "svs"), ("nearly-b", "scann"), ("nearly-b", "svs")}


def test_a_curve_is_the_median_over_rounds():
    one = finalist("a", (0.95, 1, [2]), (0.9, 1, [1]))
    one.chosen = [0, 1]
    rounds = [{"a": {0: Pass(0.95, qps, 1), 1: Pass(0.9, 10 * qps, 1)}} for qps in (3, 1, 2)]
    assert finalists.curve(one, rounds) == [(0.9, 20), (0.95, 2)]


def test_memory_is_counted_over_input_and_index():
    assert finalists.memory({"peak_bytes": 60}, {"index_bytes": 50}, 40)["peak_over_input_and_index"] == 100 / 90
    unsaved = finalists.memory({"peak_bytes": 60}, {"index_bytes": None, "size_error": "no"}, 40)
    assert unsaved["peak_over_input_and_index"] is None
