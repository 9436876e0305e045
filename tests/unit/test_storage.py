"""The file format: what is written comes back, what is damaged is refused, what was there survives every failure."""

import concurrent.futures
import contextlib
import fcntl
import itertools
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nearly import storage
from nearly.errors import FormatError, InputError, StateError
from nearly.storage import layout, writing

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fuzz"))
import fuzz_storage

DTYPES = [np.dtype(text) for text in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index.nearly"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def write(path, arrays=None, config=None, *, kind="test", **rest):
    return storage.write(path, {} if arrays is None else arrays, {} if config is None else config, kind=kind, **rest)


def header(path):
    octets = path.read_bytes()
    return json.loads(octets[8 : 8 + int.from_bytes(octets[:8], "little")])


def change_header(path, change):
    """Rewrite the header after `change(table, ours)`, sealed as an attacker would; the data stays where it is."""
    octets = path.read_bytes()
    table = header(path)
    ours = json.loads(table["__metadata__"]["nearly"])
    change(table, ours)
    if "__metadata__" in table:
        table["__metadata__"]["nearly"] = json.dumps(ours)
    text = json.dumps(table, separators=(",", ":")).encode()
    path.unlink()
    path.write_bytes(fuzz_storage.reseal(fuzz_storage.keep_length(octets[:8] + text + data_of(octets), octets)))


def data_of(octets):
    return octets[8 + int.from_bytes(octets[:8], "little") :]


# Round trips


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_read_only_and_aligned(path, dtype, rng):
    arrays = {"odd": (rng.random(7) * 9).astype(dtype), "rows": (rng.random((5, 3)) * 9).astype(dtype)}

    n_bytes = write(path, arrays)

    file = storage.read(path)
    assert n_bytes == path.stat().st_size == file.n_bytes
    for name, array in arrays.items():
        found = file.arrays[name]
        np.testing.assert_array_equal(found, array, strict=True)
        assert found.ctypes.data % 64 == 0
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            found.flags.writeable = True
    file.verify()


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda s: s[:2] != "__")
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
LAYOUTS = [
    np.array,
    np.asfortranarray,
    np.transpose,
    lambda array: array[..., ::-1] if array.ndim else array,
    lambda array: array[:0] if array.ndim else array,
    lambda array: array.astype(array.dtype.newbyteorder(">")),
]
ARRAYS = st.builds(
    lambda array, change: change(array),
    st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES)),
    st.sampled_from(LAYOUTS),
)


@settings(max_examples=60, deadline=None)
@given(arrays=st.dictionaries(NAMES, ARRAYS, max_size=5), config=st.dictionaries(st.text(), JSON, max_size=4))
def test_whatever_is_written_comes_back(tmp_path_factory, arrays, config):
    path = tmp_path_factory.getbasetemp() / "hypothesis.nearly"
    write(path, arrays, config)

    with storage.read(path) as file:
        assert file.config == config
        assert json.dumps(file.config, sort_keys=True) == json.dumps(config, sort_keys=True)  # 1 is not 1.0 or True
        assert file.arrays.keys() == arrays.keys()
        for name, array in arrays.items():
            assert file.arrays[name].dtype == array.dtype.newbyteorder("<")
            assert file.arrays[name].shape == array.shape
            assert file.arrays[name].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()  # NaNs too
        file.verify()


def test_same_content_gives_the_same_bytes(tmp_path):
    a, b = np.arange(5), np.eye(3)
    write(tmp_path / "1", {"a": a, "b": b}, {"x": 1, "y": {"p": 2, "q": 3}})
    write(tmp_path / "2", {"b": np.asfortranarray(b), "a": a.astype(">i8")}, {"y": {"q": 3, "p": 2}, "x": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_blocks_are_streamed_into_one_array(path, rng):
    whole = rng.random((100, 6)).astype(np.float32)
    blocks = (whole[i : i + 7] for i in range(0, 100, 7))
    write(path, {"rows": storage.Blocks(whole.shape, np.float32, blocks), "z": storage.Blocks((0,), "u1", [])})
    file = storage.read(path)
    np.testing.assert_array_equal(file.arrays["rows"], whole)
    assert file.arrays["z"].shape == (0,)
    file.verify()


def test_writing_a_strided_array_does_not_copy_it_whole(path):
    strided = np.zeros((8 << 20, 4), np.float32)[:, :3]  # 96 MiB of content
    tracemalloc.start()
    try:
        write(path, {"rows": strided})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20  # two chunks of 16 MiB


def test_bfloat16_is_marked_in_the_file_and_uint16_in_memory(path):
    patterns = np.array([0x3F80, 0x4000], np.uint16)  # 1.0 and 2.0
    write(path, {"a": patterns, "b": patterns}, bfloat16={"a"})
    file = storage.read(path)
    assert file.bfloat16 == {"a"}
    np.testing.assert_array_equal(file.arrays["a"], patterns, strict=True)
    assert storage.require(file, "a", "bfloat16", (2,)) is file.arrays["a"]
    assert storage.require(file, "b", np.uint16, (2,)) is file.arrays["b"]
    with pytest.raises(FormatError, match=r"is bfloat16 .* but uint16"):
        storage.require(file, "a", np.uint16, (2,))
    with pytest.raises(FormatError, match=r"is uint16 .* but bfloat16"):
        storage.require(file, "b", "bfloat16", (2,))


def test_a_bool_array_of_odd_octets_is_written_as_zeros_and_ones(path):
    write(path, {"mask": np.array([0, 1, 2, 255], np.uint8).view(bool)})
    assert storage.read(path).arrays["mask"].view(np.uint8).tolist() == [0, 1, 1, 1]


# The library as an oracle


def test_the_library_reads_what_we_write(path, rng):
    safetensors = pytest.importorskip("safetensors")
    from safetensors.numpy import load

    arrays = {str(dtype): (rng.random((i, 3)) * 9).astype(dtype) for i, dtype in enumerate(DTYPES)}
    arrays['a "quoted" näme\n'] = np.array(1.5)
    write(path, arrays | {"bits": np.array([0x3F80], np.uint16)}, {"metric": "l2"}, bfloat16=["bits"])

    described = dict(safetensors.deserialize(path.read_bytes()))
    assert described["bits"]["dtype"] == "BF16"
    assert bytes(described["bits"]["data"]) == b"\x80\x3f"
    with safetensors.safe_open(path, "numpy") as opened:
        assert json.loads(opened.metadata()["nearly"])["config"] == {"metric": "l2"}
    write(path, arrays)
    loaded = load(path.read_bytes())
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded.pop(name), array, strict=True)
    assert all(name.startswith("__pad") and not padding.any() for name, padding in loaded.items())


def test_a_file_of_the_library_is_called_foreign(path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    save_file({"x": np.eye(2)}, path)
    with pytest.raises(FormatError, match="safetensors file of another program"):
        storage.read(path)
    save_file({"x": np.eye(2)}, path, metadata={"format": "pt"})
    with pytest.raises(FormatError, match="safetensors file of another program"):
        storage.read(path)


# Damage


def test_thousands_of_mutations_are_sound(tmp_path):
    counts = fuzz_storage.run(tmp_path, seed=0, mutations=2500)
    ends = {(mutator.__name__, "refused") for mutator in fuzz_storage.PLAIN + fuzz_storage.RESEALED}
    assert ends <= counts.keys()  # every kind of damage was tried
    assert counts["edit_resealed", "accepted"] > 20  # and some of it went through every check
    assert counts["relayout", "accepted"] > 20


def test_every_single_bit_of_the_header_is_guarded(path):
    write(path, {"a": np.arange(3)}, {"degree": 32})
    octets = path.read_bytes()
    used = len(octets[:4096].rstrip(b" "))
    for i in [*range(used), *range(used, 4096, 97)]:
        mutant = bytearray(octets)
        mutant[i] ^= 1 << (i % 8)
        path.unlink()
        path.write_bytes(mutant)
        with pytest.raises(FormatError):
            storage.read(path)


@pytest.mark.parametrize("array", ["a", "__pad0", "z"])
def test_verify_names_the_array_that_changed(path, array):
    write(path, {"a": np.arange(3, dtype=np.uint8), "z": np.arange(9.0)})
    octets = bytearray(path.read_bytes())
    octets[4096 + header(path)[array]["data_offsets"][1] - 1] ^= 4
    path.write_bytes(octets)
    file = storage.read(path)
    with pytest.raises(FormatError, match=f"checksum of array '{array}'"):
        file.verify()


def test_a_bool_octet_that_is_neither_0_nor_1_is_refused_at_once(path):
    write(path, {"mask": np.ones(3, bool)})
    path.write_bytes(path.read_bytes()[:-1] + b"\x03")
    with pytest.raises(FormatError, match="'mask' is bool"):
        storage.read(path)


def test_truncation_says_how_much_is_missing(path):
    write(path, {"a": np.zeros(100, np.uint8)})
    octets = path.read_bytes()
    for kept, message in [
        (len(octets) - 30, "truncated: 30 of 4196 bytes are missing"),
        (4096, "truncated: 100 of 4196 bytes are missing"),
        (4000, "truncated: at least 96 bytes are missing"),
        (4, "not a nearly file"),
        (0, "empty"),
    ]:
        path.write_bytes(octets[:kept])
        with pytest.raises(FormatError, match=message) as caught:
            storage.read(path)
        assert str(path) in str(caught.value)
    path.write_bytes(octets + b"xy")
    with pytest.raises(FormatError, match="2 bytes more"):
        storage.read(path)


def test_a_newer_file_asks_for_an_upgrade(path):
    write(path, {"a": np.arange(3)})
    change_header(path, lambda table, ours: ours.update(version=storage.FORMAT_VERSION + 1))
    with pytest.raises(FormatError, match=r"version 2, .* reads up to 1; upgrade"):
        storage.read(path)


def entry(key, value):
    return lambda table, ours: table["b"].update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (entry("dtype", "F8_E4M3"), "unknown dtype 'F8_E4M3'"),
        (entry("dtype", ["F32"]), "unknown dtype"),
        (entry("shape", [True, 4]), "impossible shape"),
        (entry("shape", [-1, -4]), "impossible shape"),
        (entry("shape", [4.0]), "impossible shape"),
        (entry("shape", {"0": 4}), "impossible shape"),
        (entry("shape", [2**32, 2**32, 0]), "impossible shape"),  # NumPy multiplies before it meets the 0
        (entry("shape", [2**63, 2]), "impossible shape"),  # 2**64 elements: 0 to whoever multiplies in 64 bits
        (entry("shape", [1] * 33 + [4]), "impossible shape"),
        (entry("shape", [5]), "which its shape denies"),
        (entry("data_offsets", [64, 64]), "which its shape denies"),
        (entry("data_offsets", [80, 64]), "which its shape denies"),
        (entry("data_offsets", [-64, -48]), "which its shape denies"),
        (entry("data_offsets", [True, 80]), "impossible offsets"),
        (entry("data_offsets", [64]), "impossible offsets"),
        (entry("data_offsets", [0, 16]), "begins at"),  # overlaps
        (entry("data_offsets", [128, 144]), "begins at"),  # a hole
        (entry("data_offsets", [2**63 - 64, 2**63 - 48]), "begins at"),
        (entry("strides", [4]), "nothing else"),
        (lambda table, ours: table.update(b=None), "needs dtype"),
        (lambda table, ours: table.update(__pad7=table.pop("b")), "no padding of ours"),
        (lambda table, ours: table.update(__secret=table.pop("b")), "a name or a place"),
        (lambda table, ours: table.update({"": table.pop("b")}), "a name or a place"),
        (lambda table, ours: table.update(c=table.pop("b")), "different names"),
        (lambda table, ours: table.update({"\ud800": table.pop("b")}), "not valid Unicode"),
        (lambda table, ours: ours["checksums"].pop("a"), "different names"),
        (lambda table, ours: ours["checksums"].update(a=7), "eight hexadecimal digits"),
        (lambda table, ours: ours["checksums"].update(a="0x12345f"), "eight hexadecimal digits"),
        (lambda table, ours: ours.update(checksums=[]), "no kind, config or checksums"),
        (lambda table, ours: ours.update(config=None), "no kind, config or checksums"),
        (lambda table, ours: ours.update(kind=""), "no kind, config or checksums"),
        (lambda table, ours: ours.update(format="nearby"), "neither our format"),
        (lambda table, ours: ours.update(version=True), "neither our format"),
        (lambda table, ours: ours.update(version=0), "neither our format"),
        (lambda table, ours: ours.update(version="1"), "neither our format"),
        (lambda table, ours: ours["config"].update(x=2**64), "beyond 64 bits"),
        (lambda table, ours: ours["config"].update(x=float("nan")), "NaN is no JSON"),
        (lambda table, ours: table["__metadata__"].update(extra=1), "not all metadata"),
        (lambda table, ours: table["__metadata__"].pop("crc32"), "eight hexadecimal digits"),
        (lambda table, ours: table.pop("__metadata__"), "another program"),
    ],
)  # fmt: skip
def test_a_resealed_header_is_still_checked(path, change, message):
    write(path, {"a": np.arange(3, dtype=np.uint8), "b": np.arange(4, dtype=np.float32)})
    assert header(path)["b"]["data_offsets"] == [64, 80]
    change_header(path, change)
    with pytest.raises(FormatError, match=message):
        storage.read(path)


def test_data_that_does_not_begin_at_a_page_is_refused(path):
    write(path, {"a": np.arange(3)})
    octets = path.read_bytes()
    text = octets[8:4096].rstrip()
    text = text.ljust(len(text) + -(8 + len(text)) % 64)
    path.unlink()
    path.write_bytes(fuzz_storage.reseal(len(text).to_bytes(8, "little") + text + data_of(octets)))
    with pytest.raises(FormatError, match="not at a multiple of 4096"):
        storage.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[1]", "not a nearly file"),
        (b"{" * 500_000, "nested more than 32 deep"),
        (b'{"a":' + b"[" * 32 + b"]" * 32 + b"}", "nested more than 32 deep"),
        (b'{"a":' + b"[" * 31 + b"]" * 31 + b"}", "another program"),
        (b'{"a":"' + b"[" * 32 + b'"}', "another program"),
        (b'{"a":' + b"[" * 500_000, "nested more than 32 deep"),
        (b'{"a":"' + b'\\"' * 500_000, "not valid JSON"),
        (b'{"a":1,"a":1}', "a key occurs twice"),
        (b'{"a":' + b"9" * 900_000 + b"}", "beyond 64 bits"),
        (b'{"a":1e999}', "beyond the floats"),
        (b'{"a":1E+0999}', "beyond the floats"),
        (b'{"a":' + b"9" * 400 + b".0}", "beyond the floats"),
        (b'{"a":-9223372036854775809}', "beyond 64 bits"),
        (b'{"a":18446744073709551616}', "beyond 64 bits"),
        (b'{"a":[18446744073709551615,-9223372036854775808,1e308,1.7976931348623157E+308]}', "another program"),
        (b'{"a":Infinity}', "no JSON"),
        (b'{"a":"\xff"}', "not valid JSON"),
        ('{"a":1}'.encode("utf-16-le"), "not valid JSON"),
        (b'{"a":1} {}', "not valid JSON"),
        (b"{}", "another program"),
        (b'{"__metadata__":{"nearly":7}}', "another program"),
        (b'{"__metadata__":{"nearly":"[]","crc32":"00000000"}}', "checksum of the header"),
        (b'{"a":"' + b"x" * (1 << 20) + b'"}', "not a nearly file"),
    ],
    ids=itertools.count(),
)
def test_hostile_json_is_refused_quickly(path, text, message):
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    began = time.perf_counter()
    with pytest.raises(FormatError, match=message):
        storage.read(path)
    assert time.perf_counter() - began < 5  # 0.4 s measured at most; quadratic work would take minutes


def test_deep_json_is_refused_whatever_the_recursion_limit(path):
    text = b'{"a":' + b"[" * 300_000  # would run over the C stack
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10**7)
    try:
        with pytest.raises(FormatError, match="deep"):
            storage.read(path)
    finally:
        sys.setrecursionlimit(limit)


def test_what_is_no_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        storage.read(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        storage.read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):  # and does not wait for someone to write
        storage.read(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):
        storage.read("/dev/zero")


def test_a_huge_file_opens_without_reading_it(path):
    n_bytes = 1 << 36
    huge = layout.Entry("huge", "U8", (n_bytes,), 0, n_bytes)
    path.write_bytes(writing._header([huge], {}, "test", {"huge": 0}))
    os.truncate(path, 4096 + n_bytes)  # sparse: takes no room
    began = time.perf_counter()
    file = storage.read(path)
    assert time.perf_counter() - began < 1  # 5 ms measured; 64 GiB would take 10 s
    assert file.arrays["huge"][-1] == 0


# Writing: whole or not at all


def fail_after(block, error):
    yield block
    raise error


class Boom(Exception):
    pass


def interrupt(block):
    yield block
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell may have had it ignored
    signal.raise_signal(signal.SIGINT)
    yield block


FAILURES = {
    "iterator": (storage.Blocks((9, 2), "f4", fail_after(np.zeros((4, 2), "f4"), Boom())), Boom),
    "ctrl-c": (storage.Blocks((8, 2), "f4", interrupt(np.zeros((4, 2), "f4"))), KeyboardInterrupt),
    "few rows": (storage.Blocks((9, 2), "f4", [np.zeros((4, 2), "f4")]), InputError),
    "many rows": (storage.Blocks((3, 2), "f4", [np.zeros((4, 2), "f4")]), InputError),
    "block shape": (storage.Blocks((4, 2), "f4", [np.zeros((4, 3), "f4")]), InputError),
    "block dtype": (storage.Blocks((4, 2), "f4", [np.zeros((4, 2), "f8")]), InputError),
    "block list": (storage.Blocks((1,), "f4", [[1.0]]), InputError),
    "block scalar": (storage.Blocks((1,), "f4", [np.array(1, "f4")]), InputError),
}


@pytest.mark.parametrize(("source", "error"), FAILURES.values(), ids=FAILURES)
def test_a_failure_while_streaming_leaves_the_old_file(path, source, error):
    write(path, {"a": np.arange(3)})
    before, descriptors = path.read_bytes(), len(os.listdir("/dev/fd"))
    with pytest.raises(error):
        write(path, {"a": np.arange(9), "b": source})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    assert len(os.listdir("/dev/fd")) == descriptors


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "fchmod", "lseek"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "ctrl-c"])
def test_a_failure_of_the_system_leaves_the_old_file(path, monkeypatch, call, error):
    if call == "fsync" and sys.platform == "darwin":
        pytest.skip("macOS syncs by F_FULLFSYNC")
    write(path, {"a": np.arange(3)})
    before = path.read_bytes()

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(type(error)):
            write(path, {"a": np.arange(9)})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS syncs by F_FULLFSYNC")
def test_the_file_is_synced_before_the_rename_and_the_folder_after(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(stat.S_IFMT(os.fstat(fd).st_mode)), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("replace"), replace(*names)))
    write(path, {"a": np.arange(3)})
    assert calls == [stat.S_IFREG, "replace", stat.S_IFDIR]


def test_a_full_disk_leaves_the_old_file(path):
    write(path, {"a": np.arange(3)})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(path, {"a": np.zeros(1 << 20, np.uint8)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_killed_writer_leaves_the_old_file(path):
    write(path, {"a": np.arange(3)})
    before = path.read_bytes()
    script = f"""if True:
        import sys, time
        import numpy as np
        from nearly import storage
        def blocks():
            yield np.zeros((1000, 2))
            print("half", flush=True)
            time.sleep(60)
        storage.write({str(path)!r}, {{"a": storage.Blocks((2000, 2), "f8", blocks())}}, {{}}, kind="test")
    """
    source = str(Path(storage.__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout.readline() == b"half\n"
        writer.kill()
    assert path.read_bytes() == before
    leftovers = sorted(set(os.listdir(path.parent)) - {path.name})
    assert len(leftovers) == 1
    assert leftovers[0].startswith(".nearly-")
    half = (path.parent / leftovers[0]).read_bytes()
    assert len(half) > 4096
    assert not any(half[:4096])  # the header comes last, so a half-written file is never taken for a whole one
    others = (".nearly-notes.tmp", ".nearly-0123.tmp", f".nearly-{'0' * 24}.tmp.bak")
    for name in others:
        (path.parent / name).touch()
    write(path, {"a": np.arange(4)})  # removes what the killed one left, and nothing else
    assert sorted(os.listdir(path.parent)) == sorted([path.name, *others])


def test_a_file_that_is_being_written_is_no_leftover(path):
    seen = []

    def blocks():
        yield np.zeros((1, 2))
        write(path.with_name("other"), {"a": np.arange(3)})
        seen.extend(name for name in os.listdir(path.parent) if name.endswith(".tmp"))
        yield np.ones((1, 2))

    write(path, {"a": storage.Blocks((2, 2), "f8", blocks())})
    assert len(seen) == 1
    assert storage.read(path).arrays["a"].tolist() == [[0, 0], [1, 1]]


def test_a_file_taken_for_a_leftover_before_it_was_locked_is_made_anew(path, monkeypatch):
    flock, calls = fcntl.flock, []

    def late(descriptor, how):
        calls.append(how)
        if len(calls) == 1:
            (name,) = os.listdir(path.parent)
            os.unlink(path.parent / name)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write(path, {"a": np.arange(3)})
    assert len(calls) == 2
    assert os.listdir(path.parent) == [path.name]


def test_where_locks_are_refused_leftovers_stay(path, monkeypatch):
    leftover = path.with_name(f".nearly-{'a' * 24}.tmp")
    leftover.touch()

    def refuse(*_):
        raise OSError(95, "Operation not supported")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse)
        write(path, {"a": np.arange(3)})
    assert leftover.exists()
    write(path, {"a": np.arange(3)})
    assert not leftover.exists()


def test_many_writers_in_one_folder_do_not_remove_each_others_files(tmp_path):
    def save(i):
        for j in range(60):
            write(tmp_path / f"{i}", {"a": np.full(10, j)})

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(save, range(8)))
    assert sorted(os.listdir(tmp_path)) == [str(i) for i in range(8)]


def test_new_files_follow_the_umask_and_replaced_files_keep_their_permissions(path):
    before = os.umask(0o027)
    try:
        write(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o600)
        os.umask(0)
        write(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_write_protected_file_is_not_replaced(path, monkeypatch):
    write(path)
    path.chmod(0o400)
    if os.geteuid() == 0:  # nothing is write-protected for root
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(PermissionError):
        write(path, {"a": np.arange(3)})
    assert storage.read(path).arrays == {}


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "store").mkdir()
    target, link = tmp_path / "store" / "real.nearly", tmp_path / "link.nearly"
    link.symlink_to(Path("store") / "real.nearly")
    write(link, {"a": np.arange(3)})  # dangling at first
    write(link, {"a": np.arange(4)})
    assert link.is_symlink()
    assert len(storage.read(target).arrays["a"]) == 4
    assert os.listdir(tmp_path / "store") == ["real.nearly"]
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links"):
        write(loop)
    assert loop.is_symlink()


def test_what_is_no_file_is_not_replaced(tmp_path):
    with pytest.raises(IsADirectoryError):
        write(tmp_path)
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "missing" / "a.nearly")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="a pipe"):
        write(tmp_path / "pipe")
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize(
    ("arrays", "config", "rest", "message"),
    [
        ({"a": [1, 2]}, {}, {}, "'a' is a list"),
        ({"a": np.zeros(2, complex)}, {}, {}, "'a' is complex128"),
        ({"a": np.array(["x"])}, {}, {}, "'a' is <U1"),
        ({"a": np.array([None])}, {}, {}, "'a' is object"),
        ({"a": np.zeros(2, "M8[s]")}, {}, {}, "'a' is datetime64"),
        ({"a": np.zeros(2, "f4,f4")}, {}, {}, "only float16"),
        ({"": np.zeros(2)}, {}, {}, "not empty"),
        ({"__pad0": np.zeros(2)}, {}, {}, "two underscores"),
        ({"__metadata__": np.zeros(2)}, {}, {}, "two underscores"),
        ({"\ud800": np.zeros(2)}, {}, {}, "not valid Unicode"),
        ({3: np.zeros(2), "a": np.zeros(2)}, {}, {}, "must be a str"),
        ({"a": np.zeros(2)}, {}, {"bfloat16": {"b"}}, r"not there: \['b'\]"),
        ({"a": np.zeros(2)}, {}, {"bfloat16": {"a"}}, "passed as uint16"),
        ({"a": storage.Blocks((), "f4", [])}, {}, {}, "at least one dimension"),
        ({"a": storage.Blocks((-1,), "f4", [])}, {}, {}, "at least 0"),
        ({"a": storage.Blocks((2**62,), "f4", [])}, {}, {}, "too large"),
        ({"a": storage.Blocks((1,) * 33, "f4", [])}, {}, {}, "33 dimensions"),
        ({}, {1: 2}, {}, "key 1"),
        ({}, {"x": float("nan")}, {}, r"config\['x'\] is nan"),
        ({}, {"x": [1, {"y": float("inf")}]}, {}, r"config\['x'\]\[1\]\['y'\] is inf"),
        ({}, {"x": 2**64}, {}, "beyond 64 bits"),
        ({}, {"x": np.int64(3)}, {}, r"config\['x'\] is a int64"),
        ({}, {"x": b"y"}, {}, "is a bytes"),
        ({}, {"x": {1, 2}}, {}, "is a set"),
        ({}, {"x": "y" * (1 << 20)}, {}, "move large parts"),
        ({}, {}, {"kind": ""}, "kind is ''"),
        ({}, {}, {"kind": None}, "kind is None"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_happens(path, arrays, config, rest, message):
    with pytest.raises(InputError, match=message):
        write(path, arrays, config, **rest)
    assert os.listdir(path.parent) == []


def test_config_may_be_32_deep_and_no_deeper(path):
    def nested(depth):
        return {"x": nested(depth - 1)} if depth else None

    deepest = next(depth for depth in range(100, 0, -1) if _accepts(path, nested(depth)))
    assert deepest == 31  # the JSON object around config is one more
    write(path, {}, nested(deepest))
    assert storage.read(path).config == nested(deepest)
    circle = {}
    circle["x"] = circle
    with pytest.raises(InputError, match="nested"):
        write(path, {}, circle)


def _accepts(path, config):
    with contextlib.suppress(InputError):
        write(path, {}, config)
        return True
    return False


# Living with a mapping


def test_arrays_outlive_the_file_object_and_the_file(path):
    write(path, {"a": np.arange(1000)})
    with storage.read(path) as file:
        array = file.arrays["a"]
    path.unlink()
    del file
    assert array.sum() == 499500


def test_a_closed_file_says_so(path):
    write(path, {"a": np.arange(3)}, {"x": 1})
    file = storage.read(path)
    assert "1 arrays" in repr(file)
    file.close()
    file.close()
    assert file.arrays == {}
    assert file.config == {"x": 1}
    assert "closed" in repr(file)
    with pytest.raises(StateError, match="closed"):
        file.verify()


def test_a_mapping_ends_with_its_last_array(path):
    write(path, {"a": np.arange(3)})
    before = len(os.listdir("/dev/fd"))
    files = [storage.read(path) for _ in range(20)]
    arrays = [file.arrays["a"] for file in files]
    assert len(os.listdir("/dev/fd")) > before
    del files, arrays
    assert len(os.listdir("/dev/fd")) == before


def test_a_file_that_is_mapped_can_be_rewritten_from_its_own_arrays(path):
    write(path, {"a": np.arange(100)})
    file = storage.read(path)
    write(path, {"a": file.arrays["a"], "b": file.arrays["a"][::2]})
    np.testing.assert_array_equal(file.arrays["a"], np.arange(100))
    np.testing.assert_array_equal(storage.read(path).arrays["b"], np.arange(100)[::2])


def test_readers_see_an_old_or_a_new_file_and_nothing_between(path):
    write(path, {"a": np.zeros(5000, np.int64)}, {"value": 0})
    first = storage.read(path)
    failures, seen, done = [], set(), threading.Event()

    def read_on():
        try:
            while not done.is_set():
                with storage.read(path) as file:
                    file.verify()
                    assert (file.arrays["a"] == file.config["value"]).all()
                    seen.add(file.config["value"])
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read_on) for _ in range(2)]
    for reader in readers:
        reader.start()
    for value in range(1, 40):
        write(path, {"a": np.full(5000, value)}, {"value": value})
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(seen) > 1
    assert not first.arrays["a"].any()
    first.verify()


# What loaders ask


@pytest.fixture
def file(path):
    write(path, {"rows": np.zeros((5, 2), np.float32)}, {"n": 3, "x": 0.5, "s": "l2", "on": True, "sub": {"n": 4}})
    return storage.read(path)


def test_require_returns_what_fits(file):
    assert storage.require(file, "rows", np.float32, (None, 2)) is file.arrays["rows"]
    assert storage.require(file, "rows", "float32", [5, None]) is file.arrays["rows"]


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "message"),
    [
        ("cols", np.float32, (5,), r"array 'cols' is missing, but float32 of shape \(5\) is wanted"),
        ("rows", np.float64, (5, 2), r"is float32 of shape \(5, 2\), but float64 of shape \(5, 2\) is wanted"),
        ("rows", np.float32, (5, 3), r"but float32 of shape \(5, 3\)"),
        ("rows", np.float32, (None, 3), r"but float32 of shape \(any, 3\)"),
        ("rows", np.float32, (None,), r"but float32 of shape \(any\)"),
        ("rows", np.float32, (5, 2, 1), "but float32"),
        ("rows", "bfloat16", (5, 2), "but bfloat16"),
    ],
)
def test_require_says_what_came_and_what_was_wanted(file, name, dtype, shape, message):
    with pytest.raises(FormatError, match=message) as caught:
        storage.require(file, name, dtype, shape)
    assert file.path in str(caught.value)


def test_config_getters_return_what_fits(file):
    assert storage.config_int(file, "n", 3, 3) == 3
    assert storage.config_int(file, ("sub", "n")) == 4
    assert storage.config_float(file, "x", 0.5, 0.5) == 0.5
    assert isinstance(storage.config_float(file, "n"), float)
    assert storage.config_str(file, "s") == "l2"
    assert storage.config_str(file, "s", allowed=["l2"]) == "l2"
    assert storage.config_bool(file, "on") is True


@pytest.mark.parametrize(
    ("getter", "arguments", "options", "message"),
    [
        (storage.config_int, ("n", 4), {}, "config 'n' is 3, but an integer from 4 to"),
        (storage.config_int, ("n", 0, 2), {}, "config 'n' is 3, but an integer from 0 to 2 is wanted"),
        (storage.config_int, ("x",), {}, "config 'x' is 0.5, but an integer"),
        (storage.config_int, ("on",), {}, "config 'on' is True, but an integer"),
        (storage.config_int, ("gone",), {}, "config has no 'gone'"),
        (storage.config_int, (("sub", "gone"),), {}, "config has no 'sub/gone'"),
        (storage.config_int, (("n", "gone"),), {}, "config has no 'n/gone'"),
        (storage.config_float, ("x", 0.6), {}, "config 'x' is 0.5, but a number from 0.6"),
        (storage.config_float, ("on",), {}, "config 'on' is True, but a number"),
        (storage.config_float, ("s",), {}, "config 's' is 'l2', but a number"),
        (storage.config_str, ("n",), {}, "config 'n' is 3, but a str"),
        (storage.config_str, ("s",), {"allowed": {"ip", "l1"}}, r"but one of \['ip', 'l1'\] is wanted"),
        (storage.config_bool, ("n",), {}, "config 'n' is 3, but true or false"),
        (storage.config_bool, (("sub",),), {}, "but true or false"),
    ],
)
def test_config_getters_say_what_came_and_what_was_wanted(file, getter, arguments, options, message):
    with pytest.raises(FormatError, match=message) as caught:
        getter(file, *arguments, **options)
    assert file.path in str(caught.value)
