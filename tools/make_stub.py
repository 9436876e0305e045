"""Write src/nearly/_core.pyi from the built module, or say whether it is stale.

python tools/make_stub.py            # write
python tools/make_stub.py --check    # compare; 1 when the file differs from what would be written
"""

import argparse
import difflib
import importlib
import sys
from importlib import metadata
from pathlib import Path

STUB = Path(__file__).resolve().parents[1] / "src" / "nearly" / "_core.pyi"
HEADER = """\
# Written by tools/make_stub.py from the built module; `make stubs` writes it again.
# ruff: noqa
# fmt: off
"""


def generate() -> str:
    """Return the stub of the module that is installed here."""
    from nanobind.stubgen import StubGen  # here, so that the rest of this file needs no nanobind

    module = importlib.import_module("nearly._core")
    writer = StubGen(module, include_docstrings=True, quiet=True)
    writer.put(module)
    return HEADER + str(writer.get()).strip() + "\n"


def difference(found: str, wanted: str) -> str:
    """Return what would change, as a diff; empty when nothing would.

    Examples
    --------
    >>> difference("a\\nb\\n", "a\\nb\\n")
    ''
    >>> print(difference("a\\nb\\n", "a\\nc\\n"))
    --- _core.pyi
    +++ the built module
    @@ -2 +2 @@
    -b
    +c
    """
    lines = difflib.unified_diff(
        found.splitlines(), wanted.splitlines(), "_core.pyi", "the built module", n=0, lineterm=""
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    if not parser.parse_args().check:
        STUB.write_text(generate())
        return 0
    changes = difference(STUB.read_text() if STUB.exists() else "", generate())
    if changes:
        print(
            f"{changes}\n_core.pyi is stale (nanobind {metadata.version('nanobind')}): run make stubs, commit the file"
        )
    return int(bool(changes))


if __name__ == "__main__":
    sys.exit(main())
