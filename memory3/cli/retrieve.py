"""`memory3 retrieve`: search a bank without generating."""

from __future__ import annotations

import click

from memory3 import semconv
from memory3.cli.config import addresses
from memory3.cli.output import first_words, json_option, milliseconds, plain, print_json, show, table
from memory3.cli.session import Attributes, run
from memory3.client import Client


@click.command()
@click.argument("query")
@click.option("--bank", required=True, help="The bank to search.")
@click.option("--top-k", type=click.IntRange(1, 100), default=5, show_default=True, help="References wanted.")
@click.option("--document", "document_ids", multiple=True, help="Only of this document; may be given again.")
@addresses("retrieval")
@json_option
def retrieve(query: str, bank: str, top_k: int, document_ids: tuple[str, ...], as_json: bool, **tiers: str) -> None:
    """Find the references nearest to QUERY, by cosine similarity.

    \b
    Example:
      memory3 retrieve "who wrote Faust?" --bank handbook --top-k 3
    """

    async def verb(client: Client) -> None:
        result = await client.retrieval.retrieve(bank, [query], top_k, document_ids)
        hits, timing = result.results[0], result.timing
        if as_json:
            print_json({"query": query, "bank": bank, "hits": hits, "timing": timing})
            return
        rows = table(("score", "right"), "reference", ("document", "text"), ("text", "text"))
        for hit in hits:
            found = hit.reference
            rows.add_row(
                f"{hit.score:.3f}",
                plain(found.reference_id),
                first_words(found.title or found.document_id),
                first_words(found.text),
            )
        show(rows) if hits else show("nothing found")
        show(
            plain(
                f"{milliseconds(timing.total_ns)} ms: queue {milliseconds(timing.queue_ns)}, "
                f"embed {milliseconds(timing.embed_ns)}, search {milliseconds(timing.search_ns)}",
                "dim",
            )
        )

    attributes: Attributes = {semconv.ATTR_BANK: bank, semconv.ATTR_NUM_QUERIES: 1}
    run(verb, tiers, as_json=as_json, span=semconv.SPAN_RETRIEVE, attributes=attributes)
