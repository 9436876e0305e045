"""The demonstration: its text, its embedding, its page; run whole on the first paragraphs, and on files."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import nearly
from nearly import evaluate
from nearly.cli import corpus, main, measure
from nearly.cli.chart import chart
from nearly.cli.measure import Measured
from nearly.cli.words import Words, count

LIMIT = 800
QUESTION = "remove the first occurrence of a value"


@pytest.fixture(autouse=True)
def _short_passes(monkeypatch):
    monkeypatch.setattr(measure, "_SECONDS", 1e-4)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demonstration on a few paragraphs: its folder, and what --json printed."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("demo") / "out"
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(measure, "_SECONDS", 1e-4)
        assert (
            main(
                ["demo", "--limit", str(LIMIT), "--index", "vamana", "--out", str(folder), "--ask", QUESTION, "--json"]
            )
            == 0
        )
    return folder, json.loads(printed.getvalue())


def test_the_documentation_is_searched_in_words(demo):
    _, report = demo
    first = report["asked"][0]
    assert first["question"] == QUESTION
    assert any(answer["name"] in ("list.remove", "bytearray.remove") for answer in first["answers"][:3])
    for one in report["asked"]:
        near = [answer["near"] for answer in one["answers"]]
        assert near == sorted(near, reverse=True)
        assert len({answer["name"] for answer in one["answers"]}) == 4


def test_recall_is_asked_and_delivered_beside_exact_search(demo):
    _, report = demo
    *targets, exact = report["rows"]
    assert [row["recall"] for row in targets] == [0.8, 0.9, 0.95, 0.99]
    for row in targets:
        assert row["delivered"] >= row["recall"] - 0.05  # 80 queries
        assert row["batch_queries_per_second"] > 0
        assert row["single_queries_per_second"] > 0
    assert (exact["delivered"], exact["exact"]) == (1.0, True)
    assert [row["effort"] for row in report["sweep"]] == list(measure.EFFORTS[: len(report["sweep"])])
    assert (report["n_vectors"], report["n_queries"]) == (LIMIT, LIMIT // 10)
    assert set(report["seconds"]) == {"read", "embed", "build", "measure"}


def test_the_index_that_is_left_holds_everything(demo):
    folder, report = demo
    index = nearly.load(folder / "index.nearly", verify=True)
    assert str(folder / "index.nearly") == report["index_path"]
    assert index.ids.tolist() == list(range(LIMIT))
    assert (index.metric, index.dim) == ("cosine", report["dim"])


class _Tags(HTMLParser):
    """Open elements must be closed in order, and nothing may come from elsewhere."""

    VOID = ("meta", "path", "rect", "circle", "polyline")

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        assert not {"src", "href", "onload"} & {name for name, _ in attributes}
        self.seen.append(tag)
        self.open.append(tag)
        if tag in ("meta", "!doctype"):
            self.open.pop()

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone(demo):
    folder, report = demo
    text = (folder / "report.html").read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    assert not {"script", "link", "img", "iframe"} & set(tags.seen)
    assert "http" not in re.sub(r"<code>.*?</code>|<span class=\"text\">.*?</span>", "", text)
    assert tags.seen.count("circle") == len(report["sweep"]) + 4
    assert f"{report['rows'][2]['delivered']:.3f}" in text
    for one in report["asked"]:
        assert one["question"] in text
        assert one["answers"][0]["name"] in text


def test_the_same_seed_gives_the_same_answers(demo, tmp_path, capsys):
    folder, report = demo
    assert (
        main(["demo", "--limit", str(LIMIT), "--index", "vamana", "--out", str(tmp_path), "--ask", QUESTION, "--json"])
        == 0
    )
    again = json.loads(capsys.readouterr().out)
    assert again["asked"] == report["asked"]
    assert [row["delivered"] for row in again["sweep"]] == [row["delivered"] for row in report["sweep"]]
    assert (tmp_path / "index.nearly").read_bytes() == (folder / "index.nearly").read_bytes()


def test_a_file_of_vectors_is_shown_the_same_way(rng, tmp_path, capsys):
    vectors = rng.standard_normal((600, 8), dtype=np.float32)
    np.save(tmp_path / "mine & yours.npy", vectors)

    assert (
        main(["demo", "--data", str(tmp_path / "mine & yours.npy"), "--out", str(tmp_path / "out"), "--metric", "ip"])
        == 0
    )

    out = capsys.readouterr().out
    index = nearly.load(tmp_path / "out" / "index.nearly")
    np.testing.assert_array_equal(index.get(np.arange(600)), vectors)  # an id is a row of the file
    assert (type(index).__name__, index.metric) == ("Flat", "ip")  # so few are scanned
    assert "60 queries (rows held out of the index)" in out
    assert re.search(r"^  exact +1\.000 +1\.000", out, re.MULTILINE)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "mine &amp; yours.npy" in page
    assert "<svg" not in page
    for row in re.findall(r"row (\d+) of the file", out):
        assert 0 <= int(row) < 600


def test_a_data_set_brings_its_queries(rng, tmp_path, capsys):
    pytest.importorskip("h5py")
    vectors = rng.standard_normal((330, 8), dtype=np.float32)
    data = evaluate.Dataset.compute("toy", vectors[:300], vectors[300:], metric="cosine", k=10)
    evaluate.write_dataset(tmp_path / "toy.hdf5", data)

    assert main(["demo", "--data", str(tmp_path / "toy.hdf5"), "--out", str(tmp_path / "out"), "--json"]) == 0

    report = json.loads(capsys.readouterr().out)
    assert (report["n_vectors"], report["n_queries"], report["metric"]) == (300, 30, "cosine")
    assert report["queries"] == "the test set of the file"


@pytest.mark.parametrize(
    ("options", "status", "part"),
    [
        (["--metric", "l2"], 2, "--data"),
        (["--queries", "q.npy"], 2, "--data"),
        (["--data", "few.npy", "--ask", "why"], 2, "--ask"),
        (["--out", "few.npy"], 2, "a file"),
        (["--data", "few.npy"], 1, "at least 100"),
        (["--limit", "50"], 1, "--data FILE"),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path, monkeypatch, capsys, options, status, part):
    monkeypatch.chdir(tmp_path)
    np.save("few.npy", np.eye(5))
    assert main(["demo", *options]) == status
    assert part in capsys.readouterr().err
    assert not (tmp_path / "nearly-demo").exists()


# -- text ------------------------------------------------------------------------------------------------------------


def test_paragraphs_are_distinct_and_come_in_one_order():
    found = corpus.paragraphs(800)
    assert len(set(found)) == len({(one.name, one.text) for one in found}) == 800
    assert corpus.paragraphs(300) == found[:300]
    assert all(len(re.findall("[a-z]{2,}", one.text)) >= 4 and "\n" not in one.text for one in found)
    assert not any(part.startswith("_") for one in found for part in one.name.split(".")[-1:])


def test_modules_in_python_are_read_and_not_run(tmp_path):
    (tmp_path / "_inner").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "a.py").write_text('def f():\n    """Left out, as all tests are."""\n')
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "_inner" / "b.py").write_text(
        'raise SystemExit("run")\nclass Box:\n    """Holds things of any kind.\n\n    And gives them back."""\n'
        '    def open(self):\n        """Open the box if it is shut."""\n'
        '    def _hidden(self):\n        """Nobody sees this."""\n'
    )

    found = list(corpus._written(tmp_path, "pack."))

    assert [name for name, _ in found] == ["pack.b.Box", "pack.b.Box.open"]
    parts = [tuple(one) for name, text in found for one in corpus._split(name, text)]
    assert parts == [
        ("pack.b.Box", "Holds things of any kind.", True),
        ("pack.b.Box", "And gives them back.", False),
        ("pack.b.Box.open", "Open the box if it is shut.", True),
    ]


@pytest.mark.soak
def test_every_installation_has_ten_thousand_paragraphs():
    found = corpus.paragraphs()
    names = {one.name for one in found}
    assert len(found) > 10_000
    assert {"shutil.copytree", "list.sort", "numpy.linalg.solve", "help('with')", "math.sqrt", "numpy.median"} <= names


def test_words_that_share_letters_are_near():
    texts = [
        "compress a block of data",
        "open a window",
        "send a message",
        "square root of a number",
        "data in a table",
    ]
    words = Words([count((text, 1.0)) for text in texts], dim=5)
    np.testing.assert_allclose(np.linalg.norm(words.vectors, axis=1), 1, rtol=1e-5)
    for question, best in {"compressing": 0, "windows": 1, "the roots": 3, "messages": 2}.items():
        assert int(np.argmax(words.vectors @ words.embed(question))) == best
    again = Words([count((text, 1.0)) for text in texts], dim=5)
    np.testing.assert_array_equal(again.vectors, words.vectors)
    assert not np.array_equal(Words([count((text, 1.0)) for text in texts], dim=5, seed=1).vectors, words.vectors)
    assert words.embed("").tolist() == [0.0] * 5


def test_a_text_is_embedded_as_it_was_when_fitted():
    texts = [f"word{i} shares nothing{i} with other{i}" for i in range(30)]
    words = Words([count((text, 1.0)) for text in texts], dim=64)
    for i, text in enumerate(texts[:5]):
        np.testing.assert_allclose(words.embed(text), words.vectors[i], atol=1e-5)


# -- the chart -------------------------------------------------------------------------------------------------------


def measured(name, settings, recall, rate):
    return Measured(name, settings, recall, recall, None, rate, None, "")


def test_the_chart_puts_more_recall_to_the_right_and_more_speed_higher():
    sweep = [
        measured(f"effort {e}", {"effort": e}, r, q) for e, r, q in ((10, 0.7, 9000), (20, 0.9, 5000), (40, 1.0, 900))
    ]
    rows = [measured("recall 0.9", {"recall": 0.9}, 0.92, 4000), measured("exact", {"exact": True}, 1.0, 300)]

    svg = chart(sweep, rows)

    dots = [(float(x), float(y)) for x, y in re.findall(r'class="dot" cx="([\d.]+)" cy="([\d.]+)"', svg)]
    (ring,) = re.findall(r'class="target" cx="([\d.]+)" cy="([\d.]+)"', svg)
    assert [x for x, _ in dots] == sorted(x for x, _ in dots)
    assert [y for _, y in dots] == sorted(y for _, y in dots)
    assert dots[1][0] < float(ring[0]) < dots[2][0]
    assert dots[1][1] < float(ring[1]) < dots[2][1]
    assert all(0 < x < 760 and 0 < y < 400 for x, y in dots)
    assert "asked 0.9" in svg
