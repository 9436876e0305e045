"""A few deaths of tests/crash/driver.py; `make soak` has hundreds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the shim knows Linux"),
    pytest.mark.skipif(COMPILER is None, reason="the shim needs a C compiler"),
    pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="something else is preloaded, such as a sanitizer"),
]


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """Build the library that kills."""
    path = tmp_path_factory.mktemp("crash") / "shim.so"
    source = ROOT / "tests" / "crash" / "shim.c"
    command = [COMPILER, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", path, source, "-ldl"]
    subprocess.run(command, check=True)
    return path


def test_everything_acknowledged_survives(shim):
    driver = ROOT / "tests" / "crash" / "driver.py"
    command = [sys.executable, driver, "--seed", "11", "--kills", "3", "--cuts", "3"]
    done = subprocess.run(command, env=os.environ | {"LD_PRELOAD": str(shim)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("deaths, 0 failed")


@pytest.mark.soak
def test_the_harness_sees_a_sync_that_is_missing(shim, tmp_path):
    """Without syncs of segment files, a power cut must be found to lose some."""
    folder = ROOT / "tests" / "crash"
    text = (folder / "driver.py").read_text()
    text = text.replace("import power\n", "import power\nimport nearly.storage.replacing as replacing\n"
                        "replacing._sync = lambda descriptor: None\n")  # fmt: skip
    broken = tmp_path / "driver.py"
    broken.write_text(text)
    shutil.copy(folder / "power.py", tmp_path)
    command = [sys.executable, broken, "--seed", "1", "--cuts", "4"]
    done = subprocess.run(command, env=os.environ | {"LD_PRELOAD": str(shim)}, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert ", 0 failed" not in done.stdout
