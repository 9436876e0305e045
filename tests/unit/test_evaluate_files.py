"""Files: round trips, layouts byte by byte, and files that lie, end early, or are something else."""

import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearly.errors import FormatError, InputError
from nearly.evaluate import FORMATS, read, write

DTYPES = {
    ".fvecs": "f4", ".ivecs": "i4", ".bvecs": "u1", ".fbin": "f4", ".f16bin": "f2", ".u8bin": "u1", ".i8bin": "i1",
    ".ibin": "i4", ".npy": "f2", ".npz": "f8", ".hdf5": "f4", ".h5": "u1", ".parquet": "f4",
}  # fmt: skip
NEEDS = {".hdf5": "h5py", ".h5": "h5py", ".parquet": "pyarrow"}
EVERY = pytest.mark.parametrize("suffix", FORMATS)


@pytest.fixture(autouse=True)
def _library(request):
    suffix = request.node.callspec.params.get("suffix") if hasattr(request.node, "callspec") else None
    if suffix in NEEDS:
        pytest.importorskip(NEEDS[suffix])


def example(suffix, n=7, dim=5):
    values = np.random.default_rng(len(suffix)).integers(-128, 128, (n, dim))
    return (values % 256 if DTYPES[suffix] == "u1" else values).astype(DTYPES[suffix])


def npy_bytes(header, body=b"", version=b"\x01\x00"):
    text = header.encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + body


@EVERY
@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (5000, 3), (2, 4096)])
def test_what_was_written_is_read(suffix, shape, tmp_path):
    array = example(suffix, *shape)
    path = tmp_path / f"a{suffix}"
    write(path, array)
    found = read(str(path))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert list(tmp_path.iterdir()) == [path]  # nothing is left beside it


@EVERY
def test_views_lists_and_other_orders_are_written_too(suffix, tmp_path):
    path, array = tmp_path / f"a{suffix.upper()}", example(suffix, 20, 6)
    for view in (array[::2], array[:, ::-1], np.asfortranarray(array), array.astype(array.dtype.newbyteorder(">"))):
        write(path, view)
        np.testing.assert_array_equal(read(path), view)
        assert read(path).dtype.isnative
    write(path, [[1, 2], [3, 4]])
    assert read(path).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("suffix", [s for s in FORMATS if s not in (".fvecs", ".ivecs", ".bvecs")])
def test_no_rows(suffix, tmp_path):
    write(tmp_path / f"a{suffix}", example(suffix, 0, 5))
    assert read(tmp_path / f"a{suffix}").shape == (0, 5)


@pytest.mark.parametrize("suffix", [".fvecs", ".ivecs", ".bvecs"])
def test_no_rows_have_no_columns_in_vecs(suffix, tmp_path):
    with pytest.raises(InputError, match="no rows"):
        write(tmp_path / f"a{suffix}", np.empty((0, 5)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".fvecs", ".ivecs", ".bvecs", ".fbin", ".f16bin", ".u8bin", ".npy", ".hdf5"])
def test_plain_values_are_mapped_not_read(suffix, tmp_path):
    write(tmp_path / f"a{suffix}", example(suffix))
    found = read(tmp_path / f"a{suffix}")
    owner = found
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    assert isinstance(owner, np.memmap)
    assert not found.flags.writeable


def test_layouts_byte_by_byte(tmp_path):
    write(tmp_path / "a.fvecs", [[1.0, 2.0]])
    assert (tmp_path / "a.fvecs").read_bytes() == struct.pack("<iff", 2, 1, 2)
    write(tmp_path / "a.bvecs", [[1, 2], [3, 255]])
    assert (tmp_path / "a.bvecs").read_bytes() == struct.pack("<iBBiBB", 2, 1, 2, 2, 3, 255)
    write(tmp_path / "a.i8bin", [[1, -2, 3]])
    assert (tmp_path / "a.i8bin").read_bytes() == struct.pack("<IIbbb", 1, 3, 1, -2, 3)


@pytest.mark.parametrize(
    ("suffix", "array"),
    [
        (".fvecs", np.array([[0.5], [0.1]])),
        (".fvecs", np.array([[0], [2**24 + 1]])),
        (".ivecs", np.array([[0], [2**31]])),
        (".ivecs", np.array([[0.0], [0.5]])),
        (".ivecs", np.array([[0.0], [np.nan]])),
        (".bvecs", np.array([[0], [256]])),
        (".u8bin", np.array([[1], [-1]], np.int8)),
        (".i8bin", np.array([[1], [128]], np.uint8)),
        (".f16bin", np.array([[1], [1e6]], np.float32)),
    ],
)
def test_values_that_would_change_are_refused(suffix, array, tmp_path):
    with pytest.raises(InputError, match="array row 1"):
        write(tmp_path / f"a{suffix}", array)
    assert not list(tmp_path.iterdir())


def test_nan_and_infinity_are_kept(tmp_path):
    write(tmp_path / "a.fbin", np.array([[np.nan, np.inf, -np.inf, -0.0]]))
    assert read(tmp_path / "a.fbin").tobytes() == np.array([np.nan, np.inf, -np.inf, -0.0], "f4").tobytes()


@EVERY
def test_a_failed_write_leaves_the_old_file(suffix, tmp_path, monkeypatch):
    path, array = tmp_path / f"a{suffix}", example(suffix)
    write(path, array)

    def full(source, target):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        write(path, array[:2])
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(read(path), array)


@EVERY
def test_every_truncation_is_an_error(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    write(path, example(suffix))
    whole = path.read_bytes()
    step = max(1, len(whole) // 150)
    for size in range(0, len(whole), step):
        path.write_bytes(whole[:size])
        if suffix.endswith("vecs") and size and size % (4 + 5 * np.dtype(DTYPES[suffix]).itemsize) == 0:
            assert len(read(path)) < 7  # whole rows: such a file cannot know better
            continue
        with pytest.raises(FormatError):
            read(path)


@pytest.mark.parametrize("suffix", [s for s in FORMATS if s not in (".hdf5", ".h5", ".parquet", ".npz")])
def test_a_longer_file_is_an_error(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    write(path, example(suffix))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(FormatError, match="bytes"):
        read(path)


@EVERY
@pytest.mark.parametrize("content", [b"", b"\n", b"hello, this is text\n" * 40, b"\x00" * 300, b"\xff" * 300])
def test_foreign_files_are_errors(suffix, content, tmp_path):
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(FormatError, match="a"):
        read(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [s for s in FORMATS if s not in (".hdf5", ".h5")])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_damage_is_an_error_or_an_array(suffix, data, tmp_path_factory):
    # HDF5 is left out: what its library does with flipped bits is not ours to promise.
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    write(path, example(suffix))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = read(path)
    except (FormatError, InputError):  # InputError: the name of an array was hit, and no longer is the default
        return
    assert found.ndim == 2
    assert found.nbytes < 10_000


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".fvecs", struct.pack("<i", 2**31 - 1), "multiple"),
        (".fvecs", struct.pack("<if", -1, 0), "-1 columns"),
        (".fvecs", struct.pack("<i", 0), "0 columns"),
        (".fvecs", struct.pack("<ifif", 1, 0, 2, 0), "row 1 says 2 columns"),
        (".fbin", struct.pack("<II", 2**32 - 1, 2**32 - 1), "wants 7378697"),
        (".fbin", struct.pack("<II", 2**32 - 1, 0), "0 columns"),
        (".u8bin", struct.pack("<IIB", 1, 2, 0), "truncated"),
        (".u8bin", struct.pack("<IIBB", 1, 1, 0, 0), "too long"),
        (".npy", npy_bytes("{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 8)}"), "truncated"),
        (".npy", npy_bytes("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 8)}"), "shape"),
        (".npy", npy_bytes("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 0)}"), "shape"),
        (".npy", npy_bytes("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", bytes(8)), "matrix"),
        (".npy", npy_bytes("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1)}", bytes(8)), "object"),
        (".npy", npy_bytes("{'descr': '<c16', 'fortran_order': False, 'shape': (1, 1)}", bytes(16)), "complex"),
        (".npy", npy_bytes("{'descr': '|S4', 'fortran_order': False, 'shape': (1, 1)}", b"abcd"), "real numbers"),
        (".npy", npy_bytes("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 1)}", bytes(4)), "real"),
        (".npy", npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 1)}", bytes(4)), "matrix"),
        (".npy", npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4611686018427387904)}"), "shape"),
        (".npy", npy_bytes("__import__('os').system('true')"), "header"),
        (".npy", npy_bytes("(" * 5000), "header"),
        (".npy", npy_bytes("{}", version=b"\x03\x00"), "header"),
    ],
)
def test_lying_headers_say_what_came_and_what_was_wanted(suffix, content, message, tmp_path):
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read(tmp_path / f"a{suffix}")


def test_fortran_order(tmp_path):
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    np.save(tmp_path / "a.npy", array)
    assert b"'fortran_order': True" in (tmp_path / "a.npy").read_bytes()
    np.testing.assert_array_equal(read(tmp_path / "a.npy"), array)
    np.savez(tmp_path / "a.npz", array)
    np.testing.assert_array_equal(read(tmp_path / "a.npz"), array)


def test_pickles_are_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{"a": 1}]]), allow_pickle=True)
    with pytest.raises(FormatError, match="object"):
        read(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", np.array([[{"a": 1}]]))
    with pytest.raises(FormatError, match="object"):
        read(tmp_path / "a.npz")


def test_npz_with_names(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", base=np.eye(2), queries=np.ones((1, 2), np.uint8))
    np.testing.assert_array_equal(read(tmp_path / "a.npz", name="base"), np.eye(2))
    assert read(tmp_path / "a.npz", name="queries").dtype == np.uint8
    with pytest.raises(InputError, match="base, queries"):
        read(tmp_path / "a.npz")
    with pytest.raises(InputError, match="'truth'"):
        read(tmp_path / "a.npz", name="truth")


def member(content, **claims):
    """An npz file whose only member is ``content``; ``claims`` are put into the directory afterwards."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("a.npy"), content, zipfile.ZIP_DEFLATED)
        for key, value in claims.items():
            setattr(archive.infolist()[0], key, value)
    return out.getvalue()


HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000)}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (member(npy_bytes(HUGE)), "wants 8000000000"),
        (member(npy_bytes(HUGE), file_size=8_000_000_000 + len(npy_bytes(HUGE))), "at most"),
        (member(b"no array"), "header"),
        (member(bytes(100), compress_type=zipfile.ZIP_LZMA), "compression"),
        (member(bytes(100), flag_bits=1), "npz"),
    ],
    ids=["huge", "huge by its size, too", "no array", "compressed by LZMA", "encrypted"],
)
def test_lying_archives(content, message, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", [".hdf5"])
def test_hdf5_kinds_of_storage(suffix, tmp_path):
    h5py = pytest.importorskip("h5py")
    array = np.random.default_rng(0).integers(0, 2, (40, 6))
    path = tmp_path / f"a{suffix}"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["train"] = array.astype("f4")
        file["big"] = array.astype(">f4")
        file["bits"] = array.astype(bool)
        file.create_dataset("packed", data=array, compression="gzip", chunks=(7, 3))
        file["half"] = array.astype("f2")
    for name in (None, "big", "bits", "packed", "half"):
        found = read(path, name=name)
        np.testing.assert_array_equal(found, array)
        assert found.dtype.isnative
    assert read(path, name="bits").dtype == np.bool_


@pytest.mark.parametrize("suffix", [".hdf5"])
def test_hdf5_that_lies(suffix, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / f"a{suffix}"
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(16)))
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["train"] = np.eye(2)
    with h5py.File(path, "w") as file:
        file.create_dataset("huge", shape=(10**9, 10**6), dtype="f4", chunks=(1000, 1000))
        file.create_dataset("unwritten", shape=(10**6, 100), dtype="f4")
        file.create_dataset("outside", shape=(2, 2), dtype="f4", external=[(str(secret), 0, 16)])
        file["linked"] = h5py.ExternalLink("other.hdf5", "train")
        layout = h5py.VirtualLayout((2, 2), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.hdf5"), "train", (2, 2))
        file.create_virtual_dataset("virtual", layout)
        file["text"] = [["a", "b"]]
        file["flat"] = np.arange(3)
        file["scalar"] = 1.0
        file.create_group("group")
    for name, message in {
        "huge": "claims", "unwritten": "claims", "outside": "other files", "linked": "link", "virtual": "other files",
        "text": "real numbers", "flat": "matrix", "scalar": "matrix", "group": "group",
    }.items():  # fmt: skip
        with pytest.raises(FormatError, match=message):
            read(path, name=name)
    with pytest.raises(InputError, match="flat, group"):
        read(path)
    with pytest.raises(InputError, match="name"):
        write(path, np.eye(2), name="a/b")


@pytest.mark.parametrize("suffix", [".parquet"])
@pytest.mark.parametrize("kind", ["list", "large_list", "fixed"])
@pytest.mark.parametrize("value", ["float16", "float32", "float64", "int8", "uint8", "int64", "bool"])
def test_parquet_lists(suffix, kind, value, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    array = np.random.default_rng(0).integers(0, 2, (11, 3)).astype(value)
    values = pa.array(array.ravel())
    make = {"list": pa.list_, "large_list": pa.large_list, "fixed": lambda t: pa.list_(t, 3)}[kind]
    column = pa.array([list(row) for row in array], make(values.type))
    path = tmp_path / f"a{suffix}"
    pq.write_table(pa.table({"id": list(range(11)), "vector": column}), path, row_group_size=4)
    found = read(path)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(read(path, name="vector"), array)


@pytest.mark.parametrize("suffix", [".parquet"])
@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1.0, 2.0], [1.0]], "of 2 and of 1"),
        ([[1.0, 2.0], None], "1 nulls"),
        ([[1.0, 2.0], [None, 1.0]], "nulls inside"),
        ([[], []], "empty lists"),
    ],
)
def test_parquet_lists_that_are_no_matrix(suffix, column, message, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"v": pa.array(column, pa.list_(pa.float32()))}), tmp_path / "a.parquet")
    with pytest.raises(FormatError, match=message):
        read(tmp_path / "a.parquet")


def test_parquet_without_lists_says_what_there_is(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"x": [1.0, 2.0], "word": ["a", "b"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"columns x \(double\), word \(string\), but one of number lists .*name="):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("suffix", [".parquet"])
def test_parquet_columns(suffix, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / f"a{suffix}"
    table = {"x": [1.5, 2.5], "y": [3, 4], "gap": [1, None], "word": ["a", "b"], "v": [[1.0], [2.0]], "w": [[3], [4]]}
    pq.write_table(pa.table(table), path)
    assert read(path, name=["y", "x"]).tolist() == [[3, 1.5], [4, 2.5]]
    assert read(path, name="w").tolist() == [[3], [4]]
    for name, message in ((None, "v, w"), ("x", "v, w"), (["word"], "gap, x, y"), (["x", "z"], "'z'"), ([], "empty")):
        with pytest.raises(InputError, match=message):
            read(path, name=name)
    with pytest.raises(FormatError, match="nulls"):
        read(path, name=["x", "gap"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: read(path / "a.csv"), "ends in .csv"),
        (lambda path: write(path / "a", [[1]]), "no suffix"),
        (lambda path: read(path / "a.fvecs", name="x"), "no name"),
        (lambda path: read(path / "a.npz", name=["x"]), "one name"),
        (lambda path: write(path / "a.npy", [[1]], name="x"), "no name"),
        (lambda path: write(path / "a.npy", [1, 2]), "shape"),
        (lambda path: write(path / "a.npy", [["a"]]), "dtype"),
        (lambda path: write(path / "a.npy", np.empty((3, 0))), "column"),
    ],
)
def test_bad_arguments_say_what_is_wanted(call, message, tmp_path):
    with pytest.raises(InputError, match=message):
        call(tmp_path)


@EVERY
def test_a_missing_file_is_missing(suffix, tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(("suffix", "module"), [(".hdf5", "h5py"), (".parquet", "pyarrow")])
def test_a_missing_library_names_the_extra(suffix, module, tmp_path, monkeypatch):
    write(tmp_path / f"a{suffix}", np.eye(2))
    monkeypatch.setitem(__import__("sys").modules, module, None)
    for call in (lambda: read(tmp_path / f"a{suffix}"), lambda: write(tmp_path / f"b{suffix}", np.eye(2))):
        with pytest.raises(ImportError, match=r'pip install "nearly\[data\]"'):
            call()
