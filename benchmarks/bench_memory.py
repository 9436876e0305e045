"""How much memory does a build take, beside what was foretold?   python benchmarks/bench_memory.py --n 50000 --dim 128

Each build runs in a new interpreter: `peak_bytes` is the largest resident set while `nearly.build` ran less the one
before it, `index_bytes` what the index says that it holds. `foretold_*` is `nearly.estimate`; `limit_bytes` is what
memory_limit was, if any, and `plan` what was chosen for it. Limits are shares of the foretold peak.

Traps: the input is there before and does not count. The first use of a library counts, as it does for a user. The
allocator keeps what was freed, so that phases add up where their pieces differ in size. Linux only (VmHWM).
"""

import argparse
import json
import subprocess
import sys

import measure

BUILD = """
import json, sys
import numpy as np, nearly
n, dim, metric, kind, limit, seed = json.loads(sys.argv[1])
rng = np.random.default_rng(seed)
centers = rng.standard_normal((200, dim), np.float32)
vectors = np.empty((n, dim), np.float32)
for i in range(0, n, 4096):
    part = vectors[i : i + 4096]
    part[:] = 0.7 * rng.standard_normal(part.shape, np.float32) + centers[rng.integers(200, size=len(part))]
if kind == "uint8":
    vectors = np.clip(40 * vectors + 128, 0, 255).astype(np.uint8)

def resident(which):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(which))

with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the largest so far is forgotten
before = resident("VmRSS")
index = nearly.build(vectors, metric=metric, memory_limit=limit)
peak = resident("VmHWM") - before
foretold = nearly.estimate(n, dim, metric=metric, kind=kind, sample=vectors[:: max(1, n // 10_000)])
print(json.dumps({"peak_bytes": peak, "index_bytes": index.n_bytes, "foretold_index_bytes": foretold.index_bytes,
                  "foretold_peak_bytes": foretold.peak_bytes, "limit_bytes": limit, "plan": index.plan}))
"""


def built(n: int, dim: int, metric: str = "l2", kind: str = "float32", limit: int | None = None, seed: int = 0) -> dict:
    """Return what a build in a new interpreter took."""
    command = [sys.executable, "-c", BUILD, json.dumps([n, dim, metric, kind, limit, seed])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Build without a limit, then under each share of what that was foretold to take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--metric", default="l2", choices=["l2", "cosine", "ip", "l1"])
    parser.add_argument("--kind", default="float32", choices=["float32", "uint8"])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.95, 0.9, 0.8, 0.7])
    arguments = parser.parse_args()
    what = {"n": arguments.n, "dim": arguments.dim, "metric": arguments.metric, "kind": arguments.kind}
    free = built(**what)
    runs = [free, *(built(**what, limit=int(free["foretold_peak_bytes"] * share)) for share in arguments.shares)]
    for run in runs:
        print(measure.line({"bench": "memory", **what, **run, "machine": measure.machine()}), flush=True)


if __name__ == "__main__":
    main()
