"""Data sets: the ann-benchmarks layout in all its dialects, and the truth of the project's own real data."""

import subprocess
import sys

import numpy as np
import pytest

from nearly import evaluate
from nearly.errors import DimensionError, FormatError, InputError
from nearly.evaluate import DATASETS, Dataset, data_folder, exact, load, read, read_dataset, write_dataset

BITS = ("hamming", "jaccard")


def make(metric, n=60, n_queries=6, k=8):
    rng = np.random.default_rng(3)
    if metric in BITS:
        base, queries = (rng.integers(0, 256, (m, 4), dtype=np.uint8) for m in (n, n_queries))
    else:
        base, queries = (rng.standard_normal((m, 5), dtype=np.float32) for m in (n, n_queries))
    return Dataset.compute("toy", base, queries, metric=metric, k=k)


@pytest.fixture
def toy():
    return make("l2")


def test_recall_of_the_truth_is_one_and_of_the_rest_nothing(toy):
    assert toy.recall(toy.truth_ids) == 1
    assert toy.recall(toy.truth_ids[:, ::-1], k=8) == 1
    assert toy.recall(toy.truth_ids, k=3) == 1
    ids, _ = exact(toy.base, toy.queries, 60, metric="l2")
    assert toy.recall(ids[:, -8:]) == 0
    assert toy.recall(ids[:, 4:12]) == 0.5
    assert toy.recalls(np.full((6, 8), -1)).tolist() == [0] * 6
    assert toy.recall(np.repeat(ids[:, :1], 8, axis=1)) == 1 / 8


def test_recall_counts_ties():
    base = np.array([[1.0], [-1.0], [1.0], [5.0]])
    data = Dataset.compute("ties", base, [[0.0]], metric="l2", k=2)
    assert data.truth_ids.tolist() == [[0, 1]]
    assert data.recall([[2, 1]]) == 1
    assert data.recall([[2, 3]]) == 0.5


def test_recall_does_not_depend_on_the_rounding_of_the_truth(toy):
    rough = Dataset("rough", toy.base, toy.queries, toy.truth_ids, toy.truth_distances.astype(np.float16), "l2")
    assert rough.recall(toy.truth_ids) == 1
    ids, _ = exact(toy.base, toy.queries, 9, metric="l2")
    assert rough.recall(ids[:, 1:], k=8) == 7 / 8  # the ninth is not the eighth, however rough the truth


def test_recall_with_fewer_vectors_than_neighbors():
    data = Dataset.compute("few", np.eye(3), np.eye(3)[:1], metric="l2", k=5)
    assert data.truth_ids.tolist() == [[0, 1, 2, -1, -1]]
    assert data.recall([[2, 1, 0, -1, -1]]) == 1
    assert data.recall([[2, -1, 0, -1, -1]]) == pytest.approx(2 / 3)
    data.verify()


@pytest.mark.parametrize(("found", "k"), [([[0]], None), (np.zeros((6, 9), int), None), (np.zeros((6, 8), int), 9)])
def test_recall_wants_one_row_per_query(toy, found, k):
    with pytest.raises(InputError, match="6 rows"):
        toy.recall(found, k=k)


def test_recall_refuses_ids_that_are_not_there(toy):
    with pytest.raises(InputError, match="only 60 vectors"):
        toy.recall(np.full((6, 8), 60))


def test_take(toy):
    for rows in ([3, 1], slice(1, 4), np.arange(6) % 2 == 0):
        part = toy.take(rows)
        np.testing.assert_array_equal(part.queries, toy.queries[rows])
        np.testing.assert_array_equal(part.truth_ids, toy.truth_ids[rows])
        part.verify()


def changed(toy, **values):
    fields = {key: getattr(toy, key) for key in ("base", "queries", "truth_ids", "truth_distances", "metric")}
    return Dataset("changed", **{**fields, **values})


def test_bad_parts_are_refused(toy):
    ids, distances = toy.truth_ids, toy.truth_distances
    for values, message in [
        ({"truth_ids": ids[:5]}, "shape"),
        ({"truth_ids": ids[:, :5]}, "shape"),
        ({"truth_ids": ids + 60}, "rows"),
        ({"truth_ids": np.zeros_like(ids)}, "repeats"),
        ({"truth_ids": ids.astype(float)}, "integer"),
        ({"truth_distances": distances[:, ::-1]}, "ascending"),
        ({"truth_distances": np.full_like(distances, np.nan)}, "ascending"),
        ({"base": toy.base[0]}, "base has shape"),
        ({"metric": "euclid"}, "'euclid'"),
        ({"metric": "hamming"}, r"numpy.packbits\(base"),
    ]:
        with pytest.raises(InputError, match=message):
            changed(toy, **values)
    with pytest.raises(DimensionError, match="queries has 4"):
        changed(toy, queries=toy.queries[:, :4])


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine", "l1", *BITS])
def test_verify_finds_a_wrong_truth(metric):
    good = make(metric, k=2)
    good.verify()
    ids, distances = exact(good.base, good.queries, 60, metric=metric)
    far = changed(good, truth_ids=ids[:, -2:], truth_distances=distances[:, -2:])
    far.verify(search=False)  # its distances are right
    with pytest.raises(FormatError, match="a search of all rows finds"):
        far.verify()
    with pytest.raises(FormatError, match="its id is at"):
        changed(good, truth_ids=ids[:, -2:]).verify(search=False)


def test_verify_looks_at_as_many_queries_as_asked(toy):
    ids = toy.truth_ids.copy()
    ids[2] = [j for j in range(60) if j not in ids[2]][:8]
    bad = changed(toy, truth_ids=ids)
    with pytest.raises(FormatError, match="query 2"):
        bad.verify(n_queries=None, search=False)
    outcomes = set()
    for seed in range(20):
        try:
            bad.verify(n_queries=1, search=False, seed=seed)
            outcomes.add("fine")
        except FormatError:
            outcomes.add("wrong")
    assert outcomes == {"fine", "wrong"}


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine", "l1", *BITS])
def test_hdf5_round_trip(metric, tmp_path):
    pytest.importorskip("h5py")
    data = make(metric)
    write_dataset(tmp_path / "toy.hdf5", data)
    found = read_dataset(tmp_path / "toy.hdf5")
    assert (found.name, found.metric) == ("toy", metric)
    for key in ("base", "queries", "truth_ids", "truth_distances"):
        np.testing.assert_array_equal(getattr(found, key), getattr(data, key))
    found.verify()


def write_ann(path, data, **changes):
    """A file as ann-benchmarks writes it, with changes; None leaves an array or attribute out."""
    h5py = pytest.importorskip("h5py")
    items = {
        "train": data.base, "test": data.queries, "neighbors": data.truth_ids.astype(np.int32),
        "distances": data.truth_distances.astype(np.float32), "distance": "euclidean", **changes,
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        for key, value in items.items():
            if value is not None:
                (file if isinstance(value, np.ndarray) else file.attrs)[key] = value


@pytest.mark.parametrize(
    ("metric", "said", "unit"),
    [
        ("l2", "euclidean", lambda d: d),
        ("l2", "euclidean", np.square),
        ("l2", b"euclidean", lambda d: d),
        ("cosine", "angular", lambda d: d),
        ("ip", "dot", lambda d: d),
        ("ip", "ip", np.negative),
        ("hamming", "hamming", lambda d: d),
        ("hamming", "hamming", lambda d: d / 32),
        ("jaccard", "jaccard", lambda d: d),
    ],
)
def test_dialects_of_ann_benchmarks(metric, said, unit, tmp_path):
    data = make(metric)
    bits = {}
    if metric in BITS:
        bits = {"train": np.unpackbits(data.base, axis=1) > 0, "test": np.unpackbits(data.queries, axis=1) > 0}
    path = tmp_path / "a.hdf5"
    write_ann(
        path,
        data,
        distance=said,
        distances=unit(data.truth_distances).astype(np.float32),
        **bits,
    )
    found = read_dataset(path)
    assert found.metric == metric
    np.testing.assert_array_equal(found.base, data.base)
    np.testing.assert_allclose(found.truth_distances, data.truth_distances, rtol=1e-6)
    found.verify()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_bits_in_other_dtypes_are_packed(dtype, tmp_path):
    data = make("hamming")
    bits = {k: np.unpackbits(v, axis=1).astype(dtype) for k, v in (("train", data.base), ("test", data.queries))}
    write_ann(tmp_path / "a.hdf5", data, distance="hamming", **bits)
    np.testing.assert_array_equal(read_dataset(tmp_path / "a.hdf5").base, data.base)
    write_ann(tmp_path / "a.hdf5", data, distance="hamming")  # bytes that are packed already
    np.testing.assert_array_equal(read_dataset(tmp_path / "a.hdf5").base, data.base)


def test_bits_that_do_not_fill_bytes(tmp_path):
    rng = np.random.default_rng(0)
    base, queries = rng.random((30, 13)) > 0.5, rng.random((4, 13)) > 0.5
    data = Dataset.compute("bits", np.packbits(base, axis=1), np.packbits(queries, axis=1), metric="hamming", k=3)
    shares = (data.truth_distances / 13).astype(np.float32)
    write_ann(tmp_path / "a.hdf5", data, train=base, test=queries, distances=shares, distance="hamming")
    np.testing.assert_array_equal(read_dataset(tmp_path / "a.hdf5").truth_distances, data.truth_distances)


def test_missing_distances_are_computed(toy, tmp_path):
    write_ann(tmp_path / "a.hdf5", toy, distances=None, neighbors=toy.truth_ids[:, ::-1].astype(np.int32))
    found = read_dataset(tmp_path / "a.hdf5")
    np.testing.assert_array_equal(found.truth_ids, toy.truth_ids)
    np.testing.assert_array_equal(found.truth_distances, toy.truth_distances)


def test_metric_of_the_file_and_of_the_caller(toy, tmp_path):
    path = tmp_path / "a.hdf5"
    write_ann(path, toy)
    assert read_dataset(path, metric="l2").metric == "l2"
    with pytest.raises(InputError, match="'euclidean'"):
        read_dataset(path, metric="cosine")
    write_ann(path, toy, distance=None)
    assert read_dataset(path, metric="l2").metric == "l2"
    with pytest.raises(InputError, match="pass one of l2"):
        read_dataset(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neighbors": None}, "lacks neighbors"),
        ({"train": None, "test": None}, "lacks test, train"),
        ({"distance": "levenshtein"}, "levenshtein"),
        ({"type": "sparse"}, "sets of items"),
        ({"distance": "angular"}, "not those of its neighbors"),
        ({"distance": "hamming"}, "bits are wanted"),
        ({"neighbors": np.full((6, 8), 60)}, "60"),
        ({"neighbors": np.full((6, 8), 0.5)}, "integer"),
        ({"neighbors": np.zeros((5, 8), int)}, "do not fit"),
        ({"distances": np.zeros((6, 7))}, "do not fit"),
        ({"test": np.zeros((6, 4), "f4")}, "queries has 4 columns"),
        ({"test": np.full((6, 5), np.nan, "f4")}, "queries row 0"),
        ({"neighbors": np.zeros((6, 8), int), "distances": None}, "repeats"),
    ],
)
def test_files_that_do_not_fit_together(toy, changes, message, tmp_path):
    write_ann(tmp_path / "a.hdf5", toy, **changes)
    with pytest.raises(FormatError, match=message):
        read_dataset(tmp_path / "a.hdf5")


def test_only_hdf5_is_written(toy, tmp_path):
    with pytest.raises(InputError, match=r"\.hdf5"):
        write_dataset(tmp_path / "a.npy", toy)


def test_data_folder_is_what_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("NEARLY_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.setenv("NEARLY_DATA", str(tmp_path / "missing"))
    assert data_folder() is None
    with pytest.raises(FileNotFoundError, match="NEARLY_DATA"):
        load("mnist_784_l2")


def test_load_by_the_name_of_a_file(toy, tmp_path):
    write_ann(tmp_path / "toy-5-euclidean.hdf5", toy)
    assert load("toy-5-euclidean", tmp_path).name == "toy-5-euclidean"
    with pytest.raises(InputError, match="mnist_784_l2"):
        load("toy", tmp_path)
    with pytest.raises(FileNotFoundError):
        load("mnist_784_l2", tmp_path)


def test_load_measures_the_truth(tmp_path):
    rng = np.random.default_rng(0)
    base, queries = rng.integers(0, 256, (50, 4), dtype=np.uint8), rng.integers(0, 256, (5, 4), dtype=np.uint8)
    ids, distances = exact(base, queries, 3, metric="l2")
    np.savez(tmp_path / "mnist_784_l2.npz", base=base, queries=queries, gt_ids=ids, gt_dist=distances)
    assert load("mnist_784_l2", tmp_path).recall(ids) == 1
    np.savez(tmp_path / "mnist_784_l2.npz", base=base, queries=queries, gt_ids=ids, gt_dist=distances**2)
    with pytest.raises(FormatError, match="its id is at"):
        load("mnist_784_l2", tmp_path)


def real(name, metric=None):
    folder = data_folder()
    if folder is None:
        pytest.skip("no real data: set NEARLY_DATA")
    try:
        return load(name, metric=metric)
    except FileNotFoundError as error:
        pytest.skip(f"{folder} lacks {error.filename}")


SIZES = {
    "mnist_784_l2": (60_000, 784, 2000),
    "sift_bsds_128_l2": (100_000, 128, 1000),
    "cve_minilm_384": (75_000, 384, 2000),
    "wordvec_trivia_64": (80_000, 64, 1000),
    "orb_bsds_256bit_hamming": (100_000, 32, 1000),
}


@pytest.mark.parametrize(("name", "metric"), [(name, metric) for name in DATASETS for metric in DATASETS[name].metrics])
@pytest.mark.soak
def test_real_truth_is_ours(name, metric):
    data = real(name, metric)
    assert (*data.base.shape, len(data.queries)) == SIZES[name]
    assert data.truth_ids.shape[1] == 100
    part = data.take([0, 333, 999])
    ids, distances = exact(data.base, part.queries, 100, metric=metric)
    np.testing.assert_array_equal(ids, part.truth_ids)
    np.testing.assert_allclose(distances, part.truth_distances, rtol=1e-6, atol=1e-7)
    assert part.recall(ids, k=10) == 1


def test_real_data_has_the_truth_it_has():
    real("orb_bsds_256bit_hamming")
    with pytest.raises(InputError, match="has the truth of hamming"):
        load("orb_bsds_256bit_hamming", metric="jaccard")


def test_real_parquet():
    pytest.importorskip("pyarrow")
    folder = data_folder()
    if folder is None or not (folder / "geo_cities15000.parquet").is_file():
        pytest.skip("no real data: set NEARLY_DATA")
    points = read(folder / "geo_cities15000.parquet", name=["latitude", "longitude"])
    assert points.shape == (23_676, 2)
    assert (np.abs(points) <= [90, 180]).all()


def test_everything_public_is_documented_with_an_example():
    for name in evaluate.__all__:
        value = getattr(evaluate, name)
        if callable(value):
            assert ">>>" in value.__doc__ or name == "write_dataset", name


def test_nothing_heavy_is_imported():
    code = "import nearly.evaluate, sys; print([m for m in ('h5py', 'pyarrow', 'scipy', 'duckdb') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
