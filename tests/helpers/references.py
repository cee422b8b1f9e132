"""References made from texts, as ingest would make them; for tests of the retrieval tier."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from memory3.types import Reference


def reference_id_of(text: str) -> str:
    """32 hex digits that depend on the text only."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def references_of(document_id: str, texts: Sequence[str], *, title: str = "Title", first: int = 0) -> list[Reference]:
    """One reference for each text; ordinals count from `first`, characters run through the joined text."""
    references: list[Reference] = []
    start = 0
    for ordinal, text in enumerate(texts, first):
        end = start + len(text)
        preceding = references[-1].text if references else ""
        references.append(
            Reference(
                reference_id_of(text), text, document_id, title, f"file:{title}", ordinal, start, end, 7, preceding
            )
        )
        start = end
    return references
