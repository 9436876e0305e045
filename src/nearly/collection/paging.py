"""Pages of an answer: a cursor says where one ended, in distances and keys, so that writes between pages do no harm.

A page begins behind the distance at which the last one ended; of the rows at that very distance those that were shown
are left out by their keys. So nothing is shown twice, whatever was added, deleted or merged meanwhile.
"""

import base64
import json
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nearly import arrays
from nearly.errors import InputError

if TYPE_CHECKING:
    from nearly.collection.found import Found

__all__ = ["Seen", "cursor_of", "next_page"]


class Seen(NamedTuple):
    """What a page belongs to, and what was shown before it."""

    query: Any
    field: str
    where: Any
    n_before: int = 0
    before: str | None = None

    @property
    def fingerprint(self) -> str:
        """A cursor of another query, field or filter is refused by it."""
        query = np.ascontiguousarray(self.query, np.float32)
        text = f"{self.field}|{'' if self.where is None else self.where.key}|"
        return blake2b(text.encode() + query.tobytes(), digest_size=8).hexdigest()


def cursor_of(hits: "Found", seen: Seen | None) -> str:
    """Where an answer to one query ends."""
    if not hits.single or seen is None:
        raise InputError("only the answer of search() to one query has a cursor; ask one query at a time")
    distances = hits.distances
    if not len(distances) and seen.before:
        return seen.before
    last = distances[-1] if len(distances) else np.float32(-np.inf)
    shown = hits.ids[distances == last].tolist()
    previous = _decoded(seen.before) if seen.before else None
    if previous is not None and np.float32(previous["distance"]) == last:
        shown = [*previous["shown"], *shown]
    body = {"of": seen.fingerprint, "distance": float(last), "shown": shown, "n": seen.n_before + len(distances)}
    return base64.urlsafe_b64encode(json.dumps(body, separators=(",", ":")).encode()).decode("ascii")


def _decoded(cursor: Any) -> dict[str, Any]:
    try:
        made = json.loads(base64.urlsafe_b64decode(cursor))
        made["distance"], made["n"] = float(made["distance"]), int(made["n"])
        if not isinstance(made["shown"], list) or not isinstance(made["of"], str) or not 0 <= made["n"] < 2**31:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"after is {str(cursor)[:40]!r}, which is no cursor; pass hits.cursor of the page before"
        ) from None
    return dict(made)


def next_page(after: Any, query: Any, asked: Any, k: int, n_rows: int, ask: Callable[[int], "Found"]) -> "Found":
    """The k nearest behind a cursor, out of an answer that reaches far enough beyond it."""
    from nearly.collection.found import Found

    if np.ndim(query) != 1:
        raise InputError("after= goes with one query; ask one at a time")
    cursor, seen, k = _decoded(after), Seen(query, asked.field, asked.where), arrays.check_k(k)
    if cursor["of"] != seen.fingerprint:
        raise InputError("after is the cursor of another query, field or filter; start again without it")
    last, shown = np.float32(cursor["distance"]), set(cursor["shown"])
    wanted = cursor["n"] + k
    while True:
        hits = ask(wanted)
        distances = hits.distances
        behind = distances > last
        tied = np.flatnonzero(distances == last)
        if len(tied):
            behind[tied] = [key not in shown for key in hits.ids[tied].tolist()]
        chosen = np.flatnonzero(behind)[:k]
        if len(chosen) == k or len(distances) < wanted or wanted >= n_rows:
            break
        wanted = min(n_rows, 2 * wanted)
    seen = seen._replace(n_before=cursor["n"], before=str(after))
    page = Found(hits._at[chosen], distances[chosen], True, hits._context, hits._work, hits._joiner)
    page._seen = seen
    return page
