"""Print what an extra of pyproject.toml asks for, one requirement a word: python tools/requirements.py test"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]


def requirements(extra: str) -> list[str]:
    """Return the requirements of an extra; an extra that names another of ours contains it."""
    found: list[str] = []
    for requirement in PROJECT["optional-dependencies"][extra]:
        inner = re.fullmatch(r"nearly\[(\w+)\]", requirement)
        found += requirements(inner[1]) if inner else [requirement.replace(" ", "")]
    return found


if __name__ == "__main__":
    print("\n".join(dict.fromkeys(requirement for extra in sys.argv[1:] for requirement in requirements(extra))))
