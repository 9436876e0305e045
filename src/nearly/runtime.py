"""The engine's process-wide settings: threads, the CPU target of the kernels, versions."""

import platform
import sys

from nearly import _core
from nearly.arrays import check_int
from nearly.errors import InputError

__all__ = ["get_threads", "set_threads", "show_versions", "simd_target", "simd_targets", "use_simd_target"]


def set_threads(n: int | None) -> None:
    """Set how many threads calls use that do not say ``threads=`` themselves.

    Parameters
    ----------
    n : int or None
        At least 1; None is as many as this process may run on.

    Examples
    --------
    >>> set_threads(2)
    >>> get_threads()
    2
    >>> set_threads(None)
    """
    _core.set_threads(0 if n is None else check_int(n, "n", low=1, high=1024))


def get_threads() -> int:
    """Return how many threads calls use that do not say ``threads=`` themselves.

    Examples
    --------
    >>> get_threads() >= 1
    True
    """
    return int(_core.get_threads())


def simd_targets() -> list[str]:
    """Return the CPU targets that this machine can run, best first.

    Examples
    --------
    >>> "baseline" in simd_targets()
    True
    """
    return list(_core.simd_targets())


def simd_target() -> str:
    """Return the CPU target in use: the first of `simd_targets`, unless the variable ``NEARLY_SIMD`` names another.

    Examples
    --------
    >>> simd_target() in simd_targets()
    True
    """
    return str(_core.simd_target())


def use_simd_target(name: str) -> None:
    """Force a CPU target, for tests and measurements.

    Parameters
    ----------
    name : str
        One of `simd_targets`.

    Raises
    ------
    InputError
        If the name is unknown, or this machine cannot run it.

    Examples
    --------
    >>> before = simd_target()
    >>> use_simd_target("baseline")
    >>> simd_target()
    'baseline'
    >>> use_simd_target(before)
    """
    if not isinstance(name, str) or not _core.use_simd_target(name):
        raise InputError(f"{name!r} is no target that this machine can run; choose one of {', '.join(simd_targets())}")


def show_versions() -> str:
    """Return versions and machine, one to a line: what a bug report should hold.

    Examples
    --------
    >>> "numpy" in show_versions()
    True
    """
    import importlib.metadata

    lines = [f"python    {platform.python_version()} on {platform.system()} {platform.machine()}"]
    for name in ("nearly", "numpy", "duckdb", "typer"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        lines.append(f"{name:<9} {version}{' (imported)' if name in sys.modules else ''}")
    lines.append(f"simd      {simd_target()} of {', '.join(simd_targets())}")
    lines.append(f"threads   {get_threads()}")
    return "\n".join(lines)
