"""A long run, step by step: says what goes on, and keeps how long it took and what was seen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any


class Steps:
    """`seen` is what is told at the end."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {"seconds": {}}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Says what goes on, and how long it took."""
        print(f"{name} ...", flush=True)
        began = time.monotonic()
        yield
        self.seen["seconds"][name] = round(time.monotonic() - began, 1)
        print(f"{name}: {self.seen['seconds'][name]} s", flush=True)

    def until(self, done: Callable[[], Any], limit_s: float, what: str) -> None:
        """Look once a second until it is so. Raises TimeoutError."""
        until = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > until:
                raise TimeoutError(f"{what}: not within {limit_s:g} s")
            time.sleep(1)
