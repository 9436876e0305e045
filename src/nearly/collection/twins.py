"""Async twins of verbs: each runs its verb in a thread, for ``await`` or ``async for``."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["iterator_twin", "twin"]

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def twin(verb: Callable[Arguments, Answer]) -> Callable[Arguments, Awaitable[Answer]]:
    """The twin of a method, with its signature.

    Examples
    --------
    >>> import asyncio
    >>> class Shop:
    ...     def price(self, of: str) -> int:
    ...         return len(of)
    ...     aprice = twin(price)
    >>> asyncio.run(Shop().aprice("tea"))
    3
    """

    async def made(owner: Any, /, *arguments: Any, **options: Any) -> Answer:
        call: Callable[..., Answer] = getattr(owner, verb.__name__)
        return await _in_a_thread(call, *arguments, **options)

    return _as_twin(made, verb, "`{}` in a thread, for ``await``.")


def iterator_twin(verb: Callable[Arguments, Iterator[Answer]]) -> Callable[Arguments, AsyncIterator[Answer]]:
    """The twin of a method that yields: each step runs in a thread, the call itself before the first of them."""

    async def made(owner: Any, /, *arguments: Any, **options: Any) -> AsyncIterator[Answer]:
        found = await _in_a_thread(getattr(owner, verb.__name__), *arguments, **options)
        end = object()
        while (each := await _in_a_thread(next, found, end)) is not end:
            yield each

    return _as_twin(made, verb, "`{}` in a thread, for ``async for``; of the moment of its first step.")


async def _in_a_thread(call: Callable[..., Answer], *arguments: Any, **options: Any) -> Answer:
    import asyncio  # late: whoever awaits has it

    return await asyncio.to_thread(call, *arguments, **options)


def _as_twin(
    made: Callable[..., Answer], verb: Callable[Arguments, Any], about: str
) -> Callable[Arguments, Answer]:  # fmt: skip
    owner, _, name = verb.__qualname__.rpartition(".")
    made = wraps(verb)(made)
    made.__name__, made.__qualname__, made.__doc__ = f"a{name}", f"{owner}.a{name}", about.format(name)
    return made
