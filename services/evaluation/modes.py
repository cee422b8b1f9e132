"""The modes of an evaluation: what a context reads beside its prompt, and as what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Which references of an item."""

    NOTHING = "nothing"
    FOUND = "found"
    """The given ones, or those that retrieval finds."""
    GOLD = "gold"
    """Only those that hold the answer."""
    WRONG = "wrong"
    """Those of another item."""


class Mode(StrEnum):
    """One way to answer."""

    NONE = "none"
    RAG = "rag"
    RAG_GOLD = "rag-gold"
    RAG_WRONG = "rag-wrong"
    MEMORY = "memory"
    MEMORY_WRONG = "memory-wrong"
    RAG_MEMORY = "rag+memory"


@dataclass(frozen=True)
class Reading:
    """What stands in the prompt as text, and what is read as explicit memories."""

    text: Source
    memories: Source
    meaning: str

    @property
    def reads_memories(self) -> bool:
        """Whether the context stands behind the references' positions and opens with the separator."""
        return self.memories is not Source.NOTHING


READINGS = {
    Mode.NONE: Reading(Source.NOTHING, Source.NOTHING, "no references"),
    Mode.RAG: Reading(Source.FOUND, Source.NOTHING, "references as text in the prompt"),
    Mode.RAG_GOLD: Reading(Source.GOLD, Source.NOTHING, "only the references that hold the answer, as text"),
    Mode.RAG_WRONG: Reading(Source.WRONG, Source.NOTHING, "another item's references as text"),
    Mode.MEMORY: Reading(Source.NOTHING, Source.FOUND, "the same references as explicit memories"),
    Mode.MEMORY_WRONG: Reading(Source.NOTHING, Source.WRONG, "another item's references as explicit memories"),
    Mode.RAG_MEMORY: Reading(Source.FOUND, Source.FOUND, "both: as text and as explicit memories"),
}
