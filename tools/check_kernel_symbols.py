"""Check that each kernels_<target> object gives the linker its table and nothing else.

    python tools/check_kernel_symbols.py [BUILD_FOLDER ...]        # default: build

A weak symbol (a template's instance, an inline function) compiled for AVX-512 could be given to every caller by the
linker, and a machine without AVX-512 would crash in code that has nothing to do with kernels.
"""

import re
import subprocess
import sys
from pathlib import Path


def exports(listing: str) -> list[tuple[str, str]]:
    """Return (name, kind) of every symbol that an object defines for others; `listing` is what ``nm -P -g`` printed.

    Examples
    --------
    >>> exports("_ZN6nearly5tableE D 0 10\\nmemcpy U         \\n_ZSt4swapv W 0 20\\n")
    [('_ZN6nearly5tableE', 'D'), ('_ZSt4swapv', 'W')]
    """
    rows = [line.split() for line in listing.splitlines() if line.strip()]
    # Undefined symbols have no value: U, and w or v when they are weak. AddressSanitizer adds one to all it watches.
    defined = [row for row in rows if row[1] != "U" and not (row[1] in "wv" and len(row) == 2)]
    return [(row[0], row[1]) for row in defined if not row[0].startswith("__odr_asan.")]


def wrong(target: str, listing: str) -> list[str]:
    """Return what an object exports besides its table, or that the table is missing.

    Examples
    --------
    >>> wrong("avx2", "_ZN6nearly7kernels4avx25tableE D 0 10\\n")
    []
    >>> wrong("avx2", "_ZN6nearly7kernels4avx25tableE D 0 10\\n_ZSt4swapv W 0 20\\n")
    ['exports _ZSt4swapv (weak)']
    >>> wrong("avx2", "_ZN6nearly7kernels6avx5125tableE D 0 10\\n")
    ['exports _ZN6nearly7kernels6avx5125tableE', 'does not export nearly::kernels::avx2::table']
    """
    table = re.compile(rf"_?_ZN6nearly7kernels{len(target)}{target}5tableE")
    found = exports(listing)
    complaints = [
        f"exports {name}" + (" (weak)" if kind in "WwVvu" else "")
        for name, kind in found
        if not table.fullmatch(name) or kind in "WwVvu"
    ]
    if not any(table.fullmatch(name) for name, _ in found):
        complaints.append(f"does not export nearly::kernels::{target}::table")
    return complaints


def main(folders: list[str]) -> int:
    objects = sorted(path for folder in folders for path in Path(folder).glob("**/kernels_*.dir/**/*.o"))
    if not any(path.stem.startswith("baseline") for path in objects):
        print(f"no kernel objects below {', '.join(folders)}: build first (make build)", file=sys.stderr)
        return 1
    failed = 0
    for path in objects:
        target = path.name.split(".")[0]
        listing = subprocess.run(["nm", "-P", "-g", str(path)], check=True, capture_output=True, text=True).stdout
        for complaint in wrong(target, listing):
            failed += 1
            print(f"{path}: {complaint}")
    print(
        f"{len(objects)} kernel objects, {failed} wrong symbols" if failed else f"{len(objects)} kernel objects clean"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["build"]))
