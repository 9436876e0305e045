"""The async twins of verbs: each runs in a thread, for ``await``."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from nearly.collection.found import Found, FoundInRange

__all__ = ["AsyncTwins"]

Answer = TypeVar("Answer")


async def _in_a_thread(call: Callable[..., Answer], *arguments: Any, **options: Any) -> Answer:
    import asyncio  # late: whoever awaits has it

    return await asyncio.to_thread(call, *arguments, **options)


class AsyncTwins:
    """What `Collection` has beside its verbs."""

    if TYPE_CHECKING:
        search: Callable[..., Found]
        search_many: Callable[..., list[Found]]
        range_search: Callable[..., FoundInRange]
        get: Callable[..., Any]
        add: Callable[..., list[Any]]
        upsert: Callable[..., list[Any]]
        update: Callable[..., int]
        delete: Callable[..., int]

    async def asearch(self, query: Any, k: int = 10, **options: Any) -> "Found":
        """`search` in a thread, for ``await``."""
        return await _in_a_thread(self.search, query, k, **options)

    async def asearch_many(self, searches: Iterable[Mapping[str, Any]], **common: Any) -> "list[Found]":
        """`search_many` in a thread, for ``await``."""
        return await _in_a_thread(self.search_many, searches, **common)

    async def arange_search(self, query: Any, radius: float, **options: Any) -> "FoundInRange":
        """`range_search` in a thread, for ``await``."""
        return await _in_a_thread(self.range_search, query, radius, **options)

    async def aget(self, ids: Any = None, **options: Any) -> Any:
        """`get` in a thread, for ``await``."""
        return await _in_a_thread(self.get, ids, **options)

    async def aadd(self, rows: Any, **options: Any) -> list[Any]:
        """`add` in a thread, for ``await``."""
        return await _in_a_thread(self.add, rows, **options)

    async def aupsert(self, rows: Any, **options: Any) -> list[Any]:
        """`upsert` in a thread, for ``await``."""
        return await _in_a_thread(self.upsert, rows, **options)

    async def aupdate(self, ids: Any = None, **options: Any) -> int:
        """`update` in a thread, for ``await``."""
        return await _in_a_thread(self.update, ids, **options)

    async def adelete(self, ids: Any = None, **options: Any) -> int:
        """`delete` in a thread, for ``await``."""
        return await _in_a_thread(self.delete, ids, **options)
