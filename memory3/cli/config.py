"""Where the tiers are and how they are called: options and variables; the command line reads them nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from memory3 import telemetry
from memory3.client import DECODER_ADDRESS, MEMORY_ADDRESS, RETRIEVAL_ADDRESS
from memory3.security import ChannelSecurity

C = TypeVar("C", bound=Callable[..., Any])
_DEFAULTS = {"retrieval": RETRIEVAL_ADDRESS, "memory": MEMORY_ADDRESS, "decoder": DECODER_ADDRESS}
_TOKEN_FILE = "memory3.token_file"
TIERS = tuple(_DEFAULTS)
"""The three tiers, in the order in which they are always named."""

TRACE_ID = "{trace_id}"
TRACE_URL = f"http://localhost:16686/trace/{TRACE_ID}"
"""Where Jaeger on this machine shows a trace."""


def addresses(*tiers: str) -> Callable[[C], C]:
    """Give a command --token-file, and --retrieval, --memory and --decoder as far as it uses these tiers."""

    def decorate(command: C) -> C:
        command = click.option(
            "--token-file",
            metavar="FILE",
            expose_value=False,
            callback=_keep_token_file,
            help="File with the token for the tiers.  [env var: MEMORY3_TOKEN_FILE; MEMORY3_TOKEN is the token itself]",
        )(command)
        for tier in reversed(tiers):
            command = click.option(
                f"--{tier}",
                envvar=f"MEMORY3_{tier.upper()}",
                default=_DEFAULTS[tier],
                show_default=True,
                show_envvar=True,
                metavar="HOST:PORT",
                help=f"Address of the {tier} tier.",
            )(command)
        return command

    return decorate


def trace_url(command: C) -> C:
    """Give a command the option --trace-url: None where nobody said it and no traces are exported."""
    return click.option(
        "--trace-url",
        envvar="MEMORY3_TRACE_URL",
        show_envvar=True,
        callback=_usable_template,
        metavar="TEMPLATE",
        help="Where the trace UI shows a trace; {trace_id} stands for its id.  "
        f"[default: {TRACE_URL} where traces are exported]",
    )(command)


def _usable_template(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if not value:
        return TRACE_URL if telemetry.enabled() else None
    if TRACE_ID not in value:
        raise click.BadParameter(f"{value!r} has no {TRACE_ID}; put it where the trace's id belongs", param=parameter)
    return value


def _keep_token_file(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.meta[_TOKEN_FILE] = value


def security() -> ChannelSecurity:
    """How the running command calls the tiers: --token-file and the MEMORY3_TLS_* and MEMORY3_TOKEN* variables.

    Raises SecurityError.
    """
    token_file = click.get_current_context().meta.get(_TOKEN_FILE)
    return ChannelSecurity.from_environment(os.environ).with_token_file(token_file)


def quiet_grpc() -> None:
    """Keep gRPC's own log lines out of the terminal; our errors say what they would. Before the first channel."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
