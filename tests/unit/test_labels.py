"""Labels: what filters over them find, the recall of walks within them, and what changes and files leave of them."""

import os
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import nearly
from nearly import F, storage
from nearly.errors import FormatError, InputError
from nearly.filters import Column, Filter, evaluate, parse
from nearly.indexes import label_files, label_walks, labels

N, DIM = 4000, 16
NONE = 0xFFFFFFFF
SIFT = Path(os.environ.get("NEARLY_DATA", "absent")) / "sift_bsds_128_l2.npz"


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    """Small indexes have common labels, too, and are walked though a scan would be as quick."""
    monkeypatch.setattr(labels, "COMMON", 100)
    monkeypatch.setattr(label_walks, "SCAN_FACTOR", 4.0)


@cache
def data():
    """Clustered vectors, and queries of the same kind."""
    rng = np.random.default_rng(5)
    centers = rng.standard_normal((12, DIM)) * 1.2
    made = centers[rng.integers(0, 12, N + 100)] + rng.standard_normal((N + 100, DIM))
    return made[:N].astype(np.float32), made[N:].astype(np.float32)


@cache
def several():
    """A few labels a row, from one that every second row has to rare ones; "near 0" follows the vectors; some: none."""
    rng, vectors = np.random.default_rng(6), data()[0]
    shares = {"half": 0.5, "third": 0.33, "tenth": 0.1, "rare": 0.004, "single": 0.5 / N}
    chosen = {name: rng.random(N) < share for name, share in shares.items()}
    chosen["near 0"] = vectors[:, 0] > np.quantile(vectors[:, 0], 0.7)
    rows = [[name for name, mask in chosen.items() if mask[i]] for i in range(N)]
    return [None if i % 97 == 0 else row for i, row in enumerate(rows)]


@cache
def index():
    before, labels.COMMON = labels.COMMON, 100
    try:
        return nearly.Vamana(data()[0], labels=several(), threads=1)
    finally:
        labels.COMMON = before


def small(n=1500, seed=0, **options):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, 8), dtype=np.float32)
    names = rng.choice(["a", "b", "c", "d"], n, p=[0.5, 0.3, 0.15, 0.05]).tolist()
    return nearly.Vamana(vectors, labels=names, threads=1, **options), vectors, np.array(names)


def oracle(vectors, mask, queries, k):
    """Ids by distance, then by id."""
    rows = np.flatnonzero(mask)
    distances = ((queries[:, None, :].astype(np.float64) - vectors[rows]) ** 2).sum(-1)
    return rows[np.argsort(distances, axis=1, kind="stable")[:, :k]]


def recall(hits, vectors, mask, queries, k=10):
    true = oracle(vectors, mask, queries, k)
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(hits.ids.tolist(), true.tolist(), strict=True)])


def having(*names, rows=None):
    rows = several() if rows is None else rows
    return np.array([row is not None and all(name in row for name in names) for row in rows])


def reached(made, label):
    """Nodes of a common label, and those that a walk within it meets from its entries, by a plain search in breadth."""
    number = made._labels.common.index(label)
    mine = made._labels.nodes_with([number])
    lists = made._lists[0].array().view(np.uint32)
    pending = [int(v) for v in made._labels.starts([number])]
    seen = set(pending)
    while pending:
        for v in lists[pending.pop()].tolist():
            if v != NONE and mine[v] and v not in seen:
                seen.add(v)
                pending.append(v)
    return set(np.flatnonzero(mine).tolist()), seen


# ---------------------------------------------------------------- answers

FILTERS = {
    "one": (F.label.contains("tenth"), having("tenth")),
    "and": (F.label.contains("half") & F.label.contains("third"), having("half", "third")),
    "or": (F.label.contains("tenth") | F.label.contains("third"), having("tenth") | having("third")),
    "rare in or": (F.label.contains("tenth") | F.label.contains("rare"), having("tenth") | having("rare")),
    "and not": (F.label.contains("half") & ~F.label.contains("third"), having("half") & ~having("third")),
    "correlated": (F.label.contains("near 0") & F.label.contains("half"), having("near 0", "half")),
    "not": (~F.label.contains("half"), np.array([row is not None for row in several()]) & ~having("half")),
    "rare": (F.label.contains("rare"), having("rare")),
    "none": (F.label.is_null(), np.array([row is None for row in several()])),
    "some": (F.label.is_not_null(), np.array([row is not None for row in several()])),
}


@pytest.mark.parametrize("name", FILTERS)
def test_exact_answers_are_those_of_an_oracle(name):
    where, mask = FILTERS[name]
    queries = data()[1][:20]
    found = index().search(queries, k=10, where=where, exact=True)
    assert found.ids.tolist() == oracle(data()[0], mask, queries, 10).tolist()


@pytest.mark.parametrize("target", [0.9, 0.95])
@pytest.mark.parametrize("name", FILTERS)
def test_what_is_asked_is_delivered(name, target):
    where, mask = FILTERS[name]
    found = index().search(data()[1], k=10, where=where, recall=target)
    assert mask[found.ids].all()
    assert (found.counts == min(10, mask.sum())).all()
    assert recall(found, data()[0], mask, data()[1]) >= target - 0.01


@pytest.mark.parametrize("name", ["one", "and", "or", "rare in or", "and not", "correlated"])
def test_walks_keep_to_common_labels_and_say_so(name):
    found = index().search(data()[1], k=10, where=FILTERS[name][0], recall=0.9)
    assert found.plan.startswith("walk within "), found.plan
    assert f"{FILTERS[name][1].sum()} of {N} vectors pass" in found.plan
    assert found.expected_recall >= 0.9
    assert found.stats.n_distances < len(data()[1]) * FILTERS[name][1].sum() / 2


def test_a_walk_within_a_label_compares_less_than_any_other_way():
    where, mask = FILTERS["one"]
    within = index().search(data()[1], k=10, where=where, recall=0.95)
    otherwise = index().search(data()[1], k=10, where=mask, recall=0.95)
    assert within.stats.n_distances * 2 < otherwise.stats.n_distances


@pytest.mark.parametrize("where", [
    "list_contains(label, 'tenth')", {"label": {"$contains": "tenth"}}, F.label.contains("tenth"),
    parse("list_contains(label, $name)", {"name": "tenth"}),
])  # fmt: skip
def test_every_spelling_is_the_same_walk(where):
    found = index().search(data()[1], k=5, where=where)
    same = index().search(data()[1], k=5, where=FILTERS["one"][0])
    assert found.plan == same.plan
    assert found.ids.tolist() == same.ids.tolist()


def test_unknown_labels_and_none_find_nothing_and_nothing_is_searched():
    for where in (F.label.contains("nobody has it"), F.label.contains("half") & F.label.contains("nobody has it")):
        found = index().search(data()[1], k=5, where=where)
        assert found.counts.tolist() == [0] * 100
        assert found.stats.n_distances == 0
    made, vectors, _ = small(300)
    assert made.search(vectors[:3], k=4, where=F.label == "e").counts.tolist() == [0, 0, 0]
    assert made.search(vectors[0], k=4, where=F.label.is_in([])).counts == 0


def test_a_width_is_as_good_as_a_target():
    where, mask = FILTERS["one"]
    narrow, wide = (index().search(data()[1], k=10, where=where, effort=effort) for effort in (10, 23))
    assert "effort 23" in wide.plan
    assert narrow.stats.n_hops < wide.stats.n_hops
    assert recall(wide, data()[0], mask, data()[1]) >= max(0.97, recall(narrow, data()[0], mask, data()[1]))


def test_other_filters_go_on_working():
    _, mask = FILTERS["one"]
    ids = np.flatnonzero(mask)
    for where in (mask, ids, Filter.from_mask(mask)):
        found = index().search(data()[1], k=10, where=where)
        assert mask[found.ids].all()
        assert "walk within" not in found.plan
    assert index().search(data()[1], k=10).ids.shape == (100, 10)


def test_each_query_may_have_its_own():
    wheres = [F.label.contains("tenth"), None, FILTERS["and"][0], [1, 2, 3]] * 5
    found = index().search(data()[1][:20], k=3, where=wheres)
    for i, where in enumerate(wheres):
        assert found.ids[i].tolist() == index().search(data()[1][i], k=3, where=where).ids.tolist()
    many = [F.label.contains(("tenth", "half")[i % 2]) for i in range(20)]  # equal ones are searched together
    assert index().search(data()[1][:20], k=3, where=many).plan.startswith("2 filters: ")


def test_radii_keep_to_labels():
    where, mask = FILTERS["and"]
    found = index().range_search(data()[1][0], radius=4.0, where=where)
    inside = np.linalg.norm(data()[0] - data()[1][0], axis=1) <= 4.0
    assert sorted(found.ids.tolist()) == np.flatnonzero(mask & inside).tolist()


def test_a_query_for_a_vector_of_another_label_is_served():
    made, vectors, names = small(3000)
    queries = vectors[names == "a"][:100]
    found = made.search(queries, k=10, where=F.label == "b", recall=0.95)
    assert (names[found.ids] == "b").all()
    assert recall(found, vectors, names == "b", queries) >= 0.94


@pytest.mark.soak
@pytest.mark.skipif(not SIFT.exists(), reason="needs NEARLY_DATA with sift_bsds_128_l2.npz")
@pytest.mark.parametrize("kind", ["zipf", "cells"])
def test_sift_gets_what_was_asked_within_each_label(kind, monkeypatch):
    monkeypatch.setattr(labels, "COMMON", 400)
    with np.load(SIFT) as file:
        vectors, queries = file["base"][:6000], file["queries"][:200].astype(np.float32)
    rng = np.random.default_rng(0)
    if kind == "zipf":
        share = 1 / np.arange(1, 1001)
        chosen = rng.choice(1000, len(vectors), p=share / share.sum())
    else:  # the nearest of some vectors: a query is near few labels and far from most
        centers = vectors[rng.choice(len(vectors), 6, replace=False)].astype(np.float32)
        chosen = ((vectors[:, None, :] - centers) ** 2).sum(-1).argmin(1)
    made = nearly.Vamana(vectors, labels=chosen, threads=2)
    assert made._labels.common
    for target in (0.9, 0.95):
        for label in made._labels.common[:3]:
            mask = chosen == label
            found = made.search(queries, k=10, where=F.label == label, recall=target)
            true = np.sort(((queries[:, None, :] - vectors[mask]) ** 2).sum(-1), axis=1)[:, 9]
            assert ((found.distances**2 <= true[:, None] * 1.0001).mean()) >= target - 0.01, (label, target)
            assert mask[found.ids].all()


# ---------------------------------------------------------------- building


def test_every_node_of_a_common_label_can_be_reached_within_it():
    assert index()._labels.common == ["half", "third", "near 0", "tenth"]
    for label in index()._labels.common:
        mine, seen = reached(index(), label)
        assert mine == seen


def test_sets_of_nodes_are_the_common_labels_of_their_rows():
    made = index()
    nodes, numbers = made._labels._members(np.arange(made._n_nodes, dtype=np.uint32))
    got = [set() for _ in range(made._n_nodes)]
    for node, number in zip(nodes.tolist(), numbers.tolist(), strict=True):
        got[node].add(made._labels.common[number])
    common = set(made._labels.common)
    of_rows = made._store.column("nodes")[:N]
    assert [got[of_rows[i]] for i in range(N)] == [set(row or ()) & common for row in several()]
    assert made._labels.counts().tolist() == [having(label).sum() for label in made._labels.common]


def test_a_node_costs_four_bytes_where_rows_have_one_label():
    made, _, _ = small()
    tables = sum(table.n_bytes for table in made._labels.tables)
    assert tables <= 4 * 1500 + 4 * (4 + 2 + 4 * labels.ENTRIES + 4)


@pytest.mark.soak
def test_the_same_bytes_for_any_number_of_threads(tmp_path):
    files = []
    for threads in (1, 3):
        made = nearly.Vamana(data()[0][:2500], labels=several()[:2500], threads=threads, seed=3)
        made.add(data()[0][2500:2900], labels=several()[2500:2900], threads=threads)
        made.save(tmp_path / str(threads))
        files.append((tmp_path / str(threads)).read_bytes())
    assert files[0] == files[1]


def test_labels_that_say_nothing_leave_lists_as_they_are(tmp_path):
    vectors = data()[0][:1200]
    plain, rare = nearly.Vamana(vectors), nearly.Vamana(vectors, labels=range(1200))
    assert (plain._lists[0].array() == rare._lists[0].array()).all()
    assert rare.search(vectors[7], k=3, where=F.label == 7).ids.tolist() == [7]


def test_equal_vectors_share_a_node_and_keep_their_labels():
    rng = np.random.default_rng(1)
    vectors = np.repeat(rng.standard_normal((1000, 8), dtype=np.float32), 2, axis=0)
    made = nearly.Vamana(vectors, labels=["left", "right"] * 1000)
    for side, name in enumerate(("left", "right")):
        found = made.search(vectors[::40], k=5, where=F.label == name, recall=0.95)
        assert (found.ids % 2 == side).all()
        assert recall(found, vectors, np.arange(2000) % 2 == side, vectors[::40], 5) >= 0.94


# ---------------------------------------------------------------- changes and files


def assert_as_an_oracle_says(made, vectors, names, alive, label, target=0.95):
    mask = alive & (np.array([name == label for name in names]))
    queries = np.random.default_rng(9).standard_normal((60, vectors.shape[1]), dtype=np.float32)
    found = made.search(queries, k=8, where=F.label == label, recall=target)
    assert (found.counts == min(8, mask.sum())).all()
    assert mask[found.ids[:, : min(8, mask.sum())]].all()
    assert not mask.any() or recall(found, vectors, mask, queries, 8) >= target - 0.01


def test_additions_removals_and_replacements_keep_labels(tmp_path):
    made, vectors, names = small(2000)
    rng = np.random.default_rng(2)
    more = rng.standard_normal((600, 8), dtype=np.float32)
    names = np.concatenate([names, np.array(["new"] * 300 + ["a", "b", "e"] * 100)])  # "new" becomes common
    vectors, alive = np.concatenate([vectors, more]), np.ones(2600, bool)
    made.add(more[:40], labels=names[2000:2040].tolist())
    assert "new" not in made._labels.common
    made.add(more[40:], labels=names[2040:].tolist())
    assert "new" in made._labels.common
    for label in ("a", "b", "new", "e"):
        assert_as_an_oracle_says(made, vectors, names, alive, label)
    gone = rng.permutation(2600)[:900]
    made.remove(gone)
    alive[gone] = False
    for label in ("a", "b", "new"):
        assert_as_an_oracle_says(made, vectors, names, alive, label)
    made.consolidate()
    for label in made._labels.common:
        assert_as_an_oracle_says(made, vectors, names, alive, label)
        mine, seen = reached(made, label)
        assert mine == seen
    other = np.flatnonzero(alive)[:400]  # they take freed places
    vectors[other] = rng.standard_normal((400, 8), dtype=np.float32)
    names[other] = "b"
    made.upsert(vectors[other], ids=other, labels=["b"] * 400)
    for label in ("a", "b", "new"):
        assert_as_an_oracle_says(made, vectors, names, alive, label)
    assert made.labels_of(other[:3]) == ["b"] * 3
    made.save(tmp_path / "changed")
    loaded = nearly.load(tmp_path / "changed")
    loaded.verify()
    for label in ("a", "b", "new", "e"):
        assert_as_an_oracle_says(loaded, vectors, names, alive, label)


def test_what_is_upserted_without_labels_has_none():
    made, vectors, names = small(600)
    made.upsert(vectors[:2] + 1, ids=[0, 1])
    assert made.labels_of([0, 1, 2]) == [None, None, names[2]]
    found = made.search(vectors[0], k=600, where=F.label.is_in(["a", "b", "c", "d"]))
    assert sorted(found.ids[: found.counts].tolist()) == list(range(2, 600))
    assert made.add(vectors[:1] + 2).tolist() == [600]
    assert made.labels_of(600) == [None]


def test_a_file_holds_labels_and_their_curve(tmp_path):
    index().save(tmp_path / "labels.nearly")
    loaded = nearly.load(tmp_path / "labels.nearly")
    assert loaded.plan == index().plan
    for where, _ in FILTERS.values():
        ours, theirs = (each.search(data()[1][:30], k=10, where=where) for each in (index(), loaded))
        assert ours.plan == theirs.plan
        assert ours.ids.tolist() == theirs.ids.tolist()
    assert loaded.labels_of([0, 1, 2]) == index().labels_of([0, 1, 2])
    loaded.save(tmp_path / "again.nearly")
    assert (tmp_path / "again.nearly").read_bytes() == (tmp_path / "labels.nearly").read_bytes()
    loaded.add(data()[1][:5], labels=[["half"], None, [], ["rare", "half"], ["quite new"]])  # a mapping that is copied
    assert loaded.labels_of(range(N, N + 5)) == [["half"], None, [], ["rare", "half"], ["quite new"]]
    mine, seen = reached(loaded, "half")
    assert mine == seen
    assert {N, N + 3} <= {int(i) for i in loaded.ids[np.isin(loaded._store.column("nodes")[: N + 5], list(mine))]}


def damaged(path, name, change):
    """The file again with one array changed."""
    file = storage.read(path)
    parts = {key: np.array(value) for key, value in file.arrays.items()}
    config = {key: value for key, value in file.config.items()}
    parts[name] = change(parts[name])
    storage.write(path, parts, config, kind=file.kind)


@cache
def two_labels():
    names = [("ab", "cd", None)[i % 3] for i in range(700)]
    return nearly.Vamana(np.random.default_rng(0).standard_normal((700, 4), dtype=np.float32), labels=names)


@pytest.mark.parametrize(("name", "change"), [
    ("labels", lambda a: a[:-1]),
    ("labels", lambda a: np.full_like(a, 200)),
    ("labels_valid", lambda a: a[:-1]),
    ("labels_texts", lambda a: a[::-1].copy()),
    ("labels_text_ends", lambda a: a[::-1].copy()),
    ("labels_common", lambda a: a + 50),
    ("labels_common", lambda a: a * 0),
    ("labels_of_nodes", lambda a: np.full_like(a, 255)),
    ("labels_of_nodes", lambda a: a[:-1]),
    ("labels_set_ends", lambda a: a[1:]),
    ("labels_set_members", lambda a: np.full_like(a, 255)),
    ("labels_entries", lambda a: np.full_like(a, 77)),
    ("labels_entries", lambda a: a[:-1]),
    ("label_curve_mean", lambda a: a - 5),
])  # fmt: skip
def test_damaged_labels_are_noticed(tmp_path, name, change):
    path = tmp_path / "labels.nearly"
    two_labels().save(path)
    nearly.load(path)
    damaged(path, name, change)
    with pytest.raises(FormatError):
        nearly.load(path)


def test_an_addition_that_is_broken_off_changes_nothing(monkeypatch):
    made, vectors, names = small(800)

    def fails(*_args, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(made), "_show", fails)
        with pytest.raises(KeyboardInterrupt):
            made.add(vectors[:50] + 3, labels=["a"] * 50)
    assert len(made) == 800
    assert_as_an_oracle_says(made, vectors, names, np.ones(800, bool), "a")
    assert made.add(vectors[:50] + 3, labels=["b"] * 50).tolist() == list(range(800, 850))
    both, called = np.concatenate([vectors, vectors[:50] + 3]), [*names, *["b"] * 50]
    assert_as_an_oracle_says(made, both, called, np.ones(850, bool), "b")


def test_an_index_may_begin_without_vectors_and_lose_all():
    made = nearly.Vamana(np.zeros((0, 8), np.float32), labels=[])
    assert made.search(np.ones(8, np.float32), k=2, where="label = 'a'").counts == 0
    vectors = np.random.default_rng(0).standard_normal((900, 8), dtype=np.float32)
    names = ["a", "b", None] * 300
    made.add(vectors, labels=names)
    assert_as_an_oracle_says(made, vectors, names, np.ones(900, bool), "b")
    made.remove(range(900))
    assert made.search(vectors[0], k=2, where=F.label == "a").counts == 0
    made.add(vectors[:10], labels=[7] * 10) if made._n_rows == 0 else made.add(vectors[:10], labels=["7"] * 10)
    assert len(made) == 10


def test_calibration_is_of_labels_too():
    made, vectors, _ = small(1500, calibrate=False)
    assert made._label_contract.curve is None
    assert "walk within label 'a'" in made.search(vectors[0], k=3, where=F.label == "a", effort=15).plan
    made.calibrate()
    assert made._label_contract.curve.n_queries >= 500
    assert made.search(vectors[0], k=3, where=F.label == "a", recall=0.9).expected_recall >= 0.9


# ---------------------------------------------------------------- what may be passed


@pytest.mark.parametrize(("given", "kind", "wanted"), [
    (["b", None, "a"], "str", ["b", None, "a"]),
    ([3, 1, None], "int", [3, 1, None]),
    (np.array([5, 7, 5], np.uint8), "int", [5, 7, 5]),
    (np.array([2.0, np.nan, 1.0]), "int", [2, None, 1]),
    (np.array(["x", "y", "x"]), "str", ["x", "y", "x"]),
    ([["a", "b"], None, "c"], "list[str]", [["a", "b"], None, ["c"]]),
    ([{"b", "a"}, (), np.array(["c"])], "list[str]", [["a", "b"], [], ["c"]]),
    ([None, None, None], "str", [None, None, None]),
    (Column.from_values("brand", ["u", "v", "u"]), "str", ["u", "v", "u"]),
    ((name for name in "abc"), "str", ["a", "b", "c"]),
])  # fmt: skip
def test_what_labels_may_be(given, kind, wanted):
    made = nearly.Vamana(np.eye(3, dtype=np.float32), labels=given)
    assert made._labels.column.type == kind
    assert made._labels.column.name == "label"
    assert made.labels_of([0, 1, 2]) == wanted


@pytest.mark.parametrize(("given", "said"), [
    ("abc", "one label, a list of labels or None for each"),
    (5, "one label, a list of labels or None for each"),
    (["a", "b"], "2 entries, but there are 3 vectors"),
    (["a", 1, "b"], "mixes"),
    ([1.5, 2.0, 3.0], "1.5"),
    ([True, False, True], "labels are bool"),
    ([["a", 1], [2], []], "where a vector has several, write numbers as text"),
    (np.zeros((3, 2), int), "one dimension"),
    (Column.from_values("x", [0.5, 1.0, 2.0]), "labels are float"),
])  # fmt: skip
def test_wrong_labels_are_refused(given, said):
    with pytest.raises(InputError, match=re.escape(said)):
        nearly.Vamana(np.eye(3, dtype=np.float32), labels=given)


def test_wrong_additions_and_filters_change_nothing():
    made, vectors, _ = small(300)
    for wrong, said in (([1], "labels of this index are str"), (["a", "b"], "2 entries"), ([0.5], "0.5")):
        with pytest.raises(InputError, match=said):
            made.add(vectors[:1] + 1, labels=wrong)
        with pytest.raises(InputError, match=said):
            made.upsert(vectors[:1] + 1, ids=[0], labels=wrong)
    assert len(made) == 300
    assert made._coming is None
    for where, said in (("brand = 'a'", "there are label"), (F.label == 3, "holds str"), ("label = ", "label ="),
                        ({"label": {"$near": 1}}, "no operator")):  # fmt: skip
        with pytest.raises(InputError, match=re.escape(said)):
            made.search(vectors[0], where=where)
    with pytest.raises(InputError, match="exclude each other"):
        made.search(vectors[0], where=F.label == "a", recall=0.9, effort=10)
    plain = nearly.Vamana(vectors[:10])
    with pytest.raises(InputError, match="keeps no labels"):
        plain.add(vectors[:1], labels=["a"])
    with pytest.raises(InputError, match="keeps no labels"):
        plain.labels_of([0])
    with pytest.raises(TypeError):
        nearly.HNSW(vectors, labels=["a"] * 300)


def test_one_label_becomes_a_list_where_some_have_several():
    made, vectors, names = small(300)
    made.add(vectors[:2] + 1, labels=[["a", "z"], None])
    assert made._labels.column.type == "list[str]"
    assert made.labels_of([0, 300, 301]) == [[names[0]], ["a", "z"], None]
    assert made.search(vectors[0] + 1, k=1, where=F.label.contains("z")).ids.tolist() == [300]


# ---------------------------------------------------------------- parts


def test_a_cover_has_a_label_of_every_row_that_passes():
    rng = np.random.default_rng(3)
    names = ["a", "b", "c", "d"]
    rows = [None if rng.random() < 0.1 else [name for name in names if rng.random() < 0.4] for _ in range(300)]
    column = Column.from_values("label", rows)

    def some(depth):
        kind = rng.integers(0, 5) if depth else 0
        if kind == 0:
            return F.label.contains(names[rng.integers(0, 4)]) if rng.random() < 0.9 else F.label.is_null()
        if kind == 1:
            return ~some(depth - 1)
        return some(depth - 1) & some(depth - 1) if kind < 4 else some(depth - 1) | some(depth - 1)

    covered = 0
    for _ in range(400):
        wanted = some(3)
        cover = labels._cover(wanted, False, True, len)
        if cover is None:
            continue
        covered += 1
        passes = evaluate(wanted, {"label": column}, 300)
        assert all(set(rows[i] or ()) & cover for i in np.flatnonzero(passes))
    assert covered > 50


def test_columns_are_joined_row_by_row():
    rng = np.random.default_rng(4)
    for kind in ("str", "int", "list[str]"):
        for _ in range(30):
            n = int(rng.integers(0, 8))

            def draw(size, kind=kind):
                if kind == "int":
                    return [None if v < 0 else int(v) for v in rng.integers(-1, 5, size) * rng.integers(1, 400)]
                if kind == "str":
                    return [None if v == 0 else "xyzäb"[v] for v in rng.integers(0, 5, size)]
                lengths = rng.integers(0, 4, size)
                return [None if v == 0 else ["xyzäb"[w] for w in rng.integers(0, 5, v - 1)] for v in lengths]

            old, m = draw(n), int(rng.integers(0, 5))
            total = n + m + int(rng.integers(0, 3))
            rows, new = rng.permutation(total)[:m].astype(np.uint32), draw(m)
            made = labels.joined(labels.as_labels(old), labels.as_labels(new), rows, total)
            wanted = old + [None] * (total - n)
            for row, value in zip(rows, new, strict=True):
                wanted[row] = value
            assert made.to_list() == wanted


def test_a_contract_without_a_curve_survives_its_file(tmp_path):
    made = nearly.Vamana(np.eye(5, dtype=np.float32), labels=list("aabbc"))
    parts, config = label_files.state(made)
    assert made._label_contract.curve is None
    assert not any(name.startswith("label_curve") for name in parts)
    made.save(tmp_path / "x")
    assert isinstance(nearly.load(tmp_path / "x")._label_contract, label_walks.LabelContract)
    assert config["labels"]["type"] == "str"
