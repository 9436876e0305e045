"""Print what nearly (base) or one of its extras needs, one requirement a word: python tools/requirements.py test"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
LISTS = {"base": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}


def requirements(name: str) -> list[str]:
    """Return the requirements of a list; one that names an extra of ours contains it."""
    found: list[str] = []
    for requirement in LISTS[name]:
        inner = re.fullmatch(r"nearly\[(\w+)\]", requirement)
        found += requirements(inner[1]) if inner else [requirement.replace(" ", "")]
    return found


if __name__ == "__main__":
    print("\n".join(dict.fromkeys(requirement for name in sys.argv[1:] for requirement in requirements(name))))
