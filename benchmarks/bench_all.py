"""Every figure that README.md quotes, anew.   python benchmarks/bench_all.py   or   make bench Q=all

Runs the other benchmarks one after another, each into a file of benchmarks/baselines/, then writes a summary into
benchmarks/README.md, what quantizers lose and cost into docs/quantizers.md with docs/codes.svg, every table into
baselines/tables.md and the chart to docs/pareto.svg. A file is replaced when its benchmark has ended well, so a run
that was broken off keeps the figures it had.
`--only` repeats a part, `--pages` none; `--out` writes elsewhere and leaves the pages be.

Traps: an hour or more on a quiet machine, and worth nothing on a busy one. The peers of FINALISTS are those that won
a column of a sweep on two machines: after a large change, sweep first (`make bench Q=peers DATA=...`) and edit it.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import datasets
import report

HERE = Path(__file__).resolve().parent
OURS = ["nearly-vamana", "nearly-vamana-99", "nearly-recall", "nearly-recall-99"]
FINALISTS = {
    "mnist_784_l2": ["rabitqlib-symqg0", "faiss-ivf-pq", "svs-f16"],
    "sift_bsds_128_l2": ["rabitqlib-symqg0", "rabitqlib-symqg8", "scann"],
    "cve_minilm_384": ["rabitqlib-symqg0-l2", "svs-f16"],
    "wordvec_trivia_64_cosine": ["scann", "rabitqlib-symqg0-l2", "svs-f16"],
    "wordvec_trivia_64_ip": ["svs-f16", "scann"],
}
PARTS = ("finalists", "flat", "contract", "overhead", "kernels", "quantizers", "codes", "collections", "filtered_peers")


def main() -> None:
    """Run the parts, then write the pages."""
    arguments = parse()
    folder = arguments.out or HERE / "baselines"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {} if arguments.pages else commands(arguments)
    failed = [name for name, command in wanted.items() if not run(command, folder / f"{name}.jsonl")]
    if arguments.out is None:
        for written in pages():
            report.main(written)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def pages(root: Path = HERE.parent) -> list[list[str]]:
    """Return the arguments of each call of report.py that writes what is committed; folders are other machines."""
    baselines = root / "benchmarks" / "baselines"
    written = {"--chart": root / "docs" / "pareto.svg", "--into": root / "benchmarks" / "README.md"}
    written["--quantizers"] = root / "docs" / "quantizers.md"
    calls = []
    for folder in (baselines, *sorted(path for path in baselines.iterdir() if path.is_dir())):
        files = [str(path) for path in sorted(folder.glob("*.jsonl"))]
        more = written if folder == baselines else {}
        pairs = {**more, "--tables": folder / "tables.md"}.items()
        calls.append([*files, *(str(part) for pair in pairs for part in pair)])
    found = [path for path in (baselines / "codes.jsonl", baselines / "avx512" / "codes.jsonl") if path.exists()]
    return [*calls, [str(found[0]), "--guide", str(root / "docs" / "quantizers.md")]]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--pages", action="store_true", help="only write the pages, from the files as they are")
    parser.add_argument("--data", nargs="+", default=list(FINALISTS), help="default: the five real sets")
    parser.add_argument("--rounds", type=int, help="interleaved rounds of each part (default: its own)")
    parser.add_argument("--limit", type=int, help="keep only the first rows: to see that all runs, not for figures")
    parser.add_argument("--out", type=Path, help="folder (default benchmarks/baselines, and the pages made from it)")
    return parser.parse_args()


def commands(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Return what to run, by the name of the file that its lines go to."""
    rounds = [] if arguments.rounds is None else ["--rounds", str(arguments.rounds)]
    limit = [] if arguments.limit is None else ["--limit", str(arguments.limit)]
    found: dict[str, list[str]] = {}
    for part in arguments.only:
        if part == "finalists":
            for name in arguments.data:
                names = [*OURS, *FINALISTS.get(name, ["exact"])]
                found[f"finalists-{name}"] = ["peers", "--data", name, *limit, *rounds, "--finalists", *names]
        elif part in ("flat", "contract"):
            found[part] = [part, "--data", *arguments.data, *limit, *(rounds if part == "flat" else [])]
        elif part == "quantizers":
            names = [name for name in arguments.data if name in datasets.CODED] or arguments.data
            found[part] = [part, "--data", *names, *limit, *rounds]
        elif part in ("codes", "collections", "filtered_peers"):  # have sets of their own
            found[part] = [part, *rounds, *limit]
        else:
            found[part] = [part, *rounds, *(limit if part == "overhead" else [])]
    return found


def run(command: list[str], path: Path) -> bool:
    """Run one benchmark; its lines replace the file if it ends well."""
    part, *arguments = command
    script = [sys.executable, str(HERE / f"bench_{part}.py"), *arguments]
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    print("$", *command, file=sys.stderr, flush=True)
    if part in (
        "peers",
        "collections",
        "filtered_peers",
    ):  # write a file, and tables and a chart beside it that nobody asked for
        done = subprocess.run([*script, "--out", str(fresh)], stdout=sys.stderr)
        fresh.with_suffix(".md").unlink(missing_ok=True)
        fresh.with_suffix(".svg").unlink(missing_ok=True)
    else:
        with fresh.open("w") as file:
            done = subprocess.run(script, stdout=file)
    if done.returncode == 0 and fresh.exists():
        fresh.replace(path)
        return True
    fresh.unlink(missing_ok=True)
    return False


assert set(FINALISTS) == set(datasets.STANDARD)


if __name__ == "__main__":
    main()
