"""Wide lists (``filter_expansion=``): what they hold, that they follow changes, and what they save."""

import numpy as np
import pytest

import nearly
from nearly import storage
from nearly.errors import FormatError, InputError
from nearly.indexes import sifting
from nearly.tuning import costs

N, DIM, K = 4000, 16, 10


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(1).standard_normal((N, DIM), dtype=np.float32)


@pytest.fixture(scope="module")
def made(vectors):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(costs, "scanned", lambda *_: 500.0)  # as if there were many more: walks are worth it
        patched.setattr(costs, "exactly", lambda *_: 500.0)
        yield [nearly.Vamana(vectors, degree=16, beam=60, filter_expansion=times, seed=1) for times in (1, 8)]


def hopped(index, queries, mask):
    way = sifting.Way(sifting.made(index, K, 0.9, 2.0), 1 << 31, "as asked")
    return index._sift(index._queries(queries)[0], K, False, 0.9, way, index._filter(mask), 1)


def two_steps(lists, node):
    """What two steps lead to."""
    near = [v for v in lists[node].tolist() if v != 0xFFFFFFFF]
    return {w for v in near for w in (v, *lists[v].tolist()) if w not in (0xFFFFFFFF, node)}


def test_a_wide_list_holds_the_nearest_of_what_two_steps_lead_to(vectors):
    index = nearly.Vamana(vectors[:600], degree=8, beam=40, filter_expansion=3, quantizer=nearly.Plain(), seed=1)
    lists, wide = (table.array().view(np.uint32) for table in (index._lists[0], index._wide))
    assert wide.shape == (600, 24)
    for node in range(0, 600, 37):
        reached = np.array(sorted(two_steps(lists, node)))
        order = np.argsort(((vectors[reached] - vectors[node]) ** 2).sum(axis=1), kind="stable")
        found = wide[node][wide[node] != 0xFFFFFFFF]
        assert found.tolist() == reached[order][:24].tolist()


@pytest.mark.parametrize("share", [0.1, 0.08])
def test_walks_by_wide_lists_keep_their_recall_and_read_less(made, vectors, share):
    queries = np.random.default_rng(2).standard_normal((200, DIM), dtype=np.float32)
    mask = np.random.default_rng(3).random(N) < share
    plain, wide = (hopped(index, queries, mask) for index in made)
    truth = made[0].search(queries, K, where=mask, exact=True).distances[:, -1:]
    for hits in (plain, wide):
        assert mask[hits.ids].all()
        assert (hits.distances <= truth).mean() >= 0.89
    assert wide.stats.n_hops < 0.5 * plain.stats.n_hops
    found = made[1].search(queries, K, where=mask, recall=0.95)
    assert (found.distances <= truth).mean() >= 0.94
    assert "lists of 128 for filters" in made[1].plan


def test_bytes_do_not_depend_on_threads_and_files_hold_them(vectors, tmp_path):
    one, two = (nearly.Vamana(vectors[:1500], degree=8, beam=30, filter_expansion=4, threads=t) for t in (1, 2))
    one.save(tmp_path / "one.nearly")
    two.save(tmp_path / "two.nearly")
    assert (tmp_path / "one.nearly").read_bytes() == (tmp_path / "two.nearly").read_bytes()
    loaded = nearly.load(tmp_path / "one.nearly")
    assert loaded._wide.array().tolist() == one._wide.array().tolist()
    assert loaded.n_bytes == one.n_bytes > nearly.Vamana(vectors[:1500], degree=8, beam=30).n_bytes
    loaded.add(vectors[1500:1510])  # a mapping is copied
    assert loaded._wide.rows >= 1510


@pytest.mark.parametrize("kind", ["Vamana", "HNSW"])
def test_wide_lists_follow_changes(kind, vectors):
    options = {"degree": 8, "beam": 30} if kind == "Vamana" else {"M": 4, "ef_construction": 30}
    index = getattr(nearly, kind)(vectors[:600], filter_expansion=4, queries=vectors[1200:1300], **options)
    index.add(vectors[600:640])
    index.add(vectors[640:1200])
    index.remove(np.arange(0, 500))
    index.consolidate()
    index.add(vectors[:100], ids=np.arange(100))
    wide = index._wide.array().view(np.uint32)[: index._n_nodes]
    lists = index._lists[0].array().view(np.uint32)[: index._n_nodes]
    filled = wide != 0xFFFFFFFF
    assert (wide[filled] < index._n_nodes).all()
    assert (filled.sum(axis=1)[(lists != 0xFFFFFFFF).any(axis=1)] > 0).all()
    index.verify()
    mask = np.isin(np.arange(1200), index.ids[::7])
    hits = hopped(index, vectors[900:1000], index.ids[::7])
    assert mask[hits.ids].all()
    index.remove(index.ids)
    index.add(vectors[:300])
    assert len(index.search(vectors[:5], K, where=np.arange(0, 5000, 3))) == 5


def test_damaged_wide_lists_are_refused(vectors, tmp_path):
    index = nearly.Vamana(vectors[:500], degree=8, beam=30, filter_expansion=2)
    index._wide.array().view(np.uint32)[7, 0] = 500
    index.save(tmp_path / "wrong.nearly")
    with pytest.raises(FormatError, match="wide lists"):
        nearly.load(tmp_path / "wrong.nearly")
    assert "wide_lists" in storage.read(tmp_path / "wrong.nearly").arrays


def test_an_expansion_is_a_number_that_fits(vectors):
    for wrong in (0, -1, 1.5, "4", None):
        with pytest.raises(InputError, match="filter_expansion"):
            nearly.Vamana(vectors[:50], filter_expansion=wrong)
    with pytest.raises(InputError, match="17, but lists hold at most 512 neighbors; pass at most 16"):
        nearly.Vamana(vectors[:50], filter_expansion=17)
    with pytest.raises(InputError, match="pass at most 16"):
        nearly.HNSW(vectors[:50], filter_expansion=20)
