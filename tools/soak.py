"""Look for rare faults: fuzzing, long property runs, AddressSanitizer, ThreadSanitizer.

    python tools/soak.py --scale 1 --seed 0         # all of it, at most 40 minutes on 2 cores
    python tools/soak.py --scale 0.1 --seed 7       # a tenth, chosen by the seed
    python tools/soak.py --only asan tsan           # some steps

What a step printed is in build/soak/STEP.log, and on the screen when it failed.
"""

import argparse
import math
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
CXX = os.environ.get("CXX", "g++")
# Seconds of each step at scale 1; what comes on top is building.
FUZZ_SECONDS = 240
LONG_SECONDS = 480
LONG_STEPS = 10_000  # of the state machines of collections, at least, however long they take
STRESS_SECONDS = 120
CRASH_SECONDS = 120  # at every call of one course
ASAN_SHARE = 0.5  # of the tests at scale 1, chosen by the seed: all take twenty minutes; `make asan` runs all
DEATHS = 300  # by SIGKILL, and as many by power cuts
REPORT = "sanitizer"  # what a sanitizer found in a process goes to a file of this name and the process's number
SPREAD = ["--numprocesses", "auto", "--dist", "loadgroup"]  # over the cores
NOT_FOR_SANITIZERS = ["tests/test_docs.py", "tests/test_layers.py"]  # no extension in them, or the same as elsewhere


@dataclass
class Step:
    """Commands that run one after the other until one fails."""

    name: str
    commands: list[list[str]]
    environment: dict[str, str] = field(default_factory=dict)
    timeout: float = 1800

    def run(self) -> bool:
        """Run the commands; True when all of them succeeded."""
        log = BUILD / "soak" / f"{self.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        for old in log.parent.glob(f"{REPORT}.*"):
            old.unlink()
        print(f"{self.name:<16} ", end="", flush=True)
        began = time.monotonic()
        fault = ""
        with log.open("w") as out:
            for command in self.commands:
                print("$", *command, file=out, flush=True)
                try:
                    code = subprocess.run(
                        command,
                        cwd=ROOT,
                        env=os.environ | self.environment,
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=subprocess.STDOUT,
                        timeout=self.timeout,
                    ).returncode
                    fault = f"exit status {code}" if code else ""
                except subprocess.TimeoutExpired:
                    fault = f"still running after {self.timeout:.0f} s"
                except OSError as error:
                    fault = str(error)
                if fault:
                    break
        lines = log.read_text(errors="replace").splitlines()
        for path in sorted(log.parent.glob(f"{REPORT}.*")):  # of processes whose errors nobody else shows
            lines += [f"{path.name}:", *path.read_text(errors="replace").splitlines()[:40]]
        seconds = time.monotonic() - began
        if not fault:
            print(f"passed {seconds:5.0f} s   {lines[-1].strip() if lines else ''}", flush=True)
            return True
        print(f"FAILED {seconds:5.0f} s   {fault}", flush=True)
        print(*(f"    {line}" for line in lines[-80:]), sep="\n", flush=True)
        return False


def fuzz(scale: float, seed: int) -> Iterator[Step]:
    """Damage what we read, in thousands of ways."""
    for command in fuzzers(sys.executable, FUZZ_SECONDS * scale, seed):
        yield Step(Path(command[1]).stem, [command])


def fuzzers(python: str, seconds: float, seed: int) -> list[list[str]]:
    """Return the commands that share so many seconds."""
    scripts = sorted((ROOT / "tests" / "fuzz").glob("fuzz_*.py"))
    limit = ["--seconds", f"{max(1, seconds / len(scripts)):.0f}", "--seed", str(seed)]
    return [[python, str(script), *limit] for script in scripts]


def long(scale: float, seed: int) -> Iterator[Step]:
    """Run the tests marked soak, and Hypothesis with new examples for a long time."""
    command = [sys.executable, "-m", "pytest", "--soak", str(LONG_SECONDS * scale), "--soak-seed", str(seed)]
    command += ["--soak-steps", str(math.ceil(LONG_STEPS * scale))]
    yield Step("properties", [[*command, *SPREAD]])


def asan(scale: float, seed: int) -> Iterator[Step]:
    """Run the tests, the fuzzers and the stress program under AddressSanitizer and UBSan."""
    reports = f"log_path={BUILD / 'soak' / REPORT}"
    options = {
        "ASAN_OPTIONS": f"detect_leaks=0:allocator_may_return_null=1:handle_abort=1:{reports}",
        "UBSAN_OPTIONS": f"halt_on_error=1:print_stacktrace=1:{reports}",
        "NEARLY_SANITIZED": "1",
    }
    # The stress program knows its leaks; Python does not.
    yield stress("asan", "address,undefined", scale / 4, seed, options | {"ASAN_OPTIONS": "detect_leaks=1"})
    # A second environment beside ours: its own, instrumented nearly, and all other packages from ours.
    folder = BUILD / "asan"
    python = str(folder / "venv" / "bin" / "python")
    if not Path(python).exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    query = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip())
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    settings = {
        "build-dir": str(folder / "cmake"),
        "cmake.define.NEARLY_SANITIZE": "address,undefined",
        "install.strip": "false",
    }
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--no-deps", "--no-build-isolation"]
    install += [word for name, value in settings.items() for word in ("-C", f"{name}={value}")]
    yield Step("asan-build", [[*install, "--force-reinstall", "."]])
    # The loader must meet the sanitizer before Python, and the C++ library before the sanitizer looks for its throw.
    runtime = [
        subprocess.run([CXX, f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    tests = [python, "-m", "pytest", "-p", "no:cacheprovider", *SPREAD]
    tests += ["--max-worker-restart", "0", "--sample", str(min(1.0, ASAN_SHARE * scale)), "--soak-seed", str(seed)]
    tests += [f"--ignore={path}" for path in NOT_FOR_SANITIZERS]
    options["LD_PRELOAD"] = " ".join(runtime)
    yield Step("asan-tests", [tests], options)
    yield Step("asan-fuzz", fuzzers(python, FUZZ_SECONDS / 4 * scale, seed + 1), options)


def tsan(scale: float, seed: int) -> Iterator[Step]:
    """Search while writing, under ThreadSanitizer."""
    yield stress("tsan", "thread", scale, seed, {"TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1"})


def stress(name: str, sanitizer: str, scale: float, seed: int, environment: dict[str, str]) -> Step:
    """Build tests/native/stress.cpp with a sanitizer and run it."""
    folder = str(BUILD / f"{name}-native")
    configure = ["cmake", "-S", str(ROOT), "-B", folder, "-G", "Ninja", "-DNEARLY_PYTHON=OFF"]
    run = [f"{folder}/stress", "--seconds", f"{max(5, STRESS_SECONDS * scale):.0f}", "--seed", str(seed)]
    # Sanitizers map their shadow at fixed places, which a strongly randomized address space may occupy.
    calm = ["setarch", platform.machine(), "-R"]
    if shutil.which("setarch") and subprocess.run([*calm, "true"], capture_output=True).returncode == 0:
        run = [*calm, *run]
    steps = [[*configure, f"-DNEARLY_SANITIZE={sanitizer}"], ["cmake", "--build", folder, "--target", "stress"], run]
    return Step(f"{name}-stress", steps, environment)


def crash(scale: float, seed: int) -> Iterator[Step]:
    """Kill a process that writes into a collection, and cut its power."""
    shim = BUILD / "crash" / "shim.so"
    shim.parent.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CC", "cc")
    source = str(ROOT / "tests" / "crash" / "shim.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(shim), source, "-ldl"], check=True)
    driver = [sys.executable, "tests/crash/driver.py"]
    some = [str(max(20, int(DEATHS * scale)))] * 2
    courses = [
        ["--seed", str(seed), "--kills", some[0], "--cuts", some[1]],
        ["--seed", str(seed + 1), "--kills", "9999", "--every", "--seconds", str(CRASH_SECONDS * scale)],
        ["--seed", str(seed + 2), "--kills", "10", "--cuts", str(max(10, int(DEATHS * scale / 3))), "--lazy"],
        ["--seed", str(seed + 3), "--kills", some[0], "--cuts", some[1], "--background"],
    ]
    yield Step("crash", [driver + course for course in courses], {"LD_PRELOAD": str(shim)})


STEPS = {"fuzz": fuzz, "long": long, "crash": crash, "asan": asan, "tsan": tsan}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="1 is all of it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP", help=", ".join(STEPS))
    arguments = parser.parse_args()
    if arguments.scale <= 0:
        parser.error("--scale is above 0")
    # cmake and ninja lie beside our Python.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    print(f"soak: scale {arguments.scale}, seed {arguments.seed}", flush=True)
    results = [step.run() for name in arguments.only for step in STEPS[name](arguments.scale, arguments.seed)]
    print(f"soak: {sum(results)} passed, {len(results) - sum(results)} failed")
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
