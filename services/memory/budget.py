"""A bound on the bytes of records in flight: being read, stored, or waiting for their receiver. Knows no records."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass


@dataclass(eq=False)
class _Turn:
    size_bytes: int
    ready: asyncio.Future[None]


class Reservation:
    """Bytes taken from the budget until released; a with block around it releases it."""

    def __init__(self, budget: ByteBudget, size_bytes: int) -> None:
        self._budget = budget
        self._size_bytes = size_bytes

    def shrink(self, size_bytes: int) -> None:
        """Give back all beyond `size_bytes`, now that the true size is known."""
        self._budget._give_back(self._size_bytes - size_bytes)
        self._size_bytes = size_bytes

    def release(self) -> None:
        """Give all back; again is no error."""
        self.shrink(0)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class ByteBudget:
    """`capacity_bytes` to share, first come first served."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._used_bytes = 0
        self._queue: deque[_Turn] = deque()

    @property
    def used_bytes(self) -> int:
        """Bytes taken."""
        return self._used_bytes

    async def acquire(self, size_bytes: int, *, timeout_s: float) -> Reservation:
        """Take `size_bytes` (at most the capacity). Raises TimeoutError if others hold them too long."""
        if self._queue or self._used_bytes + size_bytes > self.capacity_bytes:
            await self._wait(size_bytes, timeout_s)
        else:
            self._used_bytes += size_bytes
        return Reservation(self, size_bytes)

    async def _wait(self, size_bytes: int, timeout_s: float) -> None:
        turn = _Turn(size_bytes, asyncio.get_running_loop().create_future())
        self._queue.append(turn)
        try:
            async with asyncio.timeout(timeout_s):
                await turn.ready
        except BaseException:
            if turn.ready.done() and not turn.ready.cancelled():
                self._give_back(size_bytes)  # the turn came in the moment in which the waiter gave up
            else:
                with contextlib.suppress(ValueError):  # a grant has passed over it already
                    self._queue.remove(turn)
                self._grant()
            raise

    def _give_back(self, size_bytes: int) -> None:
        self._used_bytes -= size_bytes
        self._grant()

    def _grant(self) -> None:
        while self._queue and self._used_bytes + self._queue[0].size_bytes <= self.capacity_bytes:
            turn = self._queue.popleft()
            if not turn.ready.done():
                self._used_bytes += turn.size_bytes
                turn.ready.set_result(None)
