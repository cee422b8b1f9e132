"""A TLS channel whose certificates may be renewed: calls take a new connection once the files have changed.

gRPC binds certificates to a channel when it is made. This one makes another channel for the calls that come, and
lets those under way finish on the old one. Knows no service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from memory3.watched_files import WatchedFiles

_OLD_CALLS_S = 600.0
"""How long calls of before may go on over the old connection."""


class RenewedChannel(grpc.aio.Channel):
    """Stands for the newest channel that `connect` made of the credentials."""

    def __init__(
        self,
        credentials: WatchedFiles[grpc.ChannelCredentials],
        connect: Callable[[grpc.ChannelCredentials], grpc.aio.Channel],
    ) -> None:
        self._credentials = credentials
        self._connect = connect
        self._used = credentials.current()
        self._channel = connect(self._used)
        self._closing: dict[asyncio.Task[None], grpc.aio.Channel] = {}

    def newest(self) -> grpc.aio.Channel:
        """The channel for a call that begins now."""
        credentials = self._credentials.current()
        if credentials is not self._used:
            old, self._channel = self._channel, self._connect(credentials)
            self._used = credentials
            closing = asyncio.get_running_loop().create_task(old.close(_OLD_CALLS_S))
            self._closing[closing] = old
            closing.add_done_callback(lambda task: self._closing.pop(task, None))
        return self._channel

    def unary_unary(self, *args: Any, **options: Any) -> Any:
        return _Calls(self, "unary_unary", args, options)

    def unary_stream(self, *args: Any, **options: Any) -> Any:
        return _Calls(self, "unary_stream", args, options)

    def stream_unary(self, *args: Any, **options: Any) -> Any:
        return _Calls(self, "stream_unary", args, options)

    def stream_stream(self, *args: Any, **options: Any) -> Any:
        return _Calls(self, "stream_stream", args, options)

    async def close(self, grace: float | None = None) -> None:
        """Close the channels; as grpc.aio.Channel.close."""
        waits, old = list(self._closing), list(self._closing.values())
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        for channel in (*old, self._channel):
            await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.newest().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.newest().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.newest().channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Calls:
    """One method, called on whatever channel is the newest."""

    def __init__(self, owner: RenewedChannel, kind: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._owner = owner
        self._make = (kind, args, options)
        self._channel: grpc.aio.Channel | None = None
        self._calls: Any = None

    def __call__(self, *args: Any, **options: Any) -> Any:
        channel = self._owner.newest()
        if channel is not self._channel:
            kind, made_of, made_with = self._make
            self._channel, self._calls = channel, getattr(channel, kind)(*made_of, **made_with)
        return self._calls(*args, **options)
