"""All three tiers in this process: the cores of their services, put together without gRPC, Ray or a second process.

What calls a tier in the mesh through a client calls its core here; the cores, their adapters and settings are those of
the services.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from memory3.errors import DeadlineExceededError
from memory3.types import Bank, FetchedRecord, MemoryStat, RetrieveResult
from services.decoder.assembly import build_worker
from services.decoder.config import DecoderSettings
from services.decoder.core import DecoderCore
from services.decoder.local_backend import LocalBackend
from services.decoder.ports import Tiers
from services.memory import __main__ as memory_root
from services.memory.config import MemorySettings
from services.memory.core import MemoryCore
from services.memory.layout import Identity
from services.retrieval import __main__ as retrieval_root
from services.retrieval.config import RetrievalSettings
from services.retrieval.core import RetrievalCore


@contextlib.asynccontextmanager
async def one_process(
    retrieval: RetrievalSettings, memory: MemorySettings, decoder: DecoderSettings
) -> AsyncGenerator[tuple[DecoderCore, RetrievalCore], None]:
    """What generates, and what documents are indexed in; addresses and ports in the settings are not used."""
    async with (
        retrieval_root.open_core(retrieval) as (references, _),
        memory_root.open_core(memory, memory_root.make_store(memory, memory.location)) as (records, _),
    ):
        store = _Memory(records)
        backend = LocalBackend(await build_worker(decoder, Tiers(_Retrieval(references), store, store, _nothing)))
        try:
            most = decoder.max_workers * decoder.max_generations_per_worker
            yield DecoderCore(backend, max_generations=most), references
        finally:
            await backend.close()


async def _nothing() -> None:
    """The cores are closed by who opened them."""


class _Retrieval:
    """A ReferenceSource of the decoder on the retrieval tier's core."""

    def __init__(self, core: RetrievalCore) -> None:
        self._core = core

    async def retrieve(
        self, bank: str, queries: Sequence[str], top_k: int, document_ids: Sequence[str] = (), *, timeout: float
    ) -> RetrieveResult:
        async with _deadline(timeout):
            return await self._core.retrieve(bank, queries, top_k, document_ids)

    async def list_banks(self, *, timeout: float) -> Sequence[Bank]:
        async with _deadline(timeout):
            return await self._core.list_banks()


class _Memory:
    """A MemorySource of the decoder on the memory tier's core."""

    def __init__(self, core: MemoryCore) -> None:
        self._core = core

    async def batch_get(
        self, bank: str, model_fingerprint: str, reference_ids: Sequence[str], *, timeout: float
    ) -> AsyncGenerator[FetchedRecord, None]:
        async with (
            _deadline(timeout),
            contextlib.aclosing(self._core.batch_get(bank, model_fingerprint, reference_ids)) as items,
        ):
            async for item in items:
                yield item

    async def stat(
        self, bank: str, model_fingerprint: str, reference_ids: Sequence[str], *, timeout: float
    ) -> Sequence[MemoryStat]:
        async with _deadline(timeout):
            return await self._core.stat(bank, model_fingerprint, reference_ids)

    async def put(self, bank: str, reference_id: str, model_fingerprint: str, record: bytes, *, timeout: float) -> bool:
        async with _deadline(timeout):
            return await self._core.put(Identity(bank, reference_id, model_fingerprint), record)


@contextlib.asynccontextmanager
async def _deadline(seconds: float) -> AsyncGenerator[None, None]:
    """As a client's deadline: what is not done by then is cancelled."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise DeadlineExceededError(f"not done within {seconds:g} s") from error
