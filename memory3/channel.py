"""Channels of the typed clients: keep-alive, retries, message limits, TLS, token, trace context, errors.

Knows no service. Every client opens its channel here, so all calls behave alike.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import grpc

from memory3.errors import MalformedRequestError, from_rpc_error
from memory3.renewed_channel import RenewedChannel
from memory3.rpc_tracing import interceptors
from memory3.security import PLAIN, ChannelSecurity
from memory3.token_sender import senders

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""gRPC's default limit, kept on purpose: large data is streamed, one memory a message."""

KEEPALIVE_MS = 30_000
"""A client pings this long after it last heard of its server. A server must suffer it (services/common/server.py)."""

_OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A tier that restarts must be found again within a second, not after the default back-off of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # The tiers are neighbours: a proxy configured for the web cannot reach them.
    ("grpc.enable_http_proxy", 0),
]

_RETRY_UNAVAILABLE = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def open_channel(target: str, *, retry: bool = True, security: ChannelSecurity = PLAIN) -> grpc.aio.Channel:
    """A channel to `target` ("host:port"). Raises SecurityError if `security` cannot be used.

    `retry`: let gRPC repeat calls that the server has not begun (UNAVAILABLE before the first answer). Off where
    the caller has a tighter deadline and a fallback of its own.
    """
    security.check_target(target)
    options = list(_OPTIONS)
    if retry:
        config = {"methodConfig": [{"name": [{}], "retryPolicy": _RETRY_UNAVAILABLE}]}
        options.append(("grpc.service_config", json.dumps(config)))
    around = [*interceptors(), *senders(security.token_source())]
    credentials = security.credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=around)
    if security.server_name:
        options.append(("grpc.ssl_target_name_override", security.server_name))

    def connect(newest: grpc.ChannelCredentials) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(target, newest, options=options, interceptors=around)

    return RenewedChannel(credentials, connect)


@contextlib.asynccontextmanager
async def translated(target: str) -> AsyncIterator[None]:
    """Turn gRPC errors inside the block, and values that fit no field, into memory3.errors classes."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, target) from error
    except (ValueError, TypeError) as error:
        # Protobuf's own refusal of a value while the request is built: -1 for an unsigned field, a lone surrogate.
        raise MalformedRequestError(f"a value does not fit its field: {error}; correct it") from error


class ChannelClient:
    """What the typed clients share: one channel to `target` ("host:port"), opened lazily, closed with the client.

    Make it inside a running event loop. `retry`, `security` and errors: as in open_channel.
    """

    def __init__(self, target: str, *, retry: bool = True, security: ChannelSecurity = PLAIN) -> None:
        self.target = target
        self.channel = open_channel(target, retry=retry, security=security)

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
