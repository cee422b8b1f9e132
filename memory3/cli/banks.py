"""`memory3 banks`: the banks there are."""

from __future__ import annotations

import asyncio

import click
from rich.table import Table

from memory3.cli.config import addresses
from memory3.cli.output import json_option, plain, print_json, show, table
from memory3.cli.session import run
from memory3.client import Client
from memory3.types import Bank


@click.command()
@addresses("retrieval")
@json_option
def banks(as_json: bool, **tiers: str) -> None:
    """List the banks, with their size and embedder.

    \b
    Example:
      memory3 banks
    """

    async def verb(client: Client) -> None:
        found = await describe_all(client)
        if as_json:
            print_json({"banks": found})
        elif found:
            show(bank_table(found))
        else:
            show("no banks yet: memory3 ingest PATH... --bank NAME")

    run(verb, tiers, as_json=as_json)


async def describe_all(client: Client) -> list[Bank]:
    """All banks by name, with their numbers of documents."""
    listed = await client.retrieval.list_banks()
    return list(await asyncio.gather(*(client.retrieval.describe_bank(bank.bank) for bank in listed)))


def bank_table(found: list[Bank]) -> Table:
    """One row a bank."""
    rows = table("bank", ("documents", "right"), ("references", "right"), "embedder", ("dimension", "right"))
    for bank in found:
        documents = "" if bank.num_documents is None else f"{bank.num_documents:,}"
        rows.add_row(
            plain(bank.bank), documents, f"{bank.num_references:,}", plain(bank.embedder_id), str(bank.dimension)
        )
    return rows
