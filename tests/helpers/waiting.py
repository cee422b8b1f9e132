"""Waiting for something to become true, without guessing how long it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(is_true: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    """Return when `is_true()`; raises AssertionError naming `what` when it does not become so."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        await asyncio.sleep(0.005)
