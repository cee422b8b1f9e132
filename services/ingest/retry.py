"""Calls to one tier, repeated while it makes sense.

Retriable errors are tried again with growing pauses, or after the pause the tier asked for. A tier that has failed
without a break for longer than the run's patience ends the run. Knows no tier in particular.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from memory3.errors import Memory3Error, Reason

T = TypeVar("T")

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
MAX_ATTEMPTS = 25
"""For a call that keeps failing while others to the same tier succeed; about 100 seconds of pauses."""

_HOPELESS = frozenset(
    [
        Reason.STORAGE_FULL,
        Reason.STORAGE_DENIED,
        Reason.MODEL_MISMATCH,
        Reason.UNAUTHENTICATED,
        Reason.PERMISSION_DENIED,
    ]
)
"""What fails one call so will fail all that follow."""


class RunStoppedError(Exception):
    """The run cannot go on; the message says why and what to do. What was finished stays finished."""


class Tier:
    """One tier as seen by one run: its calls share the patience."""

    def __init__(
        self,
        name: str,
        target: str,
        patience_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_wait: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.name = name
        self.target = target
        self._patience_s = patience_s
        self._clock = clock
        self._sleep = sleep
        self._on_wait = on_wait
        self._failing_since: float | None = None

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of `attempt`, made as often as needed.

        Raises the tier's error if trying again is of no use for this call, and RunStoppedError if it is of no use for
        the run.
        """
        for number in range(1, MAX_ATTEMPTS + 1):
            try:
                result = await attempt()
            except Memory3Error as error:
                await self._after(error, number)
            else:
                self._failing_since = None
                return result
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _after(self, error: Memory3Error, number: int) -> None:
        """Wait for the next attempt, or raise."""
        if error.reason in _HOPELESS:
            raise RunStoppedError(f"{self.name} at {self.target}: {error}") from error
        if not error.retriable:
            self._failing_since = None
            raise error
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= self._patience_s:
            raise RunStoppedError(
                f"{self.name} at {self.target} has failed for {now - self._failing_since:.0f} s: {error}; "
                "see to it and run the same command again to go on"
            ) from error
        if number == MAX_ATTEMPTS:
            raise error
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (number - 1)) * random.uniform(0.5, 1.0)
        if error.retry_after_ms is not None:
            pause = max(pause, error.retry_after_ms / 1000)
        if error.reason is Reason.BACKEND_UNAVAILABLE and number > 1:
            self._on_wait(f"{self.name} at {self.target} does not answer; trying again")
        await self._sleep(pause)
