"""What ingest needs from others: a tokenizer, the writer, the index and the memory store. The SDK's clients fit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from memory3.types import DecoderInfo, Document, MemoryStat, Reference, ReferenceText, UpsertResult, WriteResult


class TokenCounter(Protocol):
    """The model's tokenizer, as far as cutting needs it."""

    def token_ends(self, text: str) -> Sequence[int]:
        """For each token of `text`, the character behind its last one; its length is the number of tokens."""


class Writer(Protocol):
    """Makes memories: MemoryWriterService."""

    async def write(self, bank: str, references: Sequence[ReferenceText], *, timeout: float) -> WriteResult:
        """Write 1 to 64 references; one item for each, in order."""

    async def info(self, *, timeout: float) -> DecoderInfo:
        """The model that writes."""


class Index(Protocol):
    """Holds references: RetrievalService."""

    async def upsert(
        self,
        bank: str,
        document_id: str,
        version: str,
        references: Sequence[Reference],
        *,
        last_part: bool,
        timeout: float,
    ) -> UpsertResult:
        """Add or replace one document, or one part of it."""

    async def get_references(self, bank: str, reference_ids: Sequence[str], *, timeout: float) -> list[Reference]:
        """The references among 1 to 256 ids that exist."""

    def list_documents(self, bank: str) -> AsyncIterator[Document]:
        """All documents of a bank, by id."""


class MemoryStore(Protocol):
    """Holds memories: MemoryService."""

    async def stat(
        self, bank: str, model_fingerprint: str, reference_ids: Sequence[str], *, timeout: float
    ) -> Sequence[MemoryStat]:
        """Which of 1 to 4096 memories exist."""

    async def delete(self, bank: str, reference_ids: Sequence[str], *, timeout: float) -> int:
        """Delete the memories, of all models, of at most 4096 references."""
