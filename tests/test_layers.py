"""The arrows between layers, enforced: who may import whom in src/nearly, who may include whom in src/core."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"
PYTHON = sorted((SRC / "nearly").rglob("*.py"))
CPP = sorted(path for path in SRC.rglob("*") if path.suffix in {".cpp", ".hpp"})

# From the ground up: a module imports its own folder and what stands before it; one row's names do not know each other.
ORDER = [
    {"errors"},
    {"arrays"},
    {"metrics"},
    {"hits"},
    {"runtime"},
    {"storage"},
    {"kmeans"},
    {"transforms"},
    {"quantizers"},
    {"filters", "tuning"},
    {"indexes"},
    {"retrieval"},
    {"collection"},
    {"embed", "distributed", "serverless", "federated", "estimators", "language", "upgrade"},
    {"server", "cli", "explorer", "integrations"},
    {"__main__"},
]
DOORS = ORDER[-2]  # doors for people and programs: they use the public `nearly`, their own libraries, and evaluate
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
# The oracle: an oracle that shares our code shares our bugs.
ORACLE = "evaluate"
CORE_USERS = {"runtime", "kmeans", "transforms", "quantizers", "filters", "tuning", "indexes"}
CORE_IN_A_FUNCTION = {"arrays": "check_finite"}


def imports(source: str, module: str) -> Iterator[tuple[str, str | None, bool]]:
    """Yield (dotted name, enclosing function, for types only) of every import; `module` resolves relative ones."""

    def visit(node: ast.AST, function: str | None, typing_only: bool) -> Iterator[tuple[str, str | None, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, function, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module.split(".")[: -node.level]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            # `from nearly import arrays` names a module, `from nearly.arrays import as_vectors` is in one.
            yield from (
                (f"{origin}.{alias.name}" if origin == "nearly" else origin, function, typing_only)
                for alias in node.names
            )
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = function or node.name
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing_only = True
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function, typing_only)

    yield from visit(ast.parse(source), None, False)


def wrong_imports(module: str, source: str) -> list[str]:
    """Return a sentence for every import that `module`, such as "nearly.indexes.flat", may not have."""
    _, layer, *_ = [*module.split("."), ""]
    complaints = []
    for name, function, typing_only in imports(source, module):
        top, _, rest = name.partition(".")
        if top != "nearly":
            heavy = top not in sys.stdlib_module_names and top != "numpy"
            if heavy and function is None and not typing_only and layer not in DOORS:
                complaints.append(f"{module} imports {top} at its top: import it where it is needed")
            continue
        target = rest.partition(".")[0]
        if layer in ("", target):  # nearly/__init__.py joins everything; a folder knows itself
            continue
        if target == "_core":
            allowed = layer in CORE_USERS or (function is not None and CORE_IN_A_FUNCTION.get(layer) == function)
        elif layer == ORACLE:
            allowed = target == "errors"
        elif layer in DOORS and target not in DOORS:
            allowed = True
        else:
            allowed = RANK.get(target, len(ORDER)) < RANK[layer]
        if not allowed:
            complaints.append(f"{module} imports {name}")
    return complaints


SIDE_BY_SIDE = {"quant", "graph", "lists", "filters", "sparse", "points", "disk"}


def wrong_includes(path: str, source: str) -> list[str]:
    """Return a sentence for every include that a file, such as "core/quant/codes.cpp", may not have."""
    house, folder, *_ = path.split("/")
    pure_kernels = re.match(r"core/kernels/(body/|targets/|table\.hpp)", path)
    if house == "bind":
        allowed, python = None, True
    elif pure_kernels:  # compiled with flags for one CPU: nothing else may come in
        allowed, python = {"kernels"}, False
    elif folder in SIDE_BY_SIDE:
        allowed, python = {folder, "base", "kernels"}, False
    else:
        allowed, python = {"base": {"base"}, "kernels": {"base", "kernels"}}[folder], False
    complaints = []
    for bracket, name in re.findall(r'^\s*#\s*include\s*(["<])([^">]+)[">]', source, re.MULTILINE):
        if re.match(r"nanobind/|Python\.h|pybind11/|numpy/", name):
            if not python:
                complaints.append(f"{path} includes {name}: Python is known in src/bind only")
        elif bracket == '"' and allowed is not None and name.split("/")[0] not in allowed:
            complaints.append(f"{path} includes {name}")
        elif bracket == "<" and pure_kernels and not name.endswith(".h") and name not in {"cstddef", "cstdint"}:
            complaints.append(f"{path} includes <{name}>: templates of the standard library leave weak symbols")
    return complaints


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_python_layers():
    wrong = []
    for path in PYTHON:
        # A package's own name is resolved from inside it, so its __init__ counts as a module of it.
        package = path.name == "__init__.py" and path.parent.name != "nearly"
        module = module_name(path) + (".__init__" if package else "")
        layer = module.split(".")[1] if "." in module else ""
        if layer not in {"", ORACLE, *RANK}:
            wrong.append(f"{layer} is a new room: give it its place in ORDER and in ARCHITECTURE.md")
        else:
            wrong += wrong_imports(module, path.read_text())
    assert wrong == []


def test_cpp_layers():
    assert [fault for path in CPP for fault in wrong_includes(path.relative_to(SRC).as_posix(), path.read_text())] == []


def test_all_files_were_read():
    assert len(PYTHON) >= 10
    assert {path.relative_to(SRC).parts[0] for path in CPP} == {"core", "bind"}


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("nearly.errors", "from nearly.arrays import as_vectors", "nearly.errors imports nearly.arrays"),
        ("nearly.tuning.curve", "from nearly import indexes", "nearly.tuning.curve imports nearly.indexes"),
        ("nearly.tuning.curve", "from .. import indexes", "nearly.tuning.curve imports nearly.indexes"),
        ("nearly.tuning.curve", "from nearly.filters import plan", "nearly.tuning.curve imports nearly.filters"),
        ("nearly.indexes.flat", "import nearly.cli", "nearly.indexes.flat imports nearly.cli"),
        ("nearly.indexes.flat", "def f():\n    from nearly import Flat", "nearly.indexes.flat imports nearly.Flat"),
        ("nearly.evaluate.recall", "from nearly import arrays", "nearly.evaluate.recall imports nearly.arrays"),
        ("nearly.indexes.flat", "from nearly import evaluate", "nearly.indexes.flat imports nearly.evaluate"),
        ("nearly.storage.reading", "from nearly import _core", "nearly.storage.reading imports nearly._core"),
        ("nearly.arrays.vectors", "from nearly import _core", "nearly.arrays.vectors imports nearly._core"),
        ("nearly.arrays.ids", "def f():\n    from nearly import _core", "nearly.arrays.ids imports nearly._core"),
        ("nearly.hits", "import pandas", "nearly.hits imports pandas at its top: import it where it is needed"),
    ],
)
def test_a_wrong_import_is_found(module, source, complaint):
    assert wrong_imports(module, source) == [complaint]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nearly.arrays.vectors", "def check_finite():\n    from nearly import _core"),
        (
            "nearly.indexes.flat",
            "import numpy as np\nfrom nearly import _core, arrays\nfrom nearly.indexes import base",
        ),
        ("nearly.evaluate.files.hdf5", "def f():\n    import h5py\nfrom nearly.errors import InputError"),
        ("nearly.hits", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pandas"),
        ("nearly.cli.main", "import typer\nimport nearly\nfrom nearly import evaluate"),
        ("nearly", "from nearly.cli import main"),
    ],
)
def test_a_right_import_passes(module, source):
    assert wrong_imports(module, source) == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("core/base/table.hpp", '#include "kernels/table.hpp"', "core/base/table.hpp includes kernels/table.hpp"),
        ("core/graph/search.cpp", '#include "quant/plain.hpp"', "core/graph/search.cpp includes quant/plain.hpp"),
        ("core/graph/search.cpp", '#include "lists/scan.hpp"', "core/graph/search.cpp includes lists/scan.hpp"),
        ("core/quant/codes.cpp", '#include "lists/scan.hpp"', "core/quant/codes.cpp includes lists/scan.hpp"),
        ("core/kernels/body/a.inl.hpp", '#include "base/os.hpp"', "core/kernels/body/a.inl.hpp includes base/os.hpp"),
        (
            "core/kernels/body/a.inl.hpp",
            "#include <vector>",
            "core/kernels/body/a.inl.hpp includes <vector>: templates of the standard library leave weak symbols",
        ),
        (
            "core/lists/scan.cpp",
            "#include <nanobind/nanobind.h>",
            "core/lists/scan.cpp includes nanobind/nanobind.h: Python is known in src/bind only",
        ),
    ],
)
def test_a_wrong_include_is_found(path, source, complaint):
    assert wrong_includes(path, source) == [complaint]
