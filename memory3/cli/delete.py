"""`memory3 delete`: documents, or a whole bank, with their memories."""

from __future__ import annotations

import sys

import click

from memory3.cli.config import addresses
from memory3.cli.output import counted, json_option, print_json, show
from memory3.cli.session import run
from memory3.client import Client
from memory3.types import DeleteResult


@click.command()
@click.option("--bank", required=True, help="The bank.")
@click.option("--document", "document_ids", multiple=True, help="Delete this document; may be given again.")
@click.option("--all", "whole_bank", is_flag=True, help="Delete the bank with all its documents.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@addresses("retrieval", "memory")
@json_option
def delete(bank: str, document_ids: tuple[str, ...], whole_bank: bool, yes: bool, as_json: bool, **tiers: str) -> None:
    """Delete documents, or a whole bank, with their memories. Asks before.

    Memories of references that another document of the bank still holds stay.

    \b
    Examples:
      memory3 delete --bank handbook --document intro.md
      memory3 delete --bank handbook --all --yes
    """
    if bool(document_ids) == whole_bank:
        raise click.UsageError("say what to delete: --document ID (may be given again), or --all for the whole bank")
    if not yes and (as_json or not sys.stdin.isatty()):
        raise click.UsageError("nobody is there to be asked: add --yes to delete")

    if not yes:
        if whole_bank:
            described = run(lambda client: client.retrieval.describe_bank(bank), tiers, as_json=as_json)
            what = (
                f"bank {bank!r} ({counted(described.num_documents or 0, 'document')}, "
                f"{counted(described.num_references, 'reference')})"
            )
        else:
            what = f"{counted(len(document_ids), 'document')} of bank {bank!r}"
        # Asked outside the event loop, which would hold ctrl-C back.
        if not click.confirm(f"Delete {what} with the memories?"):
            raise click.ClickException("nothing was deleted")

    async def verb(client: Client) -> tuple[DeleteResult, int]:
        return await (client.delete_bank(bank) if whole_bank else client.delete_documents(bank, document_ids))

    removed, num_memories = run(verb, tiers, as_json=as_json)
    if as_json:
        print_json(
            {
                "bank": bank,
                "num_documents": removed.num_documents,
                "num_references": removed.num_references,
                "num_memories": num_memories,
            }
        )
        return
    show(
        f"deleted {counted(removed.num_documents, 'document')}, {counted(removed.num_references, 'reference')}, "
        f"{counted(num_memories, 'memory', 'memories')}"
    )
    absent = len(set(document_ids)) - removed.num_documents
    if not whole_bank and absent > 0:
        show(f"{counted(absent, 'document')} not found")
