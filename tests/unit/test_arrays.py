"""The door for user arrays: what is taken as it is, what is converted, what is refused and how."""

import array as stdlib_array
import collections
import ctypes
import sys
import timeit
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nearly.arrays import (
    Vectors,
    as_ids,
    as_mask_or_ids,
    as_queries,
    as_vectors,
    check_choice,
    check_finite,
    check_fraction,
    check_int,
    check_k,
    check_positive,
    check_real,
    check_seed,
)
from nearly.errors import DimensionError, IdError, InputError

NARROW = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "uint8": np.uint8}


def matrix(dtype=np.float32, n=3, dim=4):
    return np.arange(n * dim).reshape(n, dim).astype(dtype)


# --- NumPy ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NARROW)
def test_a_ready_matrix_is_not_copied(kind):
    value = matrix(NARROW[kind])
    vectors = as_vectors(value, dim=4)
    assert vectors.kind == kind
    assert vectors.array is value
    assert (len(vectors), vectors.dim) == (3, 4)


@pytest.mark.parametrize("kind", NARROW)
@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x[::-1][::-1].copy()[::-1][::-1],
        lambda x: x.astype(x.dtype.newbyteorder(">")),
        lambda x: np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
    ],
    ids=["fortran", "strided rows", "strided columns", "reversed twice", "big-endian", "unaligned"],
)
def test_other_layouts_become_contiguous(kind, change):
    value = matrix(NARROW[kind])
    vectors = as_vectors(change(value))
    flags = vectors.array.flags
    assert (vectors.kind, vectors.array.dtype) == (kind, NARROW[kind])
    assert flags.c_contiguous
    assert flags.aligned
    assert vectors.array.dtype.isnative
    np.testing.assert_array_equal(vectors.array, value)


@pytest.mark.parametrize(
    "dtype", [np.float64, np.longdouble, np.int16, np.uint16, np.int32, np.uint32, np.int64, "u8", ">f8"]
)
def test_other_numbers_become_float32(dtype):
    vectors = as_vectors(matrix(dtype))
    assert (vectors.kind, vectors.array.dtype) == ("float32", np.float32)
    np.testing.assert_array_equal(vectors.array, matrix())


def test_booleans_become_zeros_and_ones():
    assert as_vectors(np.array([[True, False]])).array.tolist() == [[1.0, 0.0]]


def test_doubles_are_rounded_but_not_to_infinity():
    tiny = as_vectors(np.array([[0.1, 1e-300]])).array
    assert tiny.tolist() == [[np.float32(0.1), 0.0]]
    assert np.isinf(as_vectors(np.array([[np.inf, 1.0]])).array[0, 0])  # for check_finite to refuse
    value = np.zeros((5, 3))
    value[3, 1] = -1e39
    with pytest.raises(InputError, match=r"things has dtype float64, and row 3 holds -1e\+39 in column 1.*scale"):
        as_vectors(value, name="things")
    with np.errstate(all="raise"):  # the caller's settings do not reach the door
        assert as_vectors(np.array([[1e-300]])).array.tolist() == [[0.0]]


@given(hnp.arrays(st.sampled_from([np.int32, np.int64, np.uint32, np.uint64]), (2, 3)))
def test_integers_pass_when_exact_and_only_then(value):
    exact = all(int(np.float32(int(number))) == int(number) for number in value.flat)
    if exact:
        assert [int(x) for x in as_vectors(value).array.flat] == [int(x) for x in value.flat]
    else:
        with pytest.raises(InputError, match=r"is not exact in float32.*2\*\*24"):
            as_vectors(value)


@pytest.mark.parametrize("number", [2**24, -(2**24), 2**24 + 2, 2**62, -(2**63), 3 << 40])
def test_large_integers_with_few_bits_are_exact(number):
    assert int(as_vectors(np.array([[0, number]])).array[0, 1]) == number


@pytest.mark.parametrize("number", [2**24 + 1, -(2**24) - 1, 2**53 + 1, 2**63 - 1])
def test_large_integers_with_many_bits_are_refused(number):
    with pytest.raises(InputError, match=f"{number} in row 1 is not exact"):
        as_vectors(np.array([[0], [number]]))


def test_subclasses_become_plain_arrays(tmp_path):
    np.save(tmp_path / "a.npy", matrix())
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    vectors = as_vectors(mapped)
    assert type(vectors.array) is np.ndarray
    assert np.shares_memory(vectors.array, mapped)
    unmasked = np.ma.masked_array(matrix(), mask=False)
    assert type(as_vectors(unmasked).array) is np.ndarray


def test_vectors_are_frozen_and_widen_exactly():
    vectors = as_vectors(matrix(np.float16))
    with pytest.raises(AttributeError):
        vectors.kind = "float32"
    assert vectors.as_float32().dtype == np.float32
    np.testing.assert_array_equal(vectors.as_float32(), matrix())
    ready = as_vectors(matrix())
    assert ready.as_float32() is ready.array


# --- lists and buffers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2], [3, 4]],
        [[1.0, 2.0], [3.0, 4.0]],
        ((1, 2), (3, 4)),
        [np.array([1, 2]), [3, 4.0]],
        collections.deque([[1, 2], [3, 4]]),
        memoryview(np.array([[1.0, 2.0], [3.0, 4.0]])),
        np.array([[1, 2], [3, 4]], dtype=">i4"),
    ],
    ids=["ints", "floats", "tuples", "rows", "deque", "memoryview", "big-endian"],
)
def test_sequences_and_buffers(value):
    vectors = as_vectors(value)
    assert vectors.kind == "float32"
    assert vectors.array.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_a_buffer_is_one_query_and_not_copied():
    value = stdlib_array.array("f", [1.0, 2.0])
    queries, single = as_queries(value, dim=2)
    assert single
    value[0] = 5.0
    assert queries.array.tolist() == [[5.0, 2.0]]


@pytest.mark.parametrize("value", [[], (), np.empty(0), np.empty((0, 0), np.float32), np.empty((0, 6), np.float32)])
def test_nothing_has_the_wanted_dimension(value):
    assert as_vectors(value, dim=6).array.shape == (0, 6)
    queries, single = as_queries(value, dim=6)
    assert (queries.array.shape, single) == ((0, 6), False)


def test_nothing_without_a_dimension():
    assert as_vectors([]).array.shape == (0, 0)
    assert as_vectors([]).array.dtype == np.float32
    assert as_vectors([], bits=True).array.dtype == np.uint8
    assert as_vectors(np.empty((0, 7), np.int8)).array.shape == (0, 7)


REFUSED = {
    "one row": (np.zeros(4, np.float32), r"shape \(4,\).*things.reshape\(1, -1\)"),
    "a cube": (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\).*things.reshape\(-1, things.shape\[-1\]\)"),
    "a number": (3.5, r"things is 3.5"),
    "a 0-d array": (np.array(3.5), r"shape \(\)"),
    "no columns": (np.zeros((3, 0)), r"shape \(3, 0\).*at least one number"),
    "no columns in lists": ([[], []], r"shape \(2, 0\).*at least one number"),
    "ragged": ([[1, 2], [1, 2], [1]], "ragged: row 2 has 1 values, but row 0 has 2"),
    "ragged by a number": ([[1, 2], 5], "ragged: row 1 has 5, but row 0 has 2"),
    "ragged after a number": ([5, [1, 2]], "ragged: row 1 has 2 values, but row 0 has 5"),
    "deeply ragged": ([[[1], [2, 3]], [[1], [2]]], "cannot become an array"),
    "text": ("abc", "things is 'abc', but an array"),
    "bytes": (b"abc", "things is b'abc', but an array"),
    "lists of text": ([["a", "b"]], "dtype <U1.*embed the text"),
    "None": (None, "things is None, but an array"),
    "a hole": ([[1.0, None]], r"dtype object.*things\[0\]\[1\] is None"),
    "objects": (np.array([[1.0, 2.0]], object), r"dtype object.*things.astype\(numpy.float32\)"),
    "an object": (object(), "things is an object"),
    "a dict": ({"a": 1}, "things is a dict"),
    "a set": ({1, 2}, "things is a set"),
    "a generator": ((i for i in range(3)), "things is a generator"),
    "complex": (np.zeros((2, 2), complex), "dtype complex128.*numpy.hstack"),
    "dates": (np.zeros((2, 2), "M8[s]"), "dtype datetime64.*date columns"),
    "durations": (np.zeros((2, 2), "m8[s]"), "dtype timedelta64.*date columns"),
    "records": (np.zeros((2, 2), [("x", "f4"), ("y", "f4")]), "structured_to_unstructured"),
    "void": (np.zeros((2, 2), "V3"), r"dtype \|V3"),
    "masked": (np.ma.masked_equal(matrix(), 5), r"masked values, first in row 1 \(1 rows.*filled"),
    "huge integers": ([[2**70, 1]], "dtype object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_name_and_advice(case):
    value, message = REFUSED[case]
    with pytest.raises(InputError, match=f"(?s)things.*{message}" if "things" not in message else message):
        as_vectors(value, name="things")


@pytest.mark.parametrize("case", [case for case in REFUSED if case not in ("one row", "a generator")])
def test_queries_are_refused_alike(case):
    value, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        as_queries(value, name="things")


def test_wrong_dimension():
    with pytest.raises(DimensionError, match="probes has 4 columns, but 8-dim"):
        as_vectors(matrix(), dim=8, name="probes")
    with pytest.raises(DimensionError, match="queries has 3 columns"):
        as_queries([1.0, 2.0, 3.0], dim=8)
    with pytest.raises(DimensionError, match="queries has 0 columns"):
        as_queries([[]], dim=8)
    with pytest.raises(DimensionError):
        as_vectors(np.empty((0, 3)), dim=8)


# --- queries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NARROW)
def test_one_query_or_many(kind):
    value = matrix(NARROW[kind])
    many, single = as_queries(value, dim=4)
    assert (many.kind, many.array is value, single) == (kind, True, False)
    one, single = as_queries(value[1], dim=4)
    assert (one.kind, one.array.shape, single) == (kind, (1, 4), True)
    assert np.shares_memory(one.array, value)


def test_queries_of_any_layout():
    value = matrix(dim=8)
    for query in (value[0, ::2], value[0, :4][::-1], value[:, 0], value[0, :4].astype(np.float64)):
        queries, single = as_queries(query, dim=len(query))
        assert single
        assert queries.array.flags.c_contiguous
        np.testing.assert_array_equal(queries.array[0], query)
    assert as_queries(value.T, dim=3)[0].array.flags.c_contiguous
    assert as_queries(value)[0].array is value  # without dim too


def test_the_door_is_quick():
    row = np.zeros(128, np.float32)
    seconds = min(timeit.repeat(lambda: as_queries(row, dim=128), number=2000, repeat=20)) / 2000
    assert seconds < 5e-6  # 0.8 µs on a busy 2-core machine; wide, for slower ones


# --- bits -------------------------------------------------------------------------------------------------------------


def test_packed_bits():
    packed = np.packbits(np.eye(3, 16, dtype=bool), axis=1)
    vectors = as_vectors(packed, bits=True, dim=2)
    assert (vectors.kind, vectors.array is packed) == ("bits", True)
    assert as_vectors(packed.tolist(), bits=True).array.tolist() == packed.tolist()
    one, single = as_queries(packed[0], bits=True, dim=2)
    assert (one.array.shape, one.kind, single) == ((1, 2), "bits", True)
    assert as_queries(bytearray(b"ab"), bits=True)[0].array.tolist() == [[97, 98]]
    assert as_vectors(np.asfortranarray(packed), bits=True).array.flags.c_contiguous


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((2, 16), bool), r"dtype bool.*numpy.packbits\(vectors, axis=1\)"),
        (np.zeros((2, 4), np.float32), "dtype float32.*packbits.values > 0"),
        (np.zeros((2, 4), np.int8), r"dtype int8.*view\(numpy.uint8\)"),
        ([[256, 0]], "integers from 0 to 256"),
        ([[-1, 0]], "integers from -1 to 0"),
        ([["a", "b"]], "dtype <U1"),
    ],
)
def test_other_things_are_no_bits(value, message):
    with pytest.raises(InputError, match=message):
        as_vectors(value, bits=True)
    with pytest.raises(DimensionError):
        as_vectors(np.zeros((2, 3), np.uint8), bits=True, dim=4)


# --- bfloat16 and other libraries -------------------------------------------------------------------------------------

BFLOAT16 = np.array([[0x3FC0, 0x4000], [0xC040, 0x0000]], np.uint16)
BFLOAT16_VALUES = [[1.5, 2.0], [-3.0, 0.0]]


class Tensor:
    """What a tensor library offers: DLPack and nothing else, with the type code that the test asks for."""

    def __init__(self, data, code=None, device=1, dtype=None):
        self.data, self.code, self.device_kind = data, code, device
        if dtype:
            self.dtype = dtype

    def __dlpack_device__(self):
        return (self.device_kind, 0)

    def __dlpack__(self, **_):
        capsule = self.data.__dlpack__()
        if self.code is not None:
            pointer = ctypes.pythonapi.PyCapsule_GetPointer
            pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
            ctypes.c_uint8.from_address(pointer(capsule, b"dltensor") + 20).value = self.code
        return capsule


def test_dlpack_is_not_copied():
    value = matrix()
    assert np.shares_memory(as_vectors(Tensor(value)).array, value)


@pytest.mark.parametrize("dtype", [None, "torch.bfloat16", "bfloat16"])
def test_bfloat16_by_dlpack(dtype):
    value = BFLOAT16.copy()
    vectors = as_vectors(Tensor(value, code=4, dtype=dtype), dim=2)
    assert (vectors.kind, vectors.array.dtype) == ("bfloat16", np.uint16)
    assert np.shares_memory(vectors.array, value)
    assert vectors.as_float32().tolist() == BFLOAT16_VALUES
    one, single = as_queries(Tensor(value[0], code=4, dtype=dtype))
    assert (one.kind, one.array.shape, single) == ("bfloat16", (1, 2), True)


def test_dlpack_frees_what_it_borrowed():
    value = BFLOAT16.copy()
    before = sys.getrefcount(value)
    vectors = as_vectors(Tensor(value, code=4))
    assert sys.getrefcount(value) > before
    del vectors
    assert sys.getrefcount(value) == before


def test_unknown_dlpack_types_are_refused():
    with pytest.raises(InputError, match=r"a test_arrays\.Tensor and cannot be read as an array"):
        as_vectors(Tensor(matrix(np.uint16), code=3))


@pytest.mark.parametrize("device", [2, 4, 8, 10])
def test_other_devices_are_refused(device):
    with pytest.raises(InputError, match=r"vectors is a test_arrays.Tensor on device.*vectors.cpu\(\)"):
        as_vectors(Tensor(matrix(), device=device))


def test_gradients_are_refused():
    tensor = Tensor(matrix())
    tensor.requires_grad = True
    with pytest.raises(InputError, match=r"requires gradients; pass vectors.detach\(\)"):
        as_vectors(tensor)


def test_bfloat16_by_name():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    value = np.array(BFLOAT16_VALUES, ml_dtypes.bfloat16)
    vectors = as_vectors(value)
    assert (vectors.kind, vectors.array.dtype) == ("bfloat16", np.uint16)
    assert np.shares_memory(vectors.array, value)
    assert vectors.as_float32().tolist() == BFLOAT16_VALUES
    assert as_vectors(value.T).as_float32().tolist() == np.array(BFLOAT16_VALUES).T.tolist()
    assert as_vectors(list(value)).kind == "bfloat16"
    with pytest.raises(InputError, match="dtype bfloat16, but this metric takes packed bits"):
        as_vectors(value, bits=True)
    with pytest.raises(InputError, match=r"dtype float8_e4m3fn.*astype\(numpy.float32\)"):
        as_vectors(value.astype(ml_dtypes.float8_e4m3fn))


def test_torch():
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(BFLOAT16_VALUES)
    assert np.shares_memory(as_vectors(tensor).array, tensor.numpy())
    assert as_vectors(tensor.to(torch.bfloat16)).as_float32().tolist() == BFLOAT16_VALUES
    assert as_vectors(tensor.half()).kind == "float16"
    with pytest.raises(InputError, match="detach"):
        as_vectors(tensor.requires_grad_())


def test_any_object_with_an_array():
    class Wrapped:
        def __array__(self, dtype=None, copy=None):
            return matrix(np.float16)

    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("out of order")

    assert as_vectors(Wrapped()).kind == "float16"
    with pytest.raises(InputError, match=r"vectors is a test_arrays.*Broken and cannot be read.*out of order"):
        as_vectors(Broken())


def test_sparse_matrices_are_refused():
    sparse = pytest.importorskip("scipy.sparse")
    for value in (sparse.csr_matrix(matrix()), sparse.coo_array(matrix())):
        with pytest.raises(InputError, match=r"scipy\.\w+, but dense vectors.*vectors.toarray\(\)"):
            as_vectors(value)


# --- frames and Arrow -------------------------------------------------------------------------------------------------


def fixed_size(pa, value, dtype="f4"):
    return pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(value, dtype).ravel()), np.shape(value)[1])


@pytest.mark.parametrize(
    ("dtype", "kind"), [("f4", "float32"), ("f2", "float16"), ("f8", "float32"), ("i1", "int8"), ("u1", "uint8")]
)
def test_arrow_columns(dtype, kind):
    pa = pytest.importorskip("pyarrow")
    column = fixed_size(pa, matrix(), dtype)
    lists = pa.ListArray.from_arrays(pa.array([0, 4, 8, 12], pa.int32()), column.flatten())
    table = pa.table({"vector": column})
    large = lists.cast(pa.large_list(column.type.value_type))
    chunked = pa.chunked_array([column[:1], column[1:]])
    for value in (column, column[1:], lists, lists[1:], large, chunked, table, table["vector"], table.to_batches()[0]):
        vectors = as_vectors(value)
        assert vectors.kind == kind
        np.testing.assert_array_equal(vectors.array, matrix()[-len(value) :])


def test_arrow_is_not_copied():
    pa = pytest.importorskip("pyarrow")
    value = matrix()
    column = pa.FixedSizeListArray.from_arrays(pa.array(value.ravel()), 4)
    for shared in (column, column[1:], pa.table({"vector": column})):
        assert np.shares_memory(as_vectors(shared).array, value)


def test_arrow_by_the_capsule_alone():
    pa = pytest.importorskip("pyarrow")
    column = fixed_size(pa, matrix())

    class OneArray:
        def __arrow_c_array__(self, requested_schema=None):
            return column.__arrow_c_array__(requested_schema)

    class Stream:
        def __init__(self, value):
            self.value = value

        def __arrow_c_stream__(self, requested_schema=None):
            return self.value.__arrow_c_stream__(requested_schema)

    chunked = pa.chunked_array([column[:2], column[2:], column[:0]])
    for value in (OneArray(), Stream(pa.table({"v": chunked}))):
        np.testing.assert_array_equal(as_vectors(value).array, matrix())
    if int(pa.__version__.partition(".")[0]) < 16:
        with pytest.raises(InputError, match="Stream and cannot be read"):
            as_vectors(Stream(chunked))
    else:
        np.testing.assert_array_equal(as_vectors(Stream(chunked)).array, matrix())
        assert as_vectors(Stream(pa.chunked_array([], column.type)), dim=4).array.shape == (0, 4)


def test_arrow_numbers():
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": [1.0, 2.0], "b": [3, 4]})
    assert as_vectors(table).array.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    queries, single = as_queries(table["a"], dim=2)
    assert (single, queries.array.tolist()) == (True, [[1.0, 2.0]])
    for scalar in (pa.array([[1.0, 2.0]])[0], fixed_size(pa, [[1.0, 2.0]])[0]):
        queries, single = as_queries(scalar, dim=2)
        assert (single, queries.array.tolist()) == (True, [[1.0, 2.0]])
    assert as_ids(pa.array([5, 3])).tolist() == [5, 3]
    assert as_mask_or_ids(pa.array([True, False]), n_mask=2).tolist() == [True, False]
    tensor = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [4]), fixed_size(pa, matrix()))
    np.testing.assert_array_equal(as_vectors(tensor).array, matrix())


def test_arrow_refusals():
    pa = pytest.importorskip("pyarrow")
    width = pa.list_(pa.float32(), 2)
    cases = [
        (pa.array([[1, 2], None], width), "no value in row 1"),
        (pa.chunked_array([pa.array([[1, 2]], width), pa.array([[1, 2], [3, None]], width)]), "null value in row 2"),
        (pa.array([[1.0, 2.0], [3.0]]), "ragged: row 1 has 1 values, but row 0 has 2"),
        (pa.chunked_array([pa.array([[1.0, 2.0]]), pa.array([[3.0]])]), "ragged: row 1 has 1 values"),
        (pa.array(["a", "b"]), "type string, but numbers"),
        (pa.array([["a"], ["b"]]), "type list.*but numbers"),
        (pa.table({"v": [[1.0]], "id": [1]}), r"columns v, id.*unlike v \(list.*select"),
        (pa.table({"a": [1.0], "b": ["x"]}), r"unlike b \(string\)"),
    ]
    for value, message in cases:
        with pytest.raises(InputError, match=f"(?s)things.*{message}"):
            as_vectors(value, name="things")


def test_arrow_without_pyarrow(monkeypatch):
    capsule = types.SimpleNamespace(__arrow_c_array__=lambda requested_schema=None: None)
    monkeypatch.setattr("nearly.arrays.arrow.has_pyarrow", lambda: False)
    with pytest.raises(ImportError, match=r'vectors is a .*pip install "nearly\[arrow\]"'):
        as_vectors(capsule)


@pytest.mark.parametrize("pyarrow", [True, False])
def test_polars(monkeypatch, pyarrow):
    pl = pytest.importorskip("polars")
    if pyarrow:
        pytest.importorskip("pyarrow")
    else:
        monkeypatch.setattr("nearly.arrays.arrow.has_pyarrow", lambda: False)
    rows = [[1.0, 2.0], [3.0, 4.0]]
    column = pl.Series("v", rows, dtype=pl.Array(pl.Float32, 2))
    lists = pl.Series("v", rows, dtype=pl.List(pl.Float32))
    frame = pl.DataFrame({"a": [1.0, 3.0], "b": [2, 4]})
    for value in (column, lists, column.to_frame(), lists.to_frame(), frame):
        vectors = as_vectors(value)
        assert vectors.kind == "float32"
        assert vectors.array.tolist() == rows
    assert as_ids(pl.Series([4, 2])).tolist() == [4, 2]
    with pytest.raises(InputError, match=r"ragged|cannot become"):
        as_vectors(pl.Series([[1.0], [1.0, 2.0]]))
    with pytest.raises(InputError):
        as_vectors(pl.DataFrame({"a": [1.0], "b": ["x"]}))


def test_pandas():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1.0, 3.0], "b": [2, 4]}, index=[7, 9])
    rows = [[1.0, 2.0], [3.0, 4.0]]
    column = pd.Series(rows, index=[7, 9])
    arrays = pd.Series([np.array(row, np.float32) for row in rows])
    for value in (frame, column, arrays, column.to_frame()):
        assert as_vectors(value).array.tolist() == rows
    assert as_ids(frame.index, n=2).tolist() == [7, 9]
    assert as_mask_or_ids(frame["a"] > 2, n_mask=2).tolist() == [False, True]
    with pytest.raises(InputError, match=r"dtype object.*vectors\[0\]\[1\] is 'x'"):
        as_vectors(pd.DataFrame({"a": [1.0], "b": ["x"]}))
    with pytest.raises(InputError, match="ragged: row 1 has 1 values, but row 0 has 2"):
        as_vectors(pd.Series([[1.0, 2.0], [3.0]]))


def test_duckdb_relations():
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    relation = duckdb.sql("SELECT [i, i + 1]::FLOAT[2] AS v FROM range(3) t(i)")
    if not hasattr(relation, "__arrow_c_stream__"):
        pytest.skip("this DuckDB has no Arrow PyCapsule interface")
    assert as_vectors(relation).array.tolist() == [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]


# --- finite -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def core(monkeypatch):
    """The real core where it is built, else NumPy in its place."""
    try:
        import nearly._core  # noqa: F401
    except ImportError:

        def first_nonfinite(array, bfloat16=False):
            rows = Vectors(array, "bfloat16" if bfloat16 else "float32").as_float32()
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            return int(bad[0]) if len(bad) else -1

        monkeypatch.setitem(sys.modules, "nearly._core", types.SimpleNamespace(first_nonfinite=first_nonfinite))


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_nan_and_infinity_are_refused(kind):
    value = np.ones((5000, 3), np.float32)
    value[4200:4202, 1] = np.nan
    value[4200, 2] = -np.inf

    def prepared(rows):
        if kind == "bfloat16":
            return Vectors((rows.view(np.uint32) >> 16).astype(np.uint16), kind)
        return as_vectors(rows.astype(kind))

    check_finite(prepared(value[:4200]))
    message = "probes.*row 4200 holds 1 NaN and 1 infinite values, the first in column 1 .2 of 5000 rows"
    with pytest.raises(InputError, match=message):
        check_finite(prepared(value), "probes")


@pytest.mark.usefixtures("core")
def test_nothing_and_integers_are_finite():
    check_finite(as_vectors([], dim=3))
    check_finite(as_vectors(matrix(np.uint8)))
    check_finite(as_vectors(matrix(np.uint8), bits=True))


# --- ids and masks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        [3, 1, 2],
        (3, 1, 2),
        np.array([3, 1, 2], np.uint8),
        np.array([3, 1, 2], ">i4"),
        np.array([3, 9, 1, 9, 2, 9])[::2],
    ],
)
def test_ids(value):
    ids = as_ids(value, n=3)
    assert (ids.dtype, ids.tolist(), ids.flags.c_contiguous) == (np.int64, [3, 1, 2], True)


def test_ids_of_other_kinds():
    ready = np.array([5, 6])
    assert as_ids(ready) is ready
    assert as_ids(range(2, 8, 3)).tolist() == [2, 5]
    assert as_ids(range(0)).tolist() == as_ids([]).tolist() == []
    assert as_ids(7).tolist() == as_ids(np.int32(7), n=1).tolist() == [7]
    assert as_ids([2, 2], unique=False).tolist() == [2, 2]
    assert as_ids([2**63 - 1]).tolist() == [2**63 - 1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "keys holds 2 ids, but there are 3 vectors"),
        ([1.0, 2.0, 3.0], r"dtype float64, but one integer.*keys.astype\(numpy.int64\)"),
        ([True, False, True], "dtype bool"),
        (True, "keys is True"),
        (1.5, "keys is 1.5"),
        ([[1], [2], [3]], r"shape \(3, 1\)"),
        ([3, -1, -7], "keys holds -7, -1, but ids are >= 0"),
        (np.array([1, 2, 2**63], np.uint64), "9223372036854775808, but ids are int64"),
        ([1, 2, 2**64], "dtype object"),
        ([5, 2, 5], "distinct, but 5 is repeated"),
        (["a", "b", "c"], "dtype <U1"),
        ("abc", "keys is 'abc'"),
        (None, "keys is None"),
    ],
)
def test_bad_ids(value, message):
    with pytest.raises(InputError, match=message):
        as_ids(value, n=3, name="keys")


def test_bad_ids_are_key_errors_and_list_a_few():
    with pytest.raises(IdError, match=r"0, 1, 2, 3, 4 and 95 more are repeated") as caught:
        as_ids(np.repeat(np.arange(100), 2))
    assert isinstance(caught.value, KeyError)
    with pytest.raises(IdError, match="-100, -99, -98, -97, -96 and 95 more"):
        as_ids(-np.arange(1, 101))


@given(st.lists(st.integers(0, 30), max_size=12))
def test_ids_are_distinct_or_refused(values):
    if len(set(values)) == len(values):
        assert as_ids(values).tolist() == values
    else:
        with pytest.raises(IdError, match="repeated"):
            as_ids(values)


def test_masks_and_ids():
    mask = np.array([True, False, True])
    assert as_mask_or_ids(mask, n_mask=3) is mask
    assert as_mask_or_ids(mask.tolist(), n_mask=3).dtype == np.bool_
    ids = as_mask_or_ids([9, 2, 9], n_mask=3)
    assert (ids.dtype, ids.tolist()) == (np.int64, [9, 2, 9])
    assert as_mask_or_ids([], n_mask=3).dtype == np.int64
    assert as_mask_or_ids([1, 0], n_mask=2).tolist() == [1, 0]
    assert as_mask_or_ids(np.empty(0, bool), n_mask=0).dtype == np.bool_
    assert as_mask_or_ids(np.array([True, False] * 3)[::2], n_mask=3).flags.c_contiguous


@pytest.mark.parametrize(
    ("where", "n_mask", "error", "message"),
    [
        ([True, False], 3, InputError, r"shape \(2,\), but one entry per id 0 to 2"),
        (np.ones((3, 1), bool), 3, InputError, r"shape \(3, 1\)"),
        (np.empty(0, bool), 3, InputError, r"shape \(0,\)"),
        ([True, False], None, InputError, "positions mean nothing; pass the ids"),
        ([0, 1, 1], 3, InputError, "like a mask; pass where.astype"),
        ([1.0, 2.0], 3, InputError, "dtype float64, but a boolean mask or integer ids"),
        ([-1, 2], 3, IdError, "holds -1"),
        ("year > 2000", 3, InputError, "where is 'year > 2000'.*collections"),
        (lambda i: True, 3, InputError, "where is a function.*collections"),
    ],
)
def test_bad_masks(where, n_mask, error, message):
    with pytest.raises(error, match=message):
        as_mask_or_ids(where, n_mask=n_mask)


# --- small arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [10, np.int64(10), np.uint8(10), np.array(10)])
def test_integers(value):
    assert check_k(value) == 10
    assert type(check_k(value)) is int


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_k(0), "k is 0, but an integer from 1 to 2147483647 is wanted"),
        (lambda: check_k(True), "k is True"),
        (lambda: check_k(np.True_), r"k is (np\.)?True"),
        (lambda: check_k(10.0), "k is 10.0.*pass k=10"),
        (lambda: check_k(1.5), r"k is 1.5, but an integer from 1 to 2147483647 is wanted$"),
        (lambda: check_k(float("inf")), "k is inf"),
        (lambda: check_k("10"), "k is '10'"),
        (lambda: check_k(None), "k is None"),
        (lambda: check_k([10]), "k is a list"),
        (lambda: check_seed(-1), "seed is -1, but an integer from 0 to"),
        (lambda: check_seed(2**64), "seed is 18446744073709551616"),
        (lambda: check_seed(None), "seed is None"),
        (lambda: check_seed(np.random.default_rng(0)), "seed is a numpy.Generator"),
        (lambda: check_int(9, "bits", low=1, high=8), "bits is 9, but an integer from 1 to 8"),
        (lambda: check_real("1", "radius"), "radius is '1', but a finite number is wanted"),
        (lambda: check_real(float("nan"), "radius"), "radius is nan"),
        (lambda: check_real(float("inf"), "radius"), "radius is inf"),
        (lambda: check_real(10**400, "radius"), "radius is 1000"),
        (lambda: check_real(True, "radius"), "radius is True"),
        (lambda: check_real(1j, "radius"), "radius is 1j"),
        (lambda: check_real(np.array([1.0]), "radius"), r"radius is an array of shape \(1,\)"),
        (lambda: check_real(-1, "radius", low=0), "radius is -1, but a finite number from 0 on"),
        (lambda: check_real(3, "radius", low=0, high=2), "radius is 3, but a finite number from 0 to 2"),
        (lambda: check_positive(0, "alpha"), "alpha is 0, but a number above 0"),
        (lambda: check_fraction(0, "recall"), "recall is 0, but a number above 0 and up to 1"),
        (lambda: check_fraction(95, "recall"), "recall is 95.*for 95 % pass 0.95"),
        (lambda: check_fraction(-0.1, "recall"), r"recall is -0.1, but a number above 0 and up to 1 is wanted$"),
        (
            lambda: check_choice("Given", ("random", "given"), "order"),
            "order is 'Given'.*'random', 'given'.*did you mean",
        ),
        (lambda: check_choice("zzz", ("random", "given"), "order"), "'random', 'given' is wanted$"),
        (lambda: check_choice(3, ("random", "given"), "order"), "order is 3, but one of"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_good_arguments():
    assert check_seed(2**64 - 1) == 2**64 - 1
    assert check_int(8, "bits", low=1, high=8) == 8
    assert check_real(np.float32(0.5), "radius") == 0.5
    assert check_real(-3, "radius") == -3.0
    assert check_positive(1e-9, "alpha") == 1e-9
    assert check_fraction(1, "recall") == 1.0
    assert check_choice("given", {"given": 1, "random": 2}, "order") == "given"


def test_the_door_imports_nothing_heavy():
    import subprocess

    code = "import sys, nearly.arrays, nearly.hits; print([m for m in sys.modules if m in sys.argv])"
    heavy = ["pyarrow", "pandas", "polars", "scipy", "duckdb", "typer", "rich", "h5py", "torch"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
