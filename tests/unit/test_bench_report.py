"""Tables and the chart from records, and that the pages show what the committed records say."""

import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import bench_all
import chart
import report
import tables

ROOT = Path(__file__).resolve().parents[2]
FACTS = {
    "data": {"name": "toy", "n": 9, "dim": 2, "metric": "l2", "n_queries": 3, "k": 10},
    "machine": {"cpu": "abacus", "cpus": 1, "simd": [], "system": "desk", "python": "3"},
}


def pair(a, b, recall, ratio, *, mode="batch", **more):
    found = {"bench": "finalists", "mode": mode, "recall": recall, "a": a, "b": b, "rounds": 5, **FACTS}
    if isinstance(ratio, dict):
        return {**found, "reached": ratio, **more}
    return {
        **found,
        "ratio": ratio,
        "q25": ratio - 0.1,
        "q75": ratio + 0.1,
        "qps_a": ratio * 1000,
        "qps_b": 1000.0,
        **more,
    }


def rows(text):
    """The cells of a table's body."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_finalists_are_one_row_a_pair_and_one_against_the_best():
    records = [
        pair("nearly-x", "scann", 0.90, 2.0),
        pair("nearly-x", "svs", 0.90, 1.2),
        pair("nearly-x", "scann", 0.95, {"nearly-x": True, "scann": False}),
        pair("nearly-x", "svs", 0.95, 1.5),
        pair("nearly-x", "scann", 0.99, {"nearly-x": True, "scann": False}),
        pair("nearly-x", "svs", 0.99, {"nearly-x": False, "svs": True}),
        pair("nearly-x", "svs", 0.90, 1.25),  # measured again: the newest counts
    ]
    assert rows(tables.finalists(records)) == [
        ["toy", "batch", "nearly-x", "scann", "**2.00** 1.90–2.10", "only nearly", "only nearly"],
        ["toy", "batch", "nearly-x", "svs", "**1.25** 1.15–1.35", "**1.50** 1.40–1.60", "–"],
        ["toy", "batch", "nearly-x", "the best of them", "**1.25** 1.15–1.35", "**1.50** 1.40–1.60", "–"],
    ]


def test_the_summary_takes_our_best_against_the_best_peer_and_names_both():
    records = [
        pair("nearly-x", "scann", 0.90, 2.0),
        pair("nearly-x", "svs", 0.90, 0.8),
        pair("nearly-y", "scann", 0.90, 1.1),
        pair("nearly-y", "svs", 0.90, 0.9),
        pair("nearly-y", "svs", 0.90, 3.0, mode="single"),
    ]
    batch, single = rows(tables.summary(records))
    assert batch == ["toy", "batch", "**0.90** 0.80–1.00 (y / svs)", "–", "–"]
    assert single[:3] == ["toy", "single", "**3.00** 2.90–3.10 (y / svs)"]


def test_what_was_asked_for_stands_with_what_was_delivered():
    about = {"bench": "asked", "mode": "single", "a": "nearly-x", "b": "svs", **FACTS}
    records = [
        {**about, "asked": 0.90, "recall": 0.9341, "scan": False, "ratio": 1.5, "q25": 1.4, "q75": 1.6},
        {**about, "asked": 0.95, "recall": 0.997, "scan": False, "reached": {"nearly-x": True, "svs": False}},
        {**about, "asked": 0.99, "scan": True},
    ]
    assert rows(tables.asked(records)) == [
        ["toy", "single", "nearly-x", "svs", "0.934: **1.50** 1.40–1.60", "0.997: only nearly", "a scan"]
    ]


def test_builds_compare_our_seconds_with_each_peer_and_name_who_failed():
    about = {"bench": "builds", "build_cpu_seconds": 9.0, "peak_bytes": 3 << 20, **FACTS}
    records = [
        {**about, "peer": "nearly-x", "build_seconds": 3.0, "index_bytes": 2 << 20, "peak_over_input_and_index": 1.256},
        {**about, "peer": "svs", "build_seconds": 6.0, "index_bytes": None, "peak_over_input_and_index": None},
        {**about, "peer": "exact", "build_seconds": 0.0, "index_bytes": 1 << 20, "peak_over_input_and_index": 1.0},
        {"bench": "builds", "peer": "ngt", "error": "no wheel", **FACTS},
    ]
    text = tables.builds(records)
    assert rows(text) == [
        ["toy", "nearly-x", "3.0", "9.0", "1.26", "3", "2", ""],
        ["toy", "svs", "6.0", "9.0", "–", "3", "–", "0.50"],
        ["toy", "exact", "0.0", "9.0", "1.00", "3", "1", ""],
    ]
    assert text.endswith("Not measured: ngt (no wheel).")


def test_a_delivered_recall_says_what_is_wrong_with_it():
    about = {"bench": "contract", "index": "Vamana", "calibration": "own", "least": 0.7, "scan": False, **FACTS}
    verdicts = [
        {"target": 0.8, "delivered": 0.86, "holds": True, "tight": False},
        {"target": 0.9, "delivered": 0.88, "holds": False, "tight": True},
        {"target": 0.95, "delivered": 0.955, "holds": True, "tight": True},
        {"target": 0.99, "delivered": 1.0, "holds": True, "tight": True, "scan": True},
    ]
    (row,) = rows(tables.contract([{**about, **verdict} for verdict in verdicts]))
    assert row == ["toy", "Vamana", "itself", "0.700", "0.860 over", "0.880 **short**", "0.955", "1.000 (scan)"]


def test_exact_batches_and_overhead_have_their_tables():
    flat = {
        **{"bench": "flat", "mode": "all", "b": "faiss-flat", "ratio": 1.25, "q25": 1.2, "q75": 1.3, **FACTS},
        **{"cpu_ratio": 2.0, "cpu_q25": 2.0, "cpu_q75": 2.0, "cpu_seconds_a": 0.5, "cpu_seconds_b": 1.0},
    }
    assert rows(tables.flat([flat])) == [
        ["toy", "all threads", "faiss-flat", "**1.25** 1.20–1.30", "**2.00** 2.00–2.00", "0.500", "1.000"]
    ]
    overhead = [
        {"bench": "overhead", "part": "call", "call": "HNSW", "overhead_microseconds": 2.34, "alone_microseconds": 4.0},
        {"bench": "overhead", "part": "import", "milliseconds": 61.2, "cpu_milliseconds": 58.0, "loaded": []},
        {
            "bench": "overhead",
            "part": "load",
            "cache": "cold",
            "milliseconds": 9.87,
            "first_search_milliseconds": 1.0,
            **FACTS,
        },
    ]
    assert rows(tables.overhead(overhead)) == [
        ["search(q): HNSW", "2.3 µs; 4.0 µs on one vector"],
        ["import, after numpy", "61 ms, 58 of CPU time; loads none of what it must not load"],
        ["load of 9 vectors, page cache cold", "9.9 ms; first search 1.0 ms"],
    ]


def test_a_page_keeps_all_but_what_is_between_the_marks():
    page = "before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n"
    once = report.insert(page, "new\n")
    assert once == "before\n<!-- figures -->\n\nnew\n\n<!-- end of figures -->\nafter\n"
    assert report.insert(once, "new\n") == once
    with pytest.raises(SystemExit, match="figures"):
        report.insert("a page without marks", "new")


# ---------------------------------------------------------------- the chart


CURVES = {
    "nearly-x": [(0.9, 1000.0), (0.99, 100.0)],
    "nearly-y": [(0.95, 900.0)],
    "scann": [(0.9, 800.0), (0.97, 90.0)],
    "svs-f16": [(0.9, 700.0), (0.96, 80.0)],
    "kannolo": [(0.91, 10.0)],
}


def test_a_line_is_the_frontier_of_all_configurations_of_a_library():
    lines = chart.libraries({**CURVES, "rabitqlib-symqg0-l2": [(0.9, 5.0)], "rabitqlib-ivf4": [(0.9, 4.0)]})
    assert lines["nearly"] == [(0.9, 1000.0), (0.95, 900.0), (0.99, 100.0)]
    assert {"SymphonyQG", "RaBitQ", "ScaNN", "SVS", "kANNolo"} <= set(lines)


def test_ours_and_the_fastest_at_95_are_drawn():
    assert list(chart.strongest(chart.libraries(CURVES), 2)) == ["nearly", "ScaNN", "SVS"]
    assert list(chart.strongest({"slow": [(0.9, 1.0)], "slower": [(0.8, 9.0)]}, 1)) == ["slow"]


def drawn(panels):
    root = ET.fromstring(chart.draw(panels, note="3 < 4 queries"))
    name = "{http://www.w3.org/2000/svg}"
    return root, name


@pytest.mark.parametrize("n_panels", [1, 2, 5])
def test_every_panel_has_its_lines_inside_the_picture(n_panels):
    root, svg = drawn({f"set {i} & more": CURVES for i in range(n_panels)})

    texts = [text.text for text in root.iter(f"{svg}text")]
    assert [text for text in texts if text and text.startswith("set")] == [f"set {i} & more" for i in range(n_panels)]
    assert {"nearly", "ScaNN", "SVS", "3 < 4 queries"} <= set(texts)
    lines = [line for line in root.iter(f"{svg}polyline")]
    assert len(lines) == 4 * n_panels  # ours and three peers
    width, height = float(root.get("width")), float(root.get("height"))
    for x, y in (map(float, at.split(",")) for line in lines for at in line.get("points").split()):
        assert 0 < x < width
        assert 0 < y < height


def test_higher_is_faster_and_further_right_is_a_higher_recall():
    box = chart.Box(10, 20, 100, 50, low=2, high=4)
    assert (box.y(10_000), box.y(100)) == (20, 70)
    assert box.x(chart.LEAST) == 10
    assert box.x(chart.BEST) == pytest.approx(110)
    assert box.x(0.99) - box.x(0.9) == pytest.approx(box.x(0.991) - box.x(0.91))


def test_dark_and_light_pages_have_the_same_rules():
    text = chart.draw({"toy": CURVES}, note="")
    light, dark = re.search(r"\n(.*?)\n@media\(prefers-color-scheme:dark\){(.*)}</style>", text).groups()
    names = [re.findall(r"([^{}]+){", rules) for rules in (light, dark)]
    assert names[0] == names[1]
    assert ".s0" in names[0]
    assert light != dark


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(2.9, 5.1, [1000, 2000, 5000, 10000, 20000, 50000, 100000]), (4.1, 4.8, [15000, 20000, 30000, 40000, 50000])],
)
def test_ticks_are_round_and_at_least_three(low, high, expected):
    assert chart.ticks(low, high) == expected
    assert [chart.short(rate) for rate in (1500, 20000, 500)] == ["1.5k", "20k", "500"]


def test_turns_are_drawn_where_recorded_and_speeds_at_targets_where_not():
    about = {"bench": "curve", "mode": "batch", "rounds": 5, **FACTS}
    older = [
        {**pair("nearly-x", "svs", recall, 2.0), "data": {**FACTS["data"], "name": "old"}} for recall in (0.9, 0.95)
    ]
    records = [
        {**about, "peer": "svs", "points": [[0.91, 7.0], [0.96, 5.0]]},
        {**about, "peer": "svs", "mode": "single", "points": [[0.91, 1.0]]},
        pair("nearly-x", "svs", 0.9, 2.0),
        *older,
    ]
    assert tables.finalist_panels(records, "batch") == {
        "toy": {"svs": [(0.91, 7.0), (0.96, 5.0)]},
        "old": {"nearly-x": [(0.9, 2000.0), (0.95, 2000.0)], "svs": [(0.9, 1000.0), (0.95, 1000.0)]},
    }


# ---------------------------------------------------------------- the pages

TABLES = ("benchmarks/baselines/tables.md", "benchmarks/baselines/avx512/tables.md")
PAGES = ("benchmarks/README.md", *TABLES, "docs/pareto.svg", "docs/quantizers.md", "docs/codes.svg")


@pytest.mark.skipif(not (ROOT / "benchmarks" / "baselines").exists(), reason="the records are not in this archive")
def test_the_pages_show_what_the_committed_records_say(tmp_path):
    """If this fails: python benchmarks/bench_all.py --pages"""
    for name in PAGES:
        copy = tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((ROOT / name).read_text())
    for path in (ROOT / "benchmarks" / "baselines").rglob("*.jsonl"):
        (tmp_path / path.relative_to(ROOT)).write_text(path.read_text())

    for written in bench_all.pages(tmp_path):
        report.main(written)

    for name in PAGES:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), f"{name} is stale"


def test_everything_that_is_quoted_can_be_measured_anew(tmp_path):
    given = bench_all.argparse.Namespace(only=bench_all.PARTS, data=["synthetic"], rounds=1, limit=700, out=None)
    found = bench_all.commands(given)
    assert list(found) == ["finalists-synthetic", *bench_all.PARTS[1:]]
    for command in found.values():
        assert (ROOT / "benchmarks" / f"bench_{command[0]}.py").exists()

    assert bench_all.run(["flat", "--data", "synthetic", "--limit", "700", "--rounds", "1", "--queries", "20",
                          "--against", "exact"], tmp_path / "flat.jsonl")  # fmt: skip
    assert json.loads((tmp_path / "flat.jsonl").read_text().splitlines()[0])["bench"] == "flat"


def test_a_run_that_fails_leaves_the_old_file(tmp_path):
    (tmp_path / "flat.jsonl").write_text("old")
    assert not bench_all.run(["flat", "--data", "no-such-set"], tmp_path / "flat.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["flat.jsonl"]
    assert (tmp_path / "flat.jsonl").read_text() == "old"
