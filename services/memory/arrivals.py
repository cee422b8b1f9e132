"""Bounded parallel work whose results come in the order in which they are ready. Knows no records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

I = TypeVar("I")  # noqa: E741 - item
R = TypeVar("R")


class Arrivals(Generic[I, R]):
    """Runs `work` over the items, at most `width` begun and not yet taken; begins when it is constructed."""

    def __init__(self, items: Iterable[I], work: Callable[[I], Coroutine[Any, Any, R]], width: int) -> None:
        self._items = iter(items)
        self._work = work
        self._width = width
        self._running: set[asyncio.Task[R]] = set()
        self._fill()

    async def results(self) -> AsyncGenerator[R, None]:
        """Each result once. The first error ends it. Closing it, or cancelling its reader, cancels what still runs."""
        try:
            while self._running:
                done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    self._running.discard(task)
                    yield task.result()
                    self._fill()
        finally:
            await self.cancel()

    async def cancel(self) -> None:
        """Stop what still runs."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running.clear()

    def _fill(self) -> None:
        while len(self._running) < self._width:
            try:
                item = next(self._items)
            except StopIteration:
                return
            self._running.add(asyncio.create_task(self._work(item)))
