"""`memory3 documents`: the documents of a bank."""

from __future__ import annotations

import click

from memory3.cli.config import addresses
from memory3.cli.output import counted, first_words, json_option, plain, print_json, show, table
from memory3.cli.session import run
from memory3.client import Client


@click.command(short_help="List the documents of a bank.")
@click.option("--bank", required=True, help="The bank.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after this many documents.")
@addresses("retrieval")
@json_option
def documents(bank: str, limit: int | None, as_json: bool, **tiers: str) -> None:
    """List the documents of a bank by id.

    \b
    Example:
      memory3 documents --bank handbook --limit 20
    """

    async def verb(client: Client) -> None:
        total = (await client.retrieval.describe_bank(bank)).num_documents or 0
        found = []
        async for document in client.retrieval.list_documents(bank, page_size=min(limit or 1000, 1000)):
            found.append(document)
            if len(found) == limit:
                break
        if as_json:
            print_json({"bank": bank, "num_documents": total, "documents": found})
            return
        rows = table("document", ("title", "text"), ("references", "right"), ("source", "text"))
        for document in found:
            rows.add_row(
                plain(document.document_id),
                first_words(document.title),
                f"{document.num_references:,}",
                first_words(document.source),
            )
        show(rows, f"{len(found):,} of {counted(total, 'document')}")

    run(verb, tiers, as_json=as_json)
