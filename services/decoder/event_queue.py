"""Events of one generation on their way to a slower reader: token events that wait are merged into one.

So a reader that falls behind gets fewer, larger messages instead of a longer queue. Knows no transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable

from memory3.types import GenerationEvent, TokenEvent


class EventQueue:
    """One writer, one reader, one event loop."""

    def __init__(self) -> None:
        self._events: deque[GenerationEvent] = deque()
        self._error: BaseException | None = None
        self._is_closed = False
        self._changed = asyncio.Event()

    def put(self, event: GenerationEvent) -> None:
        """Append an event, or merge it into the last one if both are text."""
        if self._events and isinstance(event, TokenEvent) and isinstance(last := self._events[-1], TokenEvent):
            self._events[-1] = TokenEvent(last.text + event.text, [*last.token_ids, *event.token_ids])
        else:
            self._events.append(event)
        self._changed.set()

    def close(self, error: BaseException | None = None) -> None:
        """No more events: the reader ends after those that wait, or at once with `error`. The first close counts."""
        if not self._is_closed:
            self._is_closed, self._error = True, error
            self._changed.set()

    async def read(self, text_interval_s: Callable[[], float] = float) -> AsyncGenerator[GenerationEvent, None]:
        """Events until closed; raises the error it was closed with.

        `text_interval_s()`: how far apart text events are at least, merged meanwhile; first and last do not wait.
        """
        next_text_s = 0.0
        while True:
            while not self._events and not self._is_closed:
                await self._change(None)
            while self._events and isinstance(self._events[0], TokenEvent) and len(self._events) == 1:
                wait_s = next_text_s - time.monotonic()
                if self._is_closed or wait_s <= 0:
                    break
                await self._change(wait_s)
            if self._error is not None:
                raise self._error
            if not self._events:
                return
            event = self._events.popleft()
            if isinstance(event, TokenEvent):
                next_text_s = time.monotonic() + text_interval_s()
            yield event

    async def _change(self, timeout_s: float | None) -> None:
        """Wait for the writer, or for the time to pass."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
