"""What happens around every call: typed error statuses, refusal of overload, counts and logs of failures."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc

from memory3 import semconv
from memory3.errors import (
    BackendUnavailableError,
    CancelledCallError,
    InternalError,
    MalformedRequestError,
    Memory3Error,
    OverloadedError,
    PermissionDeniedError,
    UnauthenticatedError,
    to_status,
)
from memory3.rights import OPEN_METHODS
from memory3.telemetry import meter

log = logging.getLogger(__name__)
_errors = meter.create_counter(*semconv.METRIC_ERRORS)
_calls = meter.create_up_down_counter(*semconv.METRIC_CALLS)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler: bounded concurrency, the one error table, the time of each answer."""

    def __init__(self, max_concurrent_calls: int) -> None:
        self._free = max_concurrent_calls
        self._limit = max_concurrent_calls

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        # The open ones are never refused for overload either: probes must see a busy server as alive.
        if handler is None or method.startswith(OPEN_METHODS) or handler.request_streaming:
            return handler
        codec = {
            "request_deserializer": _forgiving(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._stream(handler.unary_stream, method), **codec)
        return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, method), **codec)

    def _unary(self, inner: Callable[..., Any], method: str) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
            began_ns = time.monotonic_ns()
            try:
                with _Permit(self):
                    return _timed(await inner(_readable(request, method), context), began_ns)
            except (Exception, asyncio.CancelledError) as error:
                await fail(_as_ours(error), method, context)

        return call

    def _stream(self, inner: Callable[..., Any], method: str) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            try:
                with _Permit(self):
                    async for response in inner(_readable(request, method), context):
                        yield response
            except (Exception, asyncio.CancelledError) as error:
                await fail(_as_ours(error), method, context)

        return call


class _Unreadable:
    """Stands for a request whose bytes are not its message."""

    def __init__(self, why: str) -> None:
        self.why = why


def _forgiving(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """What a deserializer raises would end the call before our handler, as UNKNOWN and without detail."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except Exception as error:
            return _Unreadable(str(error))

    return read


def _timed(response: Any, began_ns: int) -> Any:
    """Every answer says how long it took; a servicer that knows better has said so itself."""
    if "total_ns" in response.DESCRIPTOR.fields_by_name and not response.total_ns:
        response.total_ns = time.monotonic_ns() - began_ns
    return response


def _readable(request: Any, method: str) -> Any:
    if isinstance(request, _Unreadable):
        raise MalformedRequestError(
            f"the bytes are no request of {method} ({request.why}); send the message of protos/, text as UTF-8"
        )
    return request


class _Permit:
    """One of the server's call slots, for the length of a with block."""

    def __init__(self, owner: CallInterceptor) -> None:
        self._owner = owner

    def __enter__(self) -> None:
        if self._owner._free <= 0:
            raise OverloadedError(
                f"{self._owner._limit} calls are being served, which is the limit; try again in a moment",
                retry_after_ms=200,
            )
        self._owner._free -= 1
        _calls.add(1)

    def __exit__(self, *_: object) -> None:
        self._owner._free += 1
        _calls.add(-1)


def _as_ours(error: BaseException) -> BaseException:
    """A tier that refuses this server's own token is a tier it cannot use: nothing that its caller could mend."""
    if isinstance(error, (UnauthenticatedError, PermissionDeniedError)):
        return BackendUnavailableError(f"a tier behind this one refuses its token: {error}")
    return error


async def fail(error: BaseException, method: str, context: grpc.aio.ServicerContext) -> NoReturn:
    """End the call with the status of the error; cancellation is passed on."""
    if isinstance(error, asyncio.CancelledError):
        _errors.add(1, {semconv.ATTR_REASON: CancelledCallError.reason.name})
        raise error
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, Memory3Error):
        log.error("%s failed", method, exc_info=error)
        error = InternalError(f"{method}: unexpected {type(error).__name__}; the server's log has the details")
    else:
        log.info("%s: %s: %s", method, error.reason.name, error)
    _errors.add(1, {semconv.ATTR_REASON: error.reason.name})
    code, text, metadata = to_status(error)
    await context.abort(code, text, metadata)
    raise AssertionError("unreachable: abort raises")
