"""What this tier needs of others: workers that generate, a tier that finds references, a tier that keeps memories.

The clients of the SDK satisfy the last two as they are.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from memory3.types import (
    Bank,
    DecoderInfo,
    FetchedRecord,
    GenerationEvent,
    GenerationRequest,
    MemoryStat,
    ReferenceText,
    RetrieveResult,
    WriteResult,
)

Carrier = Mapping[str, str]
"""W3C trace context, as `memory3.telemetry.inject` writes it; goes with the request because Ray does not carry it."""


class GenerationBackend(Protocol):
    """Where generations run. Raises memory3.errors only; a lost worker is BackendUnavailableError."""

    def generate(
        self, request: GenerationRequest, carrier: Carrier, timeout_s: float | None
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Events of one checked request, the last one a FinalEvent. Closing the iterator frees the slot."""
        ...

    async def write(self, bank: str, references: Sequence[ReferenceText], carrier: Carrier) -> WriteResult:
        """Write (reference_id, text) pairs; one item each, in order."""
        ...

    async def info(self) -> DecoderInfo:
        """What decodes here."""
        ...

    async def check(self) -> None:
        """Return if a worker answers; raise if not."""
        ...

    async def close(self) -> None:
        """Stop the workers; generations under way end with BackendUnavailableError."""
        ...


class ReferenceSource(Protocol):
    """Finds references (memory3.retrieval.RetrievalClient)."""

    async def retrieve(
        self, bank: str, queries: Sequence[str], top_k: int, document_ids: Sequence[str] = (), *, timeout: float
    ) -> RetrieveResult:
        """Hits for each query, by falling score."""
        ...

    async def list_banks(self, *, timeout: float) -> Sequence[Bank]:
        """All banks; asked to find out whether the tier answers."""
        ...


class MemorySource(Protocol):
    """Keeps records (memory3.memory.MemoryClient)."""

    def batch_get(
        self, bank: str, model_fingerprint: str, reference_ids: Sequence[str], *, timeout: float
    ) -> AsyncIterator[FetchedRecord]:
        """One item for each distinct id, in the order in which they arrive."""
        ...

    async def stat(
        self, bank: str, model_fingerprint: str, reference_ids: Sequence[str], *, timeout: float
    ) -> Sequence[MemoryStat]:
        """Which memories exist."""
        ...

    async def put(self, bank: str, reference_id: str, model_fingerprint: str, record: bytes, *, timeout: float) -> bool:
        """Store one record; whether it is new."""
        ...


@dataclass(frozen=True)
class Tiers:
    """The other two tiers, as one worker reaches them."""

    retrieval: ReferenceSource
    memory: MemorySource
    """For recalls: fails at once."""
    patient_memory: MemorySource
    """For writes: tries again."""
    close: Callable[[], Awaitable[None]]
    """Called when the worker has ended."""
