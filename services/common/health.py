"""Readiness checks -> grpc.health.v1. A server is SERVING only while what it needs answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from grpc_health.v1 import health, health_pb2

log = logging.getLogger(__name__)

ALIVE = "alive"
"""Name of the service that SERVING is said of while the event loop turns: for liveness, whatever a backend does."""

Check = Callable[[], Awaitable[None]]
"""Returns when the dependency can be used; raises with a message for people when it cannot."""


class Readiness:
    """Runs the checks now and then and tells the health service."""

    def __init__(
        self, services: Sequence[str], checks: Sequence[Check], *, interval_s: float = 2.0, timeout_s: float = 5.0
    ) -> None:
        self.servicer = health.aio.HealthServicer()
        self._services = ["", *services]
        self._checks = checks
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._last: str | None = "starting"

    async def refresh(self) -> None:
        """Run every check once and publish the result."""
        problem: str | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                for check in self._checks:
                    await check()
        except Exception as error:
            problem = str(error) or type(error).__name__
        if problem != self._last:
            log.log(logging.WARNING if problem else logging.INFO, "readiness: %s", problem or "serving")
        self._last = problem
        await self._publish(serving=problem is None)
        await self.servicer.set(ALIVE, health_pb2.HealthCheckResponse.SERVING)

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._interval_s)

    async def stop(self) -> None:
        """Say NOT_SERVING for good: the server is draining."""
        await self.servicer.enter_graceful_shutdown()

    async def _publish(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in self._services:
            await self.servicer.set(service, status)
