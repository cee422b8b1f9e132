"""One run of a command: telemetry, event loop, clients, errors. Knows no command."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar

import click

from memory3 import semconv, telemetry
from memory3.cli.config import security
from memory3.cli.output import Failure
from memory3.client import Client
from memory3.errors import Memory3Error
from memory3.security import SecurityError

T = TypeVar("T")
_EXPORT_TIMEOUT_S = 2.0
"""A collector that is down may hold a command up by no more than this at its end."""
Attributes = Mapping[str, str | int]


def run(
    verb: Callable[[Client], Awaitable[T]],
    addresses: Mapping[str, Any],
    *,
    as_json: bool,
    span: str | None = None,
    attributes: Attributes | None = None,
) -> T:
    """What `verb` returns with clients for the addresses; it runs inside a root span of that name, if given.

    Raises Failure for an error of ours, ClickException for TLS or a token that cannot be used. Ctrl-C cancels the calls
    under way, which frees what they hold.
    """
    # A collector that is down is no business of the person at the terminal.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    async def session() -> T:
        async with Client(**addresses, security=how) as client:
            with _root_span(span, attributes):
                return await verb(client)

    try:
        how = security()
        how.check()
        for target in addresses.values():
            how.check_target(target)
    except SecurityError as error:
        raise click.ClickException(str(error)) from error
    # Whoever sets an endpoint at a terminal wants to see this one request.
    stop = telemetry.start(semconv.SERVICE_CLIENT, export_timeout_s=_EXPORT_TIMEOUT_S, traced_share=1.0)
    try:
        return asyncio.run(session())
    except Memory3Error as error:
        raise Failure(error, as_json=as_json) from error
    finally:
        stop()


@contextlib.contextmanager
def _root_span(name: str | None, attributes: Attributes | None) -> Iterator[None]:
    if name is None:
        yield
        return
    with telemetry.tracer.start_as_current_span(name, attributes=dict(attributes or {})):
        yield
