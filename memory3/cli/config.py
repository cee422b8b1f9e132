"""Where the tiers are: options and environment variables, which are read nowhere else in the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from memory3.client import DECODER_ADDRESS, MEMORY_ADDRESS, RETRIEVAL_ADDRESS

C = TypeVar("C", bound=Callable[..., Any])
_DEFAULTS = {"retrieval": RETRIEVAL_ADDRESS, "memory": MEMORY_ADDRESS, "decoder": DECODER_ADDRESS}
TIERS = tuple(_DEFAULTS)
"""The three tiers, in the order in which they are always named."""


def addresses(*tiers: str) -> Callable[[C], C]:
    """Give a command the options --retrieval, --memory and --decoder, as far as it uses these tiers."""

    def decorate(command: C) -> C:
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


def quiet_grpc() -> None:
    """Keep gRPC's own log lines out of the terminal; our errors say what they would. Before the first channel."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
