"""Bootstrap of every gRPC server of ours: limits, TLS, the door, health, reflection, trace context, graceful drain.

Knows no service: a composition root hands it servicers and readiness checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.instrumentation.grpc import aio_server_interceptor, filters

from memory3.channel import KEEPALIVE_MS, MAX_MESSAGE_BYTES
from memory3.security import is_loopback
from services.common.access import AccessInterceptor, AccessList
from services.common.config import ServerSettings
from services.common.health import Check, Readiness
from services.common.interceptors import CallInterceptor
from services.common.tls import ServerCertificates

log = logging.getLogger(__name__)

_TLS_CONNECTION_MS = 3_600_000
"""Longest life of a TLS connection: whoever lost a certificate stays an hour at most. Calls under way end first."""


def _options() -> list[tuple[str, int]]:
    """Of every server here."""
    return [
        # With port sharing on, a second server on the same port starts silently and takes half of the calls.
        ("grpc.so_reuseport", 0),
        # Without this, some pings of a client that waits long for an answer count as an attack, and its calls are lost.
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    ]


@dataclass(frozen=True)
class Mount:
    """One servicer to serve: the generated add function, the servicer, the full service name."""

    add: Callable[[Any, grpc.aio.Server], None]
    servicer: object
    name: str


@dataclass
class RunningServer:
    """A started server and its address; `health_address` is empty without a port of its own for health checks."""

    address: str
    server: grpc.aio.Server
    readiness: Readiness
    health_address: str = ""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


@contextlib.asynccontextmanager
async def running_server(
    settings: ServerSettings, mounts: Sequence[Mount], checks: Sequence[Check] = ()
) -> AsyncIterator[RunningServer]:
    """Serve inside the block; drain and stop at its end.

    Raises SystemExit with the address and a remedy when a port cannot be bound, ValueError for TLS or access files
    that cannot be used.
    """
    # Probes ask every few seconds and belong to no request: they get no spans.
    traced = aio_server_interceptor(filter_=filters.negate(filters.health_check()))
    interceptors: list[grpc.aio.ServerInterceptor] = [traced]
    if settings.access_file is not None:
        interceptors.append(AccessInterceptor(AccessList(settings.access_file)))
    credentials = _credentials(settings)
    server = grpc.aio.server(
        interceptors=[*interceptors, CallInterceptor(settings.max_concurrent_calls)],
        options=[
            *_options(),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            *([("grpc.max_connection_age_ms", _TLS_CONNECTION_MS)] if credentials is not None else []),
        ],
    )
    names = [mount.name for mount in mounts]
    for mount in mounts:
        mount.add(mount.servicer, server)
    readiness = Readiness(names, checks)
    health_pb2_grpc.add_HealthServicer_to_server(readiness.servicer, server)
    reflection.enable_server_reflection([*names, "grpc.health.v1.Health", reflection.SERVICE_NAME], server)
    running = RunningServer(_listen(server, settings.host, settings.port, credentials), server, readiness)
    probed = [server]
    if settings.health_port is not None:
        probed.append(grpc.aio.server(options=_options()))
        health_pb2_grpc.add_HealthServicer_to_server(readiness.servicer, probed[-1])
        running.health_address = _listen(probed[-1], settings.host, settings.health_port, None)
    for started in probed:
        await started.start()
    await readiness.refresh()
    watcher = asyncio.create_task(readiness.run())
    try:
        yield running
    finally:
        watcher.cancel()
        await readiness.stop()
        for stopping, grace in zip(probed, (settings.drain_seconds, 0), strict=False):
            await stopping.stop(grace)


def _credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """TLS as the settings want it; None for plain text. Raises ValueError, so that half of TLS is never none of it."""
    if problems := settings.problems():
        raise ValueError("; ".join(problems))
    if settings.tls_cert and settings.tls_key:
        return ServerCertificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca).credentials()
    if settings.access_file is not None and not is_loopback(f"{settings.host}:0"):
        log.warning("tokens arrive as plain text: set TLS_CERT and TLS_KEY, unless something else encrypts")
    return None


def _listen(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None) -> str:
    """The address that the server was bound to. Raises SystemExit with a remedy."""
    wanted = f"{host}:{port}"
    try:
        bound = server.add_insecure_port(wanted) if credentials is None else server.add_secure_port(wanted, credentials)
    except RuntimeError as error:
        text = f"cannot listen on {wanted}: is the port in use? Choose another (port 0 takes a free one)."
        raise SystemExit(text) from error
    return f"{host}:{bound}"


async def serve_forever(settings: ServerSettings, mounts: Sequence[Mount], checks: Sequence[Check] = ()) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Prints one line with the address when ready to take calls."""
    async with running_server(settings, mounts, checks) as running:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, running.stopping.set)
        if running.health_address:
            print(f"health on {running.health_address}", flush=True)  # noqa: T201
        print(f"listening on {running.address}", flush=True)  # noqa: T201 - the launcher reads this line
        await running.stopping.wait()
