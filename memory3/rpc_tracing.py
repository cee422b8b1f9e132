"""Client spans and W3C trace context for outgoing gRPC calls.

OpenTelemetry's own asyncio client interceptor awaits the call's status inside the interceptor, and a cancelled
caller then leaves its call running on the server (tests/integration/test_server_plumbing.py). These hand the call back
at once, so cancelling the awaiting task reaches the server. Attributes follow the RPC conventions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from opentelemetry import propagate, trace

from memory3.telemetry import tracer

_unfinished: set[asyncio.Task[None]] = set()
"""Keeps the tasks that end spans from being collected."""


async def _finish(call: Any, span: trace.Span) -> None:
    """End the span when the call has ended, however it ends."""
    code: grpc.StatusCode = await call.code()
    span.set_attribute("rpc.grpc.status_code", code.value[0])
    if code is not grpc.StatusCode.OK:
        span.set_status(trace.StatusCode.ERROR)
    span.end()


class _Traced:
    """Starts the span, puts its context into the metadata, ends it with the call."""

    async def _call(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        method = details.method.decode() if isinstance(details.method, bytes) else str(details.method)
        service, _, name = method.strip("/").partition("/")
        span = tracer.start_span(
            f"/{service}/{name}",
            kind=trace.SpanKind.CLIENT,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        )
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(span))
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *carrier.items())
        call = await continuation(details._replace(metadata=metadata), request)

        finishing = asyncio.get_running_loop().create_task(_finish(call, span))
        _unfinished.add(finishing)
        finishing.add_done_callback(_unfinished.discard)
        return call


class TracedUnary(_Traced, grpc.aio.UnaryUnaryClientInterceptor):
    """For calls with one answer."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._call(continuation, client_call_details, request)


class TracedStream(_Traced, grpc.aio.UnaryStreamClientInterceptor):
    """For calls with a stream of answers."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._call(continuation, client_call_details, request)


def interceptors() -> list[grpc.aio.ClientInterceptor]:
    """What a channel needs to trace its calls."""
    return [TracedUnary(), TracedStream()]
