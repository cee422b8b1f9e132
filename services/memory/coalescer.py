"""Equal keys asked for at the same time share one piece of work. Knows no records."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class _Flight(Generic[T]):
    task: asyncio.Task[T]
    waiters: int = 0


class Coalescer(Generic[T]):
    """Runs one task a key at a time; it is cancelled when all who wait for it are."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[T]] = {}

    async def run(self, key: str, work: Callable[[Callable[[], bool]], Coroutine[Any, Any, T]]) -> T:
        """The result (or error) of the work under way for `key`, begun now if there is none.

        `work` is given a function that says whether its result is still current: not after `forget`.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._start(key, work)
        flight.waiters += 1
        try:
            # Shielded: one caller that goes away must not fail the others.
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.task.done():
                self._drop(key, flight)
                flight.task.cancel()

    def forget(self, key: str) -> None:
        """What begins from now on for `key` shares nothing with what is under way: its object has changed."""
        self._flights.pop(key, None)

    def forget_where(self, is_changed: Callable[[str], bool]) -> None:
        """`forget` for all keys that have changed."""
        for key in [key for key in self._flights if is_changed(key)]:
            del self._flights[key]

    def _start(self, key: str, work: Callable[[Callable[[], bool]], Awaitable[T]]) -> _Flight[T]:
        async def fly() -> T:
            try:
                return await work(lambda: self._flights.get(key) is flight)
            finally:
                self._drop(key, flight)

        flight: _Flight[T] = _Flight(asyncio.create_task(fly()))
        self._flights[key] = flight
        return flight

    def _drop(self, key: str, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
