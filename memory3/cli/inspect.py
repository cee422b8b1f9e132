"""`memory3 inspect`: one reference, its place, and its stored memories."""

from __future__ import annotations

import click
from rich.table import Table

from memory3.cli.config import addresses
from memory3.cli.output import json_option, num_bytes, plain, print_json, show, table
from memory3.cli.session import run
from memory3.client import Client
from memory3.errors import Memory3Error, UnknownReferenceError
from memory3.types import MemoryEntry, Reference


@click.command(short_help="Show a reference, its place and its memories.")
@click.argument("reference_id")
@click.option("--bank", required=True, help="The bank that holds it.")
@click.option("--all-models", is_flag=True, help="Also memories of other models; walks through the whole bank.")
@addresses("retrieval", "memory", "decoder")
@json_option
def inspect(reference_id: str, bank: str, all_models: bool, as_json: bool, **tiers: str) -> None:
    """Show a reference: its text, its place in its document, and its stored memories.

    The id is one that `memory3 retrieve` or `memory3 generate` has shown.

    \b
    Example:
      memory3 inspect 5f1c0e3a9b7d42c6815e0f2a3b4c5d6e --bank handbook
    """

    async def verb(client: Client) -> None:
        references = await client.retrieval.get_references(bank, [reference_id])
        if not references:
            raise UnknownReferenceError(
                f"no reference {reference_id!r} in bank {bank!r}; memory3 retrieve shows the ids of what it finds"
            )
        memories, problem = await _memories(client, bank, reference_id, all_models)
        if as_json:
            print_json(
                {
                    "reference_id": reference_id,
                    "bank": bank,
                    "places": references,
                    "memories": memories,
                    "memories_problem": problem,
                }
            )
            return
        if preceding := references[0].preceding:
            show(plain(f"behind: {preceding}", "dim"), "")
        show(plain(references[0].text), "", _places(references), "")
        if memories:
            rows = table("memory of model", ("size", "right"))
            for entry in memories:
                rows.add_row(plain(entry.model_fingerprint), num_bytes(entry.size_bytes))
            show(rows)
        elif problem is None:
            whose = "any model" if all_models else "the running model"
            show(f"no memory of {whose}: it is written by memory3 ingest, or when it is first recalled")
        if problem is not None:
            show(plain(f"memories unknown: {problem}", "yellow"))

    run(verb, tiers, as_json=as_json)


async def _memories(
    client: Client, bank: str, reference_id: str, all_models: bool
) -> tuple[list[MemoryEntry], str | None]:
    """The memories of the reference, or what hinders to look: the text is worth showing without them."""
    try:
        if all_models:
            listed = client.memory.list(bank)
            return [entry async for entry in listed if entry.reference_id == reference_id], None
        fingerprint = (await client.decoder.info()).model_fingerprint
        (stat,) = await client.memory.stat(bank, fingerprint, [reference_id])
    except Memory3Error as error:
        return [], str(error)
    return [MemoryEntry(bank, reference_id, fingerprint, stat.size_bytes)] if stat.exists else [], None


def _places(references: list[Reference]) -> Table:
    rows = table(
        "document", ("title", "text"), ("part", "right"), "characters", ("tokens", "right"), ("source", "text")
    )
    for place in references:
        rows.add_row(
            plain(place.document_id),
            plain(place.title),
            str(place.ordinal),
            f"{place.start_char}-{place.end_char}",
            str(place.num_tokens),
            plain(place.source),
        )
    return rows
