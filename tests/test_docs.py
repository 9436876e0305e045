"""What we write about the code is true: every example runs, every link leads somewhere, the stub is fresh."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
import runpy
import sys
from pathlib import Path

import pytest

import nearly

ROOT = Path(__file__).resolve().parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = ["nearly", *(module.name for module in pkgutil.walk_packages(nearly.__path__, "nearly."))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
TOOLS = sorted((ROOT / "tools").glob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"])


def run(examples, globs, capsys):
    """Run examples; the report of those that failed becomes the message."""
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(examples, out=sys.stdout.write, clear_globs=False)
    globs.update(examples.globs)
    assert runner.failures == 0, capsys.readouterr().out


def docstrings(module):
    return [found for found in doctest.DocTestFinder(exclude_empty=True).find(module) if found.examples]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_docstrings(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for examples in docstrings(importlib.import_module(name)):
        run(examples, {}, capsys)


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.name)
def test_docstrings_of_tools(path, capsys):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        for examples in docstrings(module):
            run(examples, {}, capsys)
    finally:
        del sys.modules[path.stem]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    shown = capsys.readouterr()
    assert shown.out, "an example shows something"
    assert not shown.err


def public():
    """Names of classes and functions, the exceptions left out: an example of those is an error."""
    found = {name: getattr(nearly, name) for name in nearly.__all__}
    return [
        name
        for name, thing in found.items()
        if callable(thing) and not (isinstance(thing, type) and issubclass(thing, BaseException))
    ]


@pytest.mark.parametrize("name", public())
def test_a_public_name_has_an_example(name):
    assert ">>> " in (inspect.getdoc(getattr(nearly, name)) or ""), f"nearly.{name} has no example in its docstring"


FENCE = re.compile(r"^```python *\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages(path, capsys, tmp_path, monkeypatch):
    """Run a page's python blocks from top to bottom in one session, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    text = path.read_text()
    names = {"__name__": path.stem}
    for block in FENCE.finditer(text):
        line = text.count("\n", 0, block.start(1))
        if ">>> " in block[1]:
            run(doctest.DocTestParser().get_doctest(block[1], names, path.name, str(path), line), names, capsys)
        else:  # blank lines in front, so that a traceback names the line of the page
            exec(compile("\n" * line + block[1], str(path), "exec"), names)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links(path):
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)(?: [^)]*)?\)|(?:href|src)=\"([^\"]+)\"", prose)
    local = [a or b for a, b in links if not re.match(r"[a-z]+:|#", a or b)]
    assert [link for link in local if not (path.parent / link.partition("#")[0]).exists()] == []


def test_there_are_examples():
    """The finders find: without this, a wrong pattern would pass every test above."""
    assert sum(len(docstrings(importlib.import_module(name))) for name in ("nearly.metrics", "nearly.hits")) >= 2
    assert FENCE.findall("a\n```python\nx = 1\n```\nb\n```sh\nls\n```\n") == ["x = 1\n"]


def test_stub_is_fresh(monkeypatch):
    pytest.importorskip("nanobind")
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    make_stub = importlib.import_module("make_stub")
    stale = make_stub.difference(make_stub.STUB.read_text(), make_stub.generate())
    assert not stale, f"src/nearly/_core.pyi is stale, run make stubs:\n{stale}"
