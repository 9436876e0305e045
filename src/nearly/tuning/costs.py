"""What a filtered search costs by each way, in nanoseconds: the numbers that its planner compares.

They were measured on one machine (`benchmarks/bench_filtered.py --costs`) and are written down, not measured where
the engine runs: a plan, and with it an answer, would depend on the machine and on the moment. Only their proportions
matter, which vary less than the numbers.
"""

__all__ = ["LIST", "TOGETHER", "again", "compared", "exactly", "prepared", "scanned", "together"]

LIST = 3.0  # reading a list and testing its neighbors, of which few or none are compared, in comparisons of a walk
TOGETHER = 4  # queries from which on the core compares a panel of them at once
_LINE = 64  # bytes of a cache line
# A row by a panel, whatever its width, and four codes of it: from SIFT by 50 queries and CVE by 200, with AVX-512, in
# the proportion that single comparisons there have to those written here.
_PANEL, _STEP = 27.0, 0.47
_CACHE = 1 << 18  # bytes of the second cache that chosen vectors may fill
_CALLED = 1000.0  # a function of the user's


def compared(n_bytes: int) -> float:
    """One comparison during a walk, with what belongs to it, by code or vector of so many bytes."""
    return _CALLED if not n_bytes else 27.0 + 5.0 * _lines(n_bytes)


def scanned(n_bytes: int) -> float:
    """One comparison of a scan of chosen codes."""
    return 6.0 + 7.0 * _lines(n_bytes)


def together(n_bytes: int, n_queries: int, width: int) -> float:
    """The same for each of the queries that are compared by panels of `width`: each row is read once for all."""
    panels = -(-n_queries // width)
    return (3.0 * _lines(n_bytes) + panels * (_PANEL + _STEP * n_bytes / 4)) / n_queries


def prepared(n_bytes: int, dim: int) -> float:
    """A query of so many dimensions made ready for codes of so many bytes: a product with a matrix, mostly."""
    return 0.1 * n_bytes * dim


def exactly(n_bytes: int) -> float:
    """One comparison of a scan of chosen vectors."""
    return _CALLED if not n_bytes else 9.0 + 4.5 * _lines(n_bytes)


def again(n_bytes: int, n_rows: int) -> float:
    """The same for queries of a batch, which find few vectors in the cache."""
    return 5.0 + 1.7 * _lines(n_bytes) if 0 < n_rows * n_bytes <= _CACHE else exactly(n_bytes)


def _lines(n_bytes: int) -> int:
    return -(-n_bytes // _LINE)
