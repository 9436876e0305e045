"""The command line: what each command prints and writes, exit codes, and errors in a line or two."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nearly
from nearly import evaluate
from nearly.cli import answers, measure
from nearly.cli.inputs import parse_size, parse_vectors

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.fixture(autouse=True)
def _short_passes(monkeypatch):
    monkeypatch.setattr(measure, "_SECONDS", 1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Vectors, queries, their truth, a data set of all three, and an index."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(5)
    centers = rng.standard_normal((20, 12))
    points = (centers[rng.integers(20, size=1560)] + 0.6 * rng.standard_normal((1560, 12))).astype(np.float32)
    base, queries = points[:1500], points[1500:]
    data = evaluate.Dataset.compute("toy", base, queries, metric="l2", k=20)
    np.save(folder / "base.npy", base)
    np.save(folder / "queries.npy", queries)
    evaluate.write(folder / "truth.ivecs", data.truth_ids.astype(np.int32))
    nearly.Vamana(base, degree=12, beam=30).save(folder / "index.nearly")
    return folder


@pytest.fixture(autouse=True)
def _in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


def failed(result, status, *parts):
    """Check an exit code, that nothing was printed, and that a line or two say why."""
    code, out, err = result
    assert (code, out) == (status, "")
    assert len(err.splitlines()) == (1 if status == 1 else 2)
    for part in parts:
        assert part in err


# -- build -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "made"),
    [("auto", "Flat"), ("flat", "Flat"), ("vamana", "Vamana"), ("hnsw", "HNSW"), ("ivf", "IVF")],
)
def test_build_writes_the_index_that_was_asked_for(run_json, tmp_path, kind, made):
    about = run_json("build", "base.npy", tmp_path / "a.nearly", "--index", kind)

    index = nearly.load(tmp_path / "a.nearly")
    assert (about["index"], type(index).__name__) == (made, made)
    assert (
        (about["vectors"], about["dim"], about["metric"]) == (1500, 12, "l2") == (len(index), index.dim, index.metric)
    )
    assert about["file_bytes"] == (tmp_path / "a.nearly").stat().st_size
    assert about["build_seconds"] > 0
    assert "so few" in about["plan"] or kind != "auto"


def test_build_says_what_it_built(run, tmp_path):
    status, out, err = run("build", "base.npy", tmp_path / "a.nearly", "--metric", "cosine")

    assert (status, err) == (0, "")
    assert re.search(r"a\.nearly: 1,500 vectors of dimension 12, cosine, [\d.]+ kB, built in [\d.]+ s\n", out)


def test_build_with_the_same_seed_gives_the_same_bytes(run, tmp_path):
    options = ("--index", "vamana", "--recall", "0.9")
    for name, more in {"a": ("--threads", 1), "b": ("--threads", 2), "c": ("--seed", 1)}.items():
        assert run("build", "base.npy", tmp_path / name, *options, *more)[0] == 0

    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_build_calibrates_on_the_queries_of_a_file(run_json, tmp_path):
    run_json("build", "base.npy", tmp_path / "a.nearly", "--index", "vamana", "--queries", "queries.npy")

    assert nearly.load(tmp_path / "a.nearly").curve.n_queries == 60


def test_build_replaces_an_index_but_no_other_file_unless_forced(run, tmp_path):
    other = tmp_path / "queries.npy"
    other.write_bytes(b"precious")

    failed(run("build", "base.npy", other), 2, "no index", "--force")
    assert other.read_bytes() == b"precious"
    assert run("build", "base.npy", other, "--force")[0] == 0
    assert run("build", "base.npy", other, "--metric", "ip")[0] == 0
    assert nearly.load(other).metric == "ip"


def test_build_reads_the_metric_of_a_data_set(run, run_json, folder, tmp_path):
    pytest.importorskip("h5py")
    bits = np.packbits(np.random.default_rng(0).random((300, 64)) < 0.5, axis=1)
    data = evaluate.Dataset.compute("bits", bits[:280], bits[280:], metric="hamming", k=10)
    evaluate.write_dataset(tmp_path / "bits.hdf5", data)

    about = run_json("build", tmp_path / "bits.hdf5", tmp_path / "a.nearly")
    assert (about["metric"], about["dim"]) == ("hamming", 8)
    measured = run_json("evaluate", tmp_path / "a.nearly", tmp_path / "bits.hdf5", "--truth", tmp_path / "bits.hdf5")
    assert (measured["queries"], measured["rows"][-1]["delivered"]) == (20, 1.0)
    failed(run("build", tmp_path / "bits.hdf5", tmp_path / "b.nearly", "--metric", "cosine"), 1, "hamming")
    assert run_json("build", tmp_path / "bits.hdf5", tmp_path / "c.nearly", "--name", "test")["vectors"] == 20


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--metric", "l3"), "l2"),
        (("--recall", "1.5"), "nearly build: --recall: recall is 1.5, but"),
        (("--recall", "0"), "nearly build: --recall: recall is 0.0, but"),
        (("--index", "tree"), "--index"),
        (("--index", "flat", "--recall", "0.9"), "--recall has no meaning"),
        (("--index", "flat", "--seed", "1"), "--seed has no meaning"),
        (("--index", "hnsw", "--memory-limit", "1GB"), "--memory-limit"),
        (("--memory-limit", "much"), "no size"),
        (("--threads", "0"), "--threads"),
        (("--colour",), "--colour"),
    ],
)
def test_build_refuses_options_that_cannot_be(run, tmp_path, options, part):
    failed(run("build", "base.npy", tmp_path / "a.nearly", *options), 2, part, "see nearly build --help")
    assert not list(tmp_path.iterdir())


def test_build_refuses_a_folder_as_output_before_it_reads(run, tmp_path):
    failed(run("build", "missing.npy", tmp_path), 2, "folder")
    failed(run("build", "missing.npy", tmp_path / "no" / "a.nearly"), 2, "no folder")


def test_build_fails_on_unusable_data(run, tmp_path):
    np.save(tmp_path / "nan.npy", np.array([[1.0, 2.0], [np.nan, 0.0]]))
    (tmp_path / "cut.fvecs").write_bytes(b"\x03\0\0\0\0\0")

    failed(run("build", tmp_path / "nan.npy", tmp_path / "a"), 1, "1")
    failed(run("build", tmp_path / "cut.fvecs", tmp_path / "a"), 1, "cut.fvecs")
    failed(run("build", tmp_path / "missing.npy", tmp_path / "a"), 1, "No such file", "missing.npy")
    failed(run("build", __file__, tmp_path / "a"), 1, ".npy")
    failed(run("build", "base.npy", tmp_path / "a", "--memory-limit", "10kB"), 1, "memory_limit")
    assert not (tmp_path / "a").exists()


# -- search ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"recall": 0.99}, {"effort": 40}, {"exact": True}])
def test_search_answers_as_the_library_does(run_json, folder, options):
    flags = [part for name, value in options.items() for part in (f"--{name}", *([] if value is True else [value]))]
    queries = np.load(folder / "queries.npy")

    answer = run_json("search", "index.nearly", "--queries", "queries.npy", "-k", 5, *flags)

    hits = nearly.load(folder / "index.nearly").search(queries, 5, **options)
    assert [one["ids"] for one in answer["queries"]] == hits.ids.tolist()
    np.testing.assert_allclose([one["distances"] for one in answer["queries"]], hits.distances, rtol=1e-6)
    np.testing.assert_allclose([one["scores"] for one in answer["queries"]], -hits.distances, rtol=1e-6)
    assert (answer["plan"], answer["expected_recall"]) == (hits.plan, hits.expected_recall)


def test_search_prints_a_line_for_each_neighbor_and_the_plan_beside_it(run, folder):
    point = ",".join(str(value) for value in np.load(folder / "base.npy")[7])

    status, out, err = run("search", "index.nearly", "--vector", point, "--vector", point, "-k", 3)

    lines = [line.split() for line in out.splitlines()]
    assert status == 0
    assert lines[0] == ["query", "rank", "id", "distance", "score"]
    assert [line[:2] for line in lines[1:]] == [["0", "0"], ["0", "1"], ["0", "2"], ["1", "0"], ["1", "1"], ["1", "2"]]
    assert lines[1][2:4] == lines[4][2:4] == ["7", "0"]
    assert "2 queries" in err
    assert "calibrated" in err


def test_search_in_parts_prints_the_same(run, run_json, monkeypatch):
    arguments = ("search", "index.nearly", "--queries", "queries.npy", "-k", 7)
    whole, text = run_json(*arguments), run(*arguments)[1]

    sizes = []
    search = nearly.Vamana.search
    monkeypatch.setattr(
        nearly.Vamana, "search", lambda self, q, *a, **o: (sizes.append(len(q)), search(self, q, *a, **o))[1]
    )
    monkeypatch.setattr(answers, "_AT_ONCE", 7 * 25)
    parts, lines = run_json(*arguments), run(*arguments)[1]

    assert sizes == [25, 25, 10] * 2
    assert {**parts, "seconds": 0} == {**whole, "seconds": 0}
    assert [line.split() for line in lines.splitlines()] == [line.split() for line in text.splitlines()]


def test_search_with_fewer_vectors_than_k_prints_what_there_is(run, run_json, tmp_path):
    np.save(tmp_path / "two.npy", np.array([[0, 0], [3, 4]], np.float32))
    run("build", tmp_path / "two.npy", tmp_path / "two.nearly")

    answer = run_json("search", tmp_path / "two.nearly", "--vector", "0 0", "-k", 5)

    assert answer["queries"][0]["ids"][:2] == [0, 1]
    assert answer["queries"][0]["distances"][:2] == [0.0, 5.0]
    assert len(run("search", tmp_path / "two.nearly", "--vector", "0 0", "-k", 5)[1].splitlines()) == 3


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ((), "--queries"),
        (("--vector", "1,2", "--queries", "queries.npy"), "either"),
        (("--vector", "1,two"), "numbers"),
        (("--vector", "1,2"), "a vector has 2 numbers, but those of the index have 12"),
        (("--vector", "nan"), "finite"),
        (("--queries", "queries.npy", "--recall", "0"), "--recall: recall is 0"),
        (("--queries", "queries.npy", "--exact", "--recall", "0.9"), "exclude"),
        (("--vector", "1,2", "--name", "test"), "--name"),
        (("--queries", "queries.npy", "-k", "0"), "-k"),
    ],
)
def test_search_refuses_options_that_cannot_be(run, options, part):
    failed(run("search", "index.nearly", *options), 2, part)


def test_search_fails_where_the_query_or_the_index_does_not_fit(run, tmp_path):
    np.save(tmp_path / "short.npy", np.zeros((3, 2), np.float32))
    failed(run("search", "index.nearly", "--queries", tmp_path / "short.npy"), 1, "12")
    failed(run("search", "base.npy", "--vector", "1,2"), 1, "not a nearly file")
    failed(run("search", "missing.nearly", "--vector", "1,2"), 1, "missing.nearly")
    run("build", "base.npy", tmp_path / "flat.nearly", "--index", "flat")
    failed(run("search", tmp_path / "flat.nearly", "--queries", "queries.npy", "--effort", 9), 2, "Flat")


def test_typed_vectors_of_bits_are_bytes():
    found = parse_vectors(["0, 255"], metric="hamming")
    assert (found.dtype, found.tolist()) == (np.uint8, [[0, 255]])
    with pytest.raises(Exception, match="bytes"):
        parse_vectors(["0, 256"], metric="hamming")


def test_sizes_know_their_units():
    assert [parse_size(text) for text in ("1k", "2 MB", "1GiB", "7", "1.5tb")] == [
        1000,
        2_000_000,
        2**30,
        7,
        1_500_000_000_000,
    ]


# -- info ------------------------------------------------------------------------------------------------------------


def test_info_tells_what_the_index_is(run, run_json, folder):
    index = nearly.load(folder / "index.nearly")

    about = run_json("info", "index.nearly", "--verify")

    assert (about["index"], about["vectors"], about["metric"], about["plan"]) == ("Vamana", 1500, "l2", index.plan)
    assert [row["recall"] for row in about["recall_targets"]] == [0.8, 0.9, 0.95, 0.99]
    largest = [max(row["reaches"]) for row in about["recall_targets"] if row["met"]]
    assert len(largest) >= 3
    assert largest == sorted(largest)
    out = run("info", "index.nearly")[1]
    assert "1,500 vectors of dimension 12" in out
    assert len(re.findall(r"^ +0\.\d+ ", out, re.MULTILINE)) == 4


def test_info_tells_what_lists_promise(run, run_json, folder, tmp_path):
    nearly.IVF(np.load(folder / "base.npy"), seed=0).save(tmp_path / "lists.nearly")
    rows = run_json("info", str(tmp_path / "lists.nearly"))["recall_targets"]
    assert [row["recall"] for row in rows] == [0.8, 0.9, 0.95, 0.99]
    assert all(row["expected"] >= row["recall"] for row in rows)
    assert run("info", str(tmp_path / "lists.nearly"))[0] == 0


def test_info_finds_damage(run, folder, tmp_path):
    whole = (folder / "index.nearly").read_bytes()
    flipped = bytearray(whole)
    at = whole.index(np.load(folder / "base.npy")[3].tobytes())
    flipped[at] ^= 1
    (tmp_path / "flipped.nearly").write_bytes(flipped)
    (tmp_path / "cut.nearly").write_bytes(whole[: len(whole) // 2])

    failed(run("info", tmp_path / "flipped.nearly", "--verify"), 1, "checksum")
    failed(run("info", tmp_path / "cut.nearly"), 1, "cut.nearly")


# -- evaluate and bench ----------------------------------------------------------------------------------------------


def test_evaluate_measures_what_was_asked_beside_exact_search(run_json, folder):
    by_file = run_json("evaluate", "index.nearly", "queries.npy", "--truth", "truth.ivecs", "-k", 10)
    by_search = run_json("evaluate", "index.nearly", "queries.npy", "-k", 10)

    index, queries = nearly.load(folder / "index.nearly"), np.load(folder / "queries.npy")
    truth = evaluate.read(folder / "truth.ivecs")
    assert (by_file["truth"], by_search["truth"]) == ("truth.ivecs", "exact search of 1,500 vectors")
    for row, other, target in zip(by_file["rows"], by_search["rows"], (0.8, 0.9, 0.95, 0.99, None), strict=True):
        assert row["delivered"] == other["delivered"]
        assert row["batch_queries_per_second"] > 0
        assert row["single_queries_per_second"] > 0
        if target is None:
            assert (row["exact"], row["delivered"], row["expected"]) == (True, 1.0, 1.0)
        else:
            hits = index.search(queries, 10, recall=target)
            assert row["recall"] == target
            assert row["delivered"] == pytest.approx(evaluate.recall_at_k(hits.ids, truth[:, :10]))
            assert 0 < row["delivered_lower_bound"] <= row["delivered"]


def test_evaluate_takes_other_recalls_and_prints_a_table(run):
    status, out, _ = run("evaluate", "index.nearly", "queries.npy", "--recall", "0.7", "--recall", "0.97")

    lines = out.splitlines()
    assert status == 0
    assert [line.split()[:2] for line in lines[3:5]] == [["recall", "0.7"], ["recall", "0.97"]]
    assert lines[5].split()[0] == "exact"
    assert lines[5].split()[2] == "1.000"
    assert len(lines) == 6


def test_evaluate_refuses_the_truth_of_something_else(run, folder, tmp_path):
    truth = evaluate.read(folder / "truth.ivecs")
    np.save(tmp_path / "short.npy", truth[:10])
    np.save(tmp_path / "other.npy", truth + 1)
    np.save(tmp_path / "beyond.npy", truth + 1500)
    np.save(tmp_path / "floats.npy", truth.astype(np.float32))

    failed(
        run("evaluate", "index.nearly", "queries.npy", "--truth", tmp_path / "short.npy"), 1, "short.npy", "(10, 20)"
    )
    failed(run("evaluate", "index.nearly", "queries.npy", "--truth", tmp_path / "other.npy"), 1, "is not the truth")
    failed(run("evaluate", "index.nearly", "queries.npy", "--truth", tmp_path / "beyond.npy"), 1, "of other vectors")
    failed(run("evaluate", "index.nearly", "queries.npy", "--truth", tmp_path / "floats.npy"), 1, "integers")
    failed(run("evaluate", "index.nearly", "queries.npy", "--truth-name", "x"), 2, "--truth")


def test_a_truth_names_ids_and_counts_ties(run):
    index = nearly.Flat(np.array([[0.0], [2.0], [-2.0], [9.0]], np.float32), ids=[10, 20, 30, 40])
    queries = np.array([[0.0]], np.float32)

    truth = measure.Truth.by_ids(index, queries, 2, np.array([[10, 30, 20]]), "by hand")

    assert truth.distances.tolist() == [[0.0, 2.0]]
    assert truth.recalls(index.search(queries, 2)).tolist() == [1.0]  # 20 is as near as 30
    assert index.search(queries, 2).ids.tolist() == [[10, 20]]


def test_bench_raises_the_effort_until_nothing_more_is_found(run, run_json):
    with_file = run_json("bench", "index.nearly", "queries.npy", "-k", 5)
    made = run_json("bench", "index.nearly", "-k", 5)

    for measured, n_queries in ((with_file, 60), (made, 500)):
        *sweep, exact = measured["rows"]
        assert measured["queries"] == n_queries
        assert [row["effort"] for row in sweep] == list(measure.EFFORTS[: len(sweep)])
        assert sweep[-1]["delivered"] >= max(row["delivered"] for row in sweep[:-1])
        assert (exact["exact"], exact["delivered"]) == (True, 1.0)
    assert (with_file["queries_made"], made["queries_made"]) == (False, True)
    out = run("bench", "index.nearly", "queries.npy")[1]
    assert "effort 10" in out
    assert "make bench Q=peers" in out
    failed(run("bench", "index.nearly", "queries.npy", "--seed", 1), 2, "--seed")


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine", "l1", "hamming", "jaccard"])
def test_made_queries_are_near_stored_vectors_but_new(rng, metric):
    bits = metric in ("hamming", "jaccard")
    vectors = rng.integers(0, 256, (300, 16), np.uint8) if bits else rng.standard_normal((300, 16), dtype=np.float32)
    index = nearly.Flat(vectors, metric=metric)

    queries = measure.probes(index, 50, seed=3)

    assert (queries.shape, queries.dtype) == ((50, 16), vectors.dtype)
    np.testing.assert_array_equal(queries, measure.probes(index, 50, seed=3))
    assert not np.array_equal(queries, measure.probes(index, 50, seed=4))
    if metric != "ip":  # the nearest under ip is the longest
        own = nearly.Flat(vectors, metric=metric).search(queries, 2)
        assert (own.distances[:, 0] < own.distances[:, 1]).mean() > 0.9
        assert (own.distances[:, 0] > 0).mean() > 0.9


# -- the whole -------------------------------------------------------------------------------------------------------


def test_without_a_command_the_help_is_printed_and_the_exit_code_is_that_of_wrong_usage(run):
    status, out, _ = run()
    assert status == 2
    for command in ("build", "search", "info", "evaluate", "bench", "demo"):
        assert re.search(rf"^  {command} +\w", out, re.MULTILINE)
        assert run(command, "--help")[:1] == (0,)
    failed(run("destroy"), 2, "destroy")


def test_version(run):
    assert run("--version") == (0, f"nearly {nearly.__version__}\n", "")


@pytest.mark.parametrize(
    ("problem", "status", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (MemoryError(), 1, "nearly: out of memory; build --memory-limit takes less\n"),
        (ImportError('pip install "nearly[data]"'), 1, 'nearly: pip install "nearly[data]"\n'),
        (PermissionError(13, "Permission denied", "a.nearly"), 1, "nearly: Permission denied: a.nearly\n"),
        (nearly.StateError("two\nlines"), 1, "nearly: two lines\n"),
    ],
)  # fmt: skip
def test_trouble_is_told_in_a_line(run, monkeypatch, problem, status, said):
    def load(*_, **__):
        raise problem

    monkeypatch.setattr(nearly, "load", load)
    code, out, err = run("info", "index.nearly")
    assert (code, out, err.lstrip("\n")) == (status, "", said)  # older versions of typer end the line with ^C


def test_a_mistake_of_ours_keeps_its_traceback(run, monkeypatch):
    def load(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(nearly, "load", load)
    with pytest.raises(ZeroDivisionError):
        run("info", "index.nearly")


def command(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, **options)


@pytest.mark.parametrize("module", ["nearly", "nearly.cli"])
def test_runs_as_a_module(module):
    done = command("-m", module, "info", "missing.nearly")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "nearly: No such file or directory: missing.nearly\n"


def test_a_reader_that_leaves_early_is_no_trouble(folder):
    script = "import sys; from nearly.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [sys.executable, "-c", script, "search", "index.nearly", "--queries", "queries.npy", "-k", "1000"]
    writer = subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with writer:
        assert "query" in writer.stdout.readline()
        writer.stdout.close()
        assert "Traceback" not in writer.stderr.read()
    assert writer.returncode in (0, 1)


def test_importing_nearly_imports_no_command_line():
    script = (
        "import sys, nearly; print([name for name in ('typer', 'click', 'rich', 'nearly.cli') if name in sys.modules])"
    )
    assert command("-c", script).stdout == "[]\n"


def test_there_are_examples():
    assert {"quickstart", "filters", "streaming"} <= {path.stem for path in EXAMPLES}
