"""The Wikipedia lead texts: knowledge base and running text."""

from __future__ import annotations

import functools
import json

from services.datasets.draw import split_of
from services.datasets.item import BaseDocument, Split
from services.datasets.sources import WIKIPEDIA_LEADS


@functools.cache
def leads() -> tuple[BaseDocument, ...]:
    """All articles with a text, in the package's order; the key is the document's id, as `memory3 ingest` has it."""
    with WIKIPEDIA_LEADS.parsing() as path:
        content = json.loads(path.read_text(encoding="utf-8"))
        return tuple(
            BaseDocument(key, article["title"], article["extract"])
            for key, article in content.items()
            if article["extract"].strip()
        )


def split_of_lead(document: BaseDocument) -> Split:
    """The split of an article, by its title."""
    return split_of(f"wikipedia {document.title}")
