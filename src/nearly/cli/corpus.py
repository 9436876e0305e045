"""Text that every Python installation has: the paragraphs of its own documentation, each with its name."""

import ast
import importlib
import inspect
import os
import platform
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["Paragraph", "paragraphs", "source"]

# Modules linked into the interpreter, or small and quiet when imported; all others are read, never imported.
_COMPILED = (*sys.builtin_module_names, "_struct", "array", "binascii", "cmath", "math", "select", "unicodedata",
             "zlib")  # fmt: skip
_LEFT_OUT = {
    "test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "distutils", "encodings", "pydoc_data",
    "site-packages", "dist-packages", "__pycache__", "__phello__", "f2py", "_pyrepl",
    "_pyio.py", "_pydecimal.py", "_pydatetime.py", "_pylong.py", "__future__.py",  # twins of compiled modules
}  # fmt: skip
_BETWEEN = re.compile(r"\n\s*\n")
_WORD = re.compile(r"[a-z]{2,}")
_HEADING = re.compile(r"([A-Z]\w+(?: [A-Z]\w+)?)\n-{3,}\n")  # of a section of a numpydoc docstring
_NO_TEXT = (">>>", "...", ".. ", "---", "===", "| ")
_NO_SECTION = ("See Also", "References")
_LEAST_WORDS = 4


class Paragraph(NamedTuple):
    """One paragraph of documentation.

    Attributes
    ----------
    name : str
        What it is about, such as ``shutil.copytree``.
    text : str
        On one line.
    first : bool
        Whether it is the summary that a docstring starts with.
    """

    name: str
    text: str
    first: bool


def source() -> str:
    """Return what `paragraphs` reads, for people."""
    return f"the documentation inside Python {platform.python_version()} and NumPy {np.__version__}"


def paragraphs(limit: int | None = None) -> list[Paragraph]:
    """Return the documentation of this Python and of NumPy: docstrings of public names, and the language reference.

    Parameters
    ----------
    limit : int, optional
        Stop after so many.

    Returns
    -------
    list of Paragraph
        Always in the same order for the same installation: compiled modules, the language reference, then modules
        written in Python. Those are parsed, not imported.

    Examples
    --------
    >>> found = paragraphs(500)
    >>> len(found), found[0].name
    (500, 'ArithmeticError')
    """
    seen: set[tuple[str, str]] = set()

    def unique() -> Iterator[Paragraph]:
        for found in _all():
            key = (found.name, found.text)
            if key not in seen:
                seen.add(key)
                yield found

    with warnings.catch_warnings():  # of modules that will go, and of escapes in what is parsed: not ours
        warnings.simplefilter("ignore")
        return list(islice(unique(), limit))


def _all() -> Iterator[Paragraph]:
    stdlib = Path(sysconfig.get_path("stdlib"))
    documented = [*_compiled(), *_language(stdlib / "pydoc_data" / "topics.py")]
    for name, text in documented:
        yield from _split(name, text)
    for folder, prefix in ((stdlib, ""), (Path(np.__file__).parent, "numpy.")):
        for name, text in _written(folder, prefix):
            yield from _split(name, text)


def _split(name: str, text: str) -> Iterator[Paragraph]:
    for i, part in enumerate(_BETWEEN.split(inspect.cleandoc(text))):
        heading = _HEADING.match(part)
        if heading and heading[1] in _NO_SECTION:
            continue
        line = " ".join(part[heading.end() if heading else 0 :].split())
        if not line.startswith(_NO_TEXT) and len(_WORD.findall(line)) >= _LEAST_WORDS:
            yield Paragraph(name, line, i == 0)


def _compiled() -> Iterator[tuple[str, str]]:
    """Docstrings that only exist at run time: of modules in C, and of NumPy's functions and arrays."""
    for module_name in sorted(set(_COMPILED), key=lambda name: (name != "builtins", name)):
        try:
            module = importlib.import_module(module_name)
        except ImportError:  # a module that this platform has not
            continue
        shown = "" if module_name == "builtins" else f"{module_name.lstrip('_')}."
        for name, value in sorted(vars(module).items()):
            if inspect.isclass(value) and (value.__module__, value.__name__) == (module_name, name):
                yield from _members(f"{shown}{name}", value)
            elif inspect.isbuiltin(value) and not name.startswith("_"):
                yield from _documented(f"{shown}{name}", value)
    for name, value in sorted(vars(np).items()):
        if isinstance(value, np.ufunc) or inspect.isbuiltin(value):
            yield from _documented(f"numpy.{name}", value)
    yield from _members("numpy.ndarray", np.ndarray)


def _members(name: str, owner: type) -> Iterator[tuple[str, str]]:
    if not name.rpartition(".")[2].startswith("_"):
        yield from _documented(name, owner)
        for member, value in sorted(vars(owner).items()):
            if not member.startswith("_"):
                yield from _documented(f"{name}.{member}", value)


def _documented(name: str, value: object) -> Iterator[tuple[str, str]]:
    text = getattr(value, "__doc__", None)
    if isinstance(text, str):
        yield name, text


def _language(path: Path) -> Iterator[tuple[str, str]]:
    """The language reference that ``help("with")`` shows: one dictionary of texts."""
    try:
        tree = ast.parse(path.read_bytes())
        value = next(node.value for node in tree.body if isinstance(node, ast.Assign))
        topics = ast.literal_eval(value)
        yield from ((f"help({topic!r})", text) for topic, text in sorted(topics.items()))
    except (OSError, SyntaxError, ValueError, StopIteration):  # an installation without it
        return


def _written(folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """Docstrings of public classes and functions in Python files, found without running them."""
    for path, parts in _files(folder):
        module = prefix + ".".join(part for part in parts if not part.startswith("_"))
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):  # a template, or not for this version
            continue
        for name, text in _definitions(tree.body, module.strip(".")):
            yield (_in_numpy(name, text) if prefix else name), text


def _files(folder: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Python files in a fixed order, with the parts of their module's name."""
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not name.startswith("config-"))
        for name in sorted(files):
            if name.endswith(".py") and name not in _LEFT_OUT:
                path = Path(where, name)
                yield path, path.relative_to(folder).with_suffix("").parts


def _in_numpy(name: str, text: str) -> str:
    """The name that people know: ``numpy.median``, not that of the private file it is written in."""
    last = name.rpartition(".")[2]
    known = getattr(vars(np).get(last), "__doc__", None)
    return f"numpy.{last}" if isinstance(known, str) and inspect.cleandoc(known) == inspect.cleandoc(text) else name


def _definitions(body: list[ast.stmt], owner: str) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _definitions(node.body, owner)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            name = f"{owner}.{node.name}".strip(".")
            text = ast.get_docstring(node, clean=False)
            if text:
                yield name, text
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node.body, name)
