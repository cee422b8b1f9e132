"""Circuit breaker: after some failures in a row nothing is asked of the store for a while, then one call may try.

So a store that is down costs its time-out to a handful of reads and not to every one, and it heals by itself.
Knows no store.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from memory3.errors import BackendUnavailableError, StorageDeniedError, StorageFullError

log = logging.getLogger(__name__)


class Breaker:
    """Closed: calls pass. Open: calls are refused. Half open, after a pause: one call passes and decides."""

    def __init__(
        self,
        *,
        failures_to_open: int,
        first_pause_s: float,
        longest_pause_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures_to_open = failures_to_open
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._clock = clock
        self._failures = 0
        self._pause_s = first_pause_s
        self._retry_at: float | None = None  # None: closed
        self._trying = False

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, but for the one that tries."""
        return self._retry_at is not None

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Around one call. Raises BackendUnavailableError at once when open; BackendUnavailableError out of the block
        counts as a failure, an answer of whatever kind as success, a cancelled call as neither."""
        trial = self._enter()
        try:
            yield
        except BackendUnavailableError as error:
            self._failed(trial=trial, why=str(error))
            raise
        except (StorageDeniedError, StorageFullError):
            self._answered()
            raise
        else:
            self._answered()
        finally:
            if trial:
                self._trying = False

    def _enter(self) -> bool:
        """Whether this call is the trial of a half-open breaker."""
        if self._retry_at is None:
            return False
        left_s = self._retry_at - self._clock()
        if left_s > 0 or self._trying:
            raise BackendUnavailableError(
                "the object store did not answer lately and is not asked for a moment; see the service's log",
                retry_after_ms=max(1, int(max(left_s, 0.1) * 1000)),
            )
        self._trying = True
        return True

    def _failed(self, *, trial: bool, why: str) -> None:
        self._failures += 1
        if trial:
            self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
        elif self.is_open or self._failures < self._failures_to_open:
            return
        else:
            log.warning("the object store is taken as down after %d failures in a row: %s", self._failures, why)
        self._retry_at = self._clock() + self._pause_s

    def _answered(self) -> None:
        if self.is_open:
            log.info("the object store answers again")
        self._failures = 0
        self._pause_s = self._first_pause_s
        self._retry_at = None
