"""Settings of the process: threads, CPU targets, versions, and how quickly nearly is there."""

import os
import subprocess
import sys

import numpy as np
import pytest

import nearly


@pytest.fixture(autouse=True)
def _as_it_was():
    yield
    nearly.set_threads(None)


def run(code, **environment):
    """Run Python code in a fresh process; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, timeout=120
    )
    return done.stdout.strip() if done.returncode == 0 else f"failed: {done.stderr}"


def test_threads_are_set_and_unset():
    before = nearly.get_threads()
    assert before >= 1
    nearly.set_threads(3)
    assert nearly.get_threads() == 3
    nearly.set_threads(None)
    assert nearly.get_threads() == before
    for wrong in (0, -1, 1.5, "2", True, 5000):
        with pytest.raises(nearly.InputError, match="n"):
            nearly.set_threads(wrong)
    assert nearly.get_threads() == before


def test_targets(simd_target):
    assert nearly.simd_target() == simd_target
    assert simd_target in nearly.simd_targets()
    assert "baseline" in nearly.simd_targets()
    with pytest.raises(nearly.InputError, match="baseline"):
        nearly.use_simd_target("sse17")
    assert nearly.simd_target() == simd_target


def test_integer_data_gives_the_same_file_on_every_target(tmp_path):
    """Codes of whole numbers and no learned transform: not close, but equal."""
    vectors = np.random.default_rng(0).integers(0, 256, (400, 16), np.uint8)
    before, files = nearly.simd_target(), set()
    for name in nearly.simd_targets():
        nearly.use_simd_target(name)
        nearly.Vamana(vectors, quantizer=nearly.Plain(), calibrate=False).save(tmp_path / "a")
        files.add((tmp_path / "a").read_bytes())
    nearly.use_simd_target(before)
    assert len(files) == 1


def test_the_environment_forces_a_target():
    assert run("import nearly; print(nearly.simd_target())", NEARLY_SIMD="baseline") == "baseline"
    assert "ImportError: NEARLY_SIMD=sse17 " in run("import nearly", NEARLY_SIMD="sse17")


def test_import_brings_in_nothing_heavy():
    # What its milliseconds are, benchmarks/bench_overhead.py says.
    heavy = "duckdb typer rich pandas pyarrow scipy h5py matplotlib sqlite3 numpy.random numpy.testing asyncio"
    loaded = run("import numpy, sys; had = {*sys.modules}; import nearly; print(*sys.modules.keys() - had)").split()
    assert "nearly.hits" in loaded
    assert not {*heavy.split()} & {*loaded}


def test_the_oracle_is_imported_when_it_is_asked_for():
    code = "import sys, nearly; print('nearly.evaluate' in sys.modules, nearly.evaluate.__name__)"
    assert run(code) == "False nearly.evaluate"
    assert "has no attribute 'colour'" in run("import nearly; nearly.colour")


def test_threads_live_through_a_fork():
    code = (
        "import os, numpy as np, nearly\n"
        "x = np.random.default_rng(0).standard_normal((400, 8), dtype=np.float32)\n"
        "index = nearly.Flat(x)\n"
        "index.search(x, threads=4)\n"
        "child = os.fork()\n"
        "ok = index.search(x, k=1, threads=4).ids[:, 0].tolist() == list(range(400))\n"
        "if not child: os._exit(0 if ok else 1)\n"
        "print(ok and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0)\n"
    )
    assert run(code) == "True"


def test_versions_name_what_a_report_needs():
    text = nearly.show_versions()
    for word in ("python", "nearly", "numpy", np.__version__, nearly.simd_target()):
        assert word in text
