"""`memory3 info`: what runs where, also when a tier is down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

import click
from rich.table import Table
from rich.text import Text

from memory3.channel import ChannelClient
from memory3.cli.banks import bank_table, describe_all
from memory3.cli.config import TIERS, addresses
from memory3.cli.output import first_words, json_option, jsonable, num_bytes, plain, print_json, show, table
from memory3.cli.session import run
from memory3.client import Client
from memory3.errors import Memory3Error, PermissionDeniedError, UnauthenticatedError
from memory3.health import is_serving
from memory3.types import DecoderInfo

T = TypeVar("T")
_STYLES = {"serving": "green", "not serving": "yellow", "down": "red"}


@click.command(short_help="Show the health of the tiers, the model and the banks.")
@addresses(*TIERS)
@json_option
def info(as_json: bool, **tiers: str) -> None:
    """Show the health of each tier, the model with its memory plan and limits, and the banks.

    Works when tiers are down, and says which.

    \b
    Example:
      memory3 info
    """

    async def verb(client: Client) -> None:
        states, decoder, banks = await asyncio.gather(
            asyncio.gather(*(_state(name, getattr(client, name)) for name in TIERS)),
            _unless_down(client.decoder.info()),
            _unless_down(describe_all(client)),
        )
        if as_json:
            model = None if decoder is None else {**jsonable(decoder), "memory_plan": _plan(decoder)}
            print_json({"tiers": states, "decoder": model, "banks": banks})
            return
        rows = table("tier", "address", "state", ("", "text"))
        for state in states:
            rows.add_row(
                state.tier,
                plain(state.address),
                Text(state.state, style=_STYLES[state.state]),
                first_words(state.problem or ""),
            )
        show(rows)
        if decoder is not None:
            show("", _model(decoder))
        if banks:
            show("", bank_table(banks))

    run(verb, tiers, as_json=as_json)


@dataclass(frozen=True)
class TierState:
    """`state` is "serving", "not serving" (it answers and lacks something) or "down", with the problem."""

    tier: str
    address: str
    state: str
    problem: str | None = None


async def _state(name: str, tier: ChannelClient) -> TierState:
    try:
        return TierState(name, tier.target, "serving" if await is_serving(tier) else "not serving")
    except Memory3Error as error:
        return TierState(name, tier.target, "down", str(error))


async def _unless_down(call: Awaitable[T]) -> T | None:
    """The answer; None if there is none, which the tier's state explains. A refused token no state explains."""
    try:
        return await call
    except (UnauthenticatedError, PermissionDeniedError):
        raise
    except Memory3Error:
        return None


def _plan(decoder: DecoderInfo) -> Any:
    """The memory plan as JSON; as text if a server of another version sends something else."""
    try:
        return json.loads(decoder.memory_plan_json)
    except ValueError:
        return decoder.memory_plan_json


def _model(decoder: DecoderInfo) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    smaller = (
        f", {decoder.dense_reference_bytes / decoder.memory_bytes:.1f} times smaller" if decoder.memory_bytes else ""
    )
    plan = _plan(decoder)
    lines = {
        "model": f"{decoder.model} ({decoder.dtype})",
        "fingerprint": decoder.model_fingerprint,
        "tokenizer": decoder.tokenizer,
        "limits": f"{decoder.max_context_tokens:,} context tokens, {decoder.max_batch_size} sequences at once",
        "memory": f"{num_bytes(decoder.memory_bytes)} a reference "
        f"(dense keys and values: {num_bytes(decoder.dense_reference_bytes)}{smaller})",
        "plan": ", ".join(f"{key} {json.dumps(value)}" for key, value in plan.items())
        if isinstance(plan, dict)
        else str(plan),
    }
    for name, value in lines.items():
        grid.add_row(Text(name, style="bold"), plain(value))
    return grid
