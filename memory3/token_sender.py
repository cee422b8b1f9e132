"""Puts the caller's token into the metadata of every call of a channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from memory3.security import AUTHORIZATION, SCHEME


class _Sender:
    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def _signed(self, details: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), (AUTHORIZATION, SCHEME + self._token()))
        return details._replace(metadata=metadata)


class TokenUnary(_Sender, grpc.aio.UnaryUnaryClientInterceptor):
    """For calls with one answer."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._signed(client_call_details), request)


class TokenStream(_Sender, grpc.aio.UnaryStreamClientInterceptor):
    """For calls with a stream of answers."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._signed(client_call_details), request)


def senders(token: Callable[[], str] | None) -> list[grpc.aio.ClientInterceptor]:
    """What a channel needs to send it; nothing without one."""
    return [] if token is None else [TokenUnary(token), TokenStream(token)]
