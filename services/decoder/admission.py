"""A bounded number of generations, and a hint when to come back. Knows nothing of what is admitted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from memory3.errors import OverloadedError

_SMALLEST_HINT_MS = 50
_LARGEST_HINT_MS = 5_000
_WEIGHT = 0.2
"""Of the newest duration in the moving average."""


class Admission:
    """Permits for `limit` holders; refuses instead of queueing."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._mean_s = 0.2
        self.num_held = 0

    @contextlib.contextmanager
    def permit(self) -> Iterator[None]:
        """Hold a permit inside the block. Raises OverloadedError with a hint when none is free."""
        if self.num_held >= self._limit:
            raise OverloadedError(
                f"{self.num_held} generations are under way in {self._what}, which is the limit; "
                "try again in a moment, or add workers",
                retry_after_ms=self.retry_after_ms,
            )
        self.num_held += 1
        began = time.monotonic()
        try:
            yield
        finally:
            self.num_held -= 1
            self._mean_s += _WEIGHT * (time.monotonic() - began - self._mean_s)

    @property
    def retry_after_ms(self) -> int:
        """When a permit is likely free: permits fall free `limit` times in one mean duration."""
        expected_ms = self._mean_s * 1000 / self._limit
        return int(min(max(expected_ms, _SMALLEST_HINT_MS), _LARGEST_HINT_MS))
