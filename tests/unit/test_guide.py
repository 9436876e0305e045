"""Many lists: a graph over their centers finds those near to a query."""

import re

import numpy as np
import pytest

import nearly
from nearly import storage
from nearly.errors import FormatError
from nearly.indexes import guide, lists
from nearly.kmeans import assign, balanced
from nearly.quantizers import Plain, RaBitQ, Scalar

N, DIM, LISTS = 12_000, 24, 400


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch):
    for module in (guide, lists):
        monkeypatch.setattr(module, "GUIDED", 200)
    monkeypatch.setattr(guide, "ASSIGNED", 100)
    monkeypatch.setattr(guide, "_SHARE", 2)


def points(n, seed=0):
    rng = np.random.default_rng(seed)
    axes = np.random.default_rng(7).standard_normal((6, DIM))
    return (rng.standard_normal((n, 6)) @ axes + 0.05 * rng.standard_normal((n, DIM))).astype(np.float32)


X, Q = points(N), points(200, 1)


def recall(index, hits, queries=Q):
    exact = index.search(queries, 10, exact=True)
    return float((hits.distances <= exact.distances[:, 9:10] + 1e-6).mean())


CASES = [
    ("l2", {}),
    ("l2", {"quantizer": Plain()}),
    ("l2", {"quantizer": RaBitQ(bits=8)}),
    ("cosine", {}),
    ("cosine", {"quantizer": Scalar(bits=8), "spill": "soar"}),
    ("ip", {}),
    ("l2", {"coarse": nearly.Pca(8)}),
    ("cosine", {"coarse": nearly.Pca(8), "spill": "closure"}),
    ("ip", {"coarse": nearly.Pca(8)}),
]


@pytest.mark.parametrize(("metric", "options"), CASES, ids=str)
def test_lists_that_a_graph_finds_keep_the_recall(metric, options, tmp_path):
    index = nearly.IVF(X, metric=metric, lists=LISTS, seed=3, **options)
    for target in (0.8, 0.9, 0.95):
        hits = index.search(Q, 10, recall=target)
        assert "found by a graph over centers" in hits.plan
        assert recall(index, hits) >= target - 0.01
        assert hits.expected_recall >= target
    assert "graph over centers" not in index.search(Q, 10, recall=0.999).plan  # beyond what a walk is sure of
    for k in (1, 40):
        for query in Q[:5]:
            assert len(index.search(query, k, effort=20)) == k
    some = index.search(Q, 10, recall=0.9)
    one_by_one = [index.search(query, 10, recall=0.9).ids.tolist() for query in Q[:20]]
    assert one_by_one == some.ids[:20].tolist()
    index.save(tmp_path / "index")
    again = nearly.load(tmp_path / "index", verify=True)
    found = again.search(Q, 10, recall=0.9)
    assert found.ids.tolist() == some.ids.tolist()
    assert (found.plan, found.stats) == (some.plan, some.stats)
    again.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "index").read_bytes()


def test_fewer_comparisons_than_with_all_centers():
    index = nearly.IVF(X, lists=LISTS, seed=3)
    guided = index.search(Q, 10, effort=4)
    plain = index._lists.centers._replace(guide=None)
    index._lists.centers = plain
    index._contract._known.clear()
    every = index.search(Q, 10, effort=4)
    assert guided.stats.n_distances < every.stats.n_distances
    assert recall(index, guided) >= recall(index, every) - 0.02  # about the same lists


def test_queries_too_short_for_a_direction_are_the_zero_vector():
    index = nearly.IVF(X[:4000], metric="cosine", lists=LISTS, seed=3)
    asked = X[:4].copy()
    asked[1] = 0
    asked[2], asked[3] = asked[1], asked[1]
    asked[2, 0], asked[3, 0] = 1e-39, 1e-30
    hits = index.search(asked, 3, effort=4)
    assert (hits.distances[1:3] == 1).all()
    assert hits.distances[3, 0] < 1


def test_builds_do_not_depend_on_threads(tmp_path):
    for threads in (1, 2, 5):
        nearly.IVF(X[:4000], lists=LISTS, seed=1, threads=threads).save(tmp_path / str(threads))
    files = [(tmp_path / str(threads)).read_bytes() for threads in (1, 2, 5)]
    assert files[0] == files[1] == files[2]


def test_rows_come_and_go():
    index = nearly.IVF(X[:8000], lists=LISTS, seed=3)
    ids = index.add(X[8000:])
    assert recall(index, index.search(Q, 10, recall=0.9)) >= 0.89
    assert (index.search(X[8000:8100], 1, recall=0.95).ids[:, 0] == ids[:100]).mean() >= 0.94
    index.remove(ids[::2])
    index.upsert(points(300, 5), ids=np.arange(300))
    hits = index.search(Q, 10, recall=0.9)
    assert not np.isin(hits.ids, ids[::2]).any()
    assert recall(index, hits) >= 0.89
    index.consolidate()
    assert "graph over centers" in index.search(Q, 10, recall=0.9).plan
    index.verify()


def test_filters_compare_all_centers():
    index = nearly.IVF(X, lists=LISTS, seed=3)
    mask = np.random.default_rng(0).random(N) < 0.3
    hits = index.search(Q, 10, where=mask, recall=0.9)
    assert "graph over centers" not in hits.plan
    exact = index.search(Q, 10, where=mask, exact=True)
    assert (hits.distances <= exact.distances[:, 9:10] + 1e-6).mean() >= 0.89


def test_queries_that_lists_found_do_not_suffice_for_compare_all(monkeypatch):
    index = nearly.IVF(X, lists=LISTS, seed=3)
    how = index._contract.probe(index, 10, 0.9, None)
    rows, exact = index._queries(Q)[0], index.search(Q, 10, recall=0.9)
    few = how._replace(guided=1)  # others are in reach of nearly every query
    hits = index._look(rows, 10, False, few, None, N, 1)
    assert recall(index, hits) >= recall(index, exact) - 0.005
    assert hits.stats.n_distances > len(Q) * LISTS
    many = index.search(Q[:5], 3000, effort=2)  # two lists hold fewer
    assert (many.counts == 3000).all()


def test_of_fewer_lists_only_vectors_are_put_into_them_by_walks(monkeypatch):
    walked = []
    monkeypatch.setattr(guide.Guide, "nearest", lambda *args: walked.append(1) or nearest(*args))
    index = nearly.IVF(X, lists=150, seed=3)
    assert walked
    assert index._lists.centers.guide is None
    assert recall(index, index.search(Q, 10, recall=0.9)) >= 0.89


nearest = guide.Guide.nearest


def test_centers_that_walks_find_are_about_as_near(monkeypatch):
    walked = []
    monkeypatch.setattr(guide.Guide, "near", lambda *args: walked.append(len(args[1])) or near(*args))
    walks = balanced(X, LISTS, seed=3, nearest=guide.walks_for(LISTS, 3, 1))
    assert sum(walked) == 2 * N  # both rounds on all rows
    products = balanced(X, LISTS, seed=3)
    error, best = (float(((X - made[assign(X, made)]) ** 2).sum(axis=1).mean()) for made in (walks, products))
    assert error < 1.005 * best
    assert walks.tobytes() == balanced(X, LISTS, seed=3, nearest=guide.walks_for(LISTS, 3, 3)).tobytes()
    assert guide.walks_for(guide.ASSIGNED - 1, 3, 1) is None


near = guide.Guide.near


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_lists_are_clustered_by_walks(metric, monkeypatch):
    asked = []

    def noted(*args, **named):
        asked.append(named)
        return balanced(*args, **named)

    monkeypatch.setattr(lists.kmeans, "balanced", noted)
    nearly.IVF(X, metric=metric, lists=150, calibrate=False)
    nearly.IVF(X, metric=metric, lists=90, calibrate=False)
    assert [named["nearest"] is not None for named in asked] == [True, False]


def test_estimates_by_effort_tell_what_walks_may_miss():
    index = nearly.IVF(X, lists=LISTS, seed=3)
    guided = index.search(Q, 10, effort=8).expected_recall
    index._lists.centers = index._lists.centers._replace(guide=None)
    index._contract._known.clear()
    assert guided == pytest.approx(guide.RECALL * index.search(Q, 10, effort=8).expected_recall)


def test_small_indexes_and_other_metrics_have_none():
    assert nearly.IVF(X[:500], lists=50)._lists.centers.guide is None
    assert nearly.IVF(X[:2000], lists=LISTS, metric="l1")._lists.centers.guide is None
    bits = np.random.default_rng(0).integers(0, 256, (2000, 8), dtype=np.uint8)
    assert nearly.IVF(bits, lists=300, metric="hamming")._lists.centers.guide is None


def test_bytes_of_the_guide_count():
    index = nearly.IVF(X, lists=LISTS, seed=3)
    assert index.n_bytes > index._lists.centers.guide.n_bytes > LISTS * DIM * 4


@pytest.mark.parametrize("wrong", ["dim", "rows", "metric", "list", "missing", "config"])
def test_damaged_guides_are_refused(tmp_path, wrong):
    path = tmp_path / "index"
    nearly.IVF(X[:4000], lists=LISTS, seed=3).save(path)
    file = storage.read(path)
    arrays, config = {name: np.array(a) for name, a in file.arrays.items()}, dict(file.config)
    if wrong == "missing":
        del arrays["guide_lists_0"]
    elif wrong == "config":
        config["guide"] = 5
    elif wrong == "list":
        arrays["guide_lists_0"].view(np.uint32)[3, 0] = 1 << 30
    else:
        other = nearly.IVF(
            {"dim": points(4000)[:, :10], "rows": X[:4000], "metric": X[:4000]}[wrong], seed=3,
            lists=LISTS + (wrong == "rows"), metric="ip" if wrong == "metric" else "l2",
        )  # fmt: skip
        parts, about = guide.guide_state(other._lists.centers.guide)
        arrays = {name: a for name, a in arrays.items() if not name.startswith("guide_")} | parts
        config["guide"] = about
    storage.write(path, arrays, config, kind=file.kind)
    with pytest.raises(FormatError, match=re.escape(str(path))):
        nearly.load(path)
