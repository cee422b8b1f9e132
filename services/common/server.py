"""Bootstrap of every gRPC server of ours: limits, health, reflection, trace context, graceful drain.

Knows no service: a composition root hands it servicers and readiness checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.instrumentation.grpc import aio_server_interceptor, filters

from memory3.channel import MAX_MESSAGE_BYTES
from services.common.config import ServerSettings
from services.common.health import Check, Readiness
from services.common.interceptors import CallInterceptor


@dataclass(frozen=True)
class Mount:
    """One servicer to serve: the generated add function, the servicer, the full service name."""

    add: Callable[[Any, grpc.aio.Server], None]
    servicer: object
    name: str


@dataclass
class RunningServer:
    """A started server and its address."""

    address: str
    server: grpc.aio.Server
    readiness: Readiness
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


@contextlib.asynccontextmanager
async def running_server(
    settings: ServerSettings, mounts: Sequence[Mount], checks: Sequence[Check] = ()
) -> AsyncIterator[RunningServer]:
    """Serve inside the block; drain and stop at its end.

    Raises SystemExit with the address and a remedy when the port cannot be bound.
    """
    server = grpc.aio.server(
        # Probes ask every few seconds and belong to no request: they get no spans.
        interceptors=[
            aio_server_interceptor(filter_=filters.negate(filters.health_check())),
            CallInterceptor(settings.max_concurrent_calls),
        ],
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            # With port sharing on, a second server on the same port starts silently and takes half of the calls.
            ("grpc.so_reuseport", 0),
        ],
    )
    names = [mount.name for mount in mounts]
    for mount in mounts:
        mount.add(mount.servicer, server)
    readiness = Readiness(names, checks)
    health_pb2_grpc.add_HealthServicer_to_server(readiness.servicer, server)
    reflection.enable_server_reflection([*names, "grpc.health.v1.Health", reflection.SERVICE_NAME], server)
    wanted = f"{settings.host}:{settings.port}"
    try:
        port = server.add_insecure_port(wanted)
    except RuntimeError as error:
        text = f"cannot listen on {wanted}: is the port in use? Choose another (port 0 takes a free one)."
        raise SystemExit(text) from error
    await server.start()
    running = RunningServer(f"{settings.host}:{port}", server, readiness)
    await readiness.refresh()
    watcher = asyncio.create_task(readiness.run())
    try:
        yield running
    finally:
        watcher.cancel()
        await readiness.stop()
        await server.stop(settings.drain_seconds)


async def serve_forever(settings: ServerSettings, mounts: Sequence[Mount], checks: Sequence[Check] = ()) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Prints one line with the address when ready to take calls."""
    async with running_server(settings, mounts, checks) as running:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, running.stopping.set)
        print(f"listening on {running.address}", flush=True)  # noqa: T201 - the launcher reads this line
        await running.stopping.wait()
