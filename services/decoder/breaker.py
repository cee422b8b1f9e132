"""Circuit breaker: a tier that is down costs one recall its deadline; later ones do not ask until a probe answers.

Knows no tier: what is called and how it is probed is handed in.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from memory3.errors import (
    BackendUnavailableError,
    CancelledCallError,
    DeadlineExceededError,
    InternalError,
    Memory3Error,
    PermissionDeniedError,
    UnauthenticatedError,
)

log = logging.getLogger(__name__)

DOWN = (BackendUnavailableError, DeadlineExceededError, CancelledCallError, InternalError)
"""Errors that say more of the tier than of the call. A stopping server cancels the calls it still has."""


class TierDownError(BackendUnavailableError):
    """The breaker is open: nothing was asked."""


class CircuitBreaker:
    """Closed: calls pass. Open: calls are refused and a background probe runs now and then until it succeeds."""

    def __init__(
        self,
        name: str,
        probe: Callable[[], Awaitable[object]],
        *,
        slow_after_s: float,
        first_pause_s: float = 0.25,
        longest_pause_s: float = 4.0,
    ) -> None:
        """`slow_after_s`: a call (or probe) without an answer for this long trips the breaker as a failed one does."""
        self._name = name
        self._probe = probe
        self._slow_after_s = slow_after_s
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._prober: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether calls are refused."""
        return self._prober is not None

    @contextlib.asynccontextmanager
    async def call(self) -> AsyncIterator[Callable[[], None]]:
        """Watch one call. Yields a function to say that the tier answers, where that shows before the end.

        Raises TierDownError at once when open. Errors of the block pass through; those in `DOWN` trip the breaker.
        """
        if self.is_open:
            raise TierDownError(f"the {self._name} tier did not answer and is probed in the background")
        timer = asyncio.get_running_loop().call_later(
            self._slow_after_s, self._trip, f"no answer within {self._slow_after_s:g} s"
        )
        try:
            yield timer.cancel
        except DOWN as error:
            self._trip(str(error))
            raise
        except (UnauthenticatedError, PermissionDeniedError) as error:
            log.warning("the %s tier refuses this service (TOKEN_FILE): %s", self._name, error)
            raise
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Stop probing."""
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.gather(self._prober, return_exceptions=True)
            self._prober = None

    def _trip(self, why: str) -> None:
        if self._prober is None:
            log.warning("the %s tier is taken as down: %s", self._name, why)
            self._prober = asyncio.create_task(self._heal())

    async def _heal(self) -> None:
        pause_s = self._first_pause_s
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._longest_pause_s)
            try:
                async with asyncio.timeout(self._slow_after_s):
                    await self._probe()
            except (TimeoutError, *DOWN) as error:
                log.debug("the %s tier does not answer yet: %s", self._name, error)
                continue
            except Memory3Error as error:
                log.debug("the %s tier refuses the probe, so it answers: %s", self._name, error)
            except Exception:
                # A prober that dies would leave the breaker open for good.
                log.exception("probe of the %s tier failed in an unexpected way", self._name)
                continue
            log.info("the %s tier answers again", self._name)
            self._prober = None
            return
