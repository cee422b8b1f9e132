"""The door: who calls, and may they? One check in front of every call, by token and by the table of memory3.rights.

Knows no service. Without an access file the door is open, as on a laptop.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from memory3.errors import Memory3Error, PermissionDeniedError, UnauthenticatedError
from memory3.rights import OPEN_METHODS, RIGHTS, Right
from memory3.security import AUTHORIZATION, SCHEME
from memory3.tokens import TokenEntry, digest, parse_entry
from memory3.watched_files import WatchedFiles, read_bytes
from services.common.interceptors import fail

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who calls, as the door knows it; what is to be known of callers (a tenant) becomes a field here."""

    name: str
    rights: frozenset[Right]


class AccessList:
    """The callers of an access file; the file is read again when it has changed."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError, as read_entries."""
        self._entries = WatchedFiles([path], lambda: read_entries(path))

    def caller(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        """Whoever the token in a call's metadata belongs to. Raises UnauthenticatedError, which does not show it."""
        value = next((value for key, value in metadata if key == AUTHORIZATION), None)
        if value is None:
            raise UnauthenticatedError(
                "the call has no token; send one: MEMORY3_TOKEN or --token-file, or as metadata 'authorization'"
            )
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if not text.lower().startswith(SCHEME.lower()):
            raise UnauthenticatedError("the metadata 'authorization' is not 'Bearer TOKEN'; send the token like that")
        presented = digest(text[len(SCHEME) :].strip())
        found: TokenEntry | None = None
        for entry in self._entries.current():
            # All are compared, each in constant time: how long it takes tells nothing of the entries.
            if hmac.compare_digest(entry.sha256, presented):
                found = entry
        if found is None:
            raise UnauthenticatedError("the token is not known here; ask the operator for one (memory3 token new)")
        return Caller(found.name, found.rights)


def read_entries(path: Path) -> tuple[TokenEntry, ...]:
    """The entries of an access file. Raises ValueError that names file, line and fault, and no value."""
    lines = read_bytes(path, "access file").decode("utf-8", errors="replace").splitlines()
    entries = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                entries.append(parse_entry(line))
            except ValueError as error:
                raise ValueError(f"access file {path}, line {number} {error}; memory3 token new makes lines") from None
    return tuple(entries)


def authorise(caller: Caller, method: str) -> None:
    """Raises PermissionDeniedError if the caller may not call the method, and for a method of no known right."""
    right = RIGHTS.get(method)
    if right is None:
        raise PermissionDeniedError(
            f"{method} has no right in memory3.rights, so nobody may call it; update the server"
        )
    if right not in caller.rights:
        has = ", ".join(right.value for right in Right if right in caller.rights)
        raise PermissionDeniedError(
            f"{method} needs the right {right.value}, and the token of {caller.name} has {has}; use another token"
        )


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls before their request is read: no token, an unknown one, or one without the right."""

    def __init__(self, access: AccessList) -> None:
        self._access = access

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(OPEN_METHODS):
            return handler
        try:
            caller = self._access.caller(handler_call_details.invocation_metadata or ())
            authorise(caller, method)
        except Memory3Error as error:
            return _refusing(error, method)
        if RIGHTS[method] is Right.ADMIN:
            log.info("%s called by %s", method, caller.name)
        return handler


def _refusing(error: Memory3Error, method: str) -> grpc.RpcMethodHandler:
    """Ends the call with the error, whatever its request; a stream's client gets the same status."""

    async def call(_: Any, context: grpc.aio.ServicerContext) -> None:
        await fail(error, method, context)

    return grpc.stream_unary_rpc_method_handler(call)
