"""Fakes of the retrieval and the memory tier as the decoder's worker sees them; for its unit tests only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from memory3.errors import Memory3Error
from memory3.types import FetchedRecord, FetchStatus, Hit, MemoryStat, Reference, RetrieveResult, RetrieveTiming, Tier
from model.identity import reference_id

Answer = Callable[[str], Sequence[str]]


def reference(text: str) -> Reference:
    """A reference of a document named like it."""
    return Reference(reference_id(text), text, document_id=f"doc of {text}", title=f"Title of {text}")


class FakeRetrieval:
    """Answers each query with the texts that `find` names, best first; `gate` holds back, `error` replaces answers."""

    def __init__(self, find: Answer) -> None:
        self.find = find
        self.calls: list[tuple[str, tuple[str, ...], int, tuple[str, ...]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def retrieve(
        self, bank: str, queries: Sequence[str], top_k: int, document_ids: Sequence[str] = (), *, timeout: float
    ) -> RetrieveResult:
        self.calls.append((bank, tuple(queries), top_k, tuple(document_ids)))
        await asyncio.wait_for(self.gate.wait(), timeout)
        if self.error is not None:
            raise self.error
        results = [
            [Hit(reference(text), 1 - rank / 10) for rank, text in enumerate(self.find(query)[:top_k])]
            for query in queries
        ]
        return RetrieveResult(results, RetrieveTiming(total_ns=1000, embed_ns=600, search_ns=300))


class FakeMemory:
    """Keeps records in a dict. `statuses` overrides single items, `gates` hold them back, `error` fails the call."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.fetches: list[list[str]] = []
        self.puts: list[str] = []
        self.statuses: dict[str, FetchStatus] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.error: Memory3Error | None = None
        self.put_error: Memory3Error | None = None
        self.num_stats = 0

    async def batch_get(
        self, bank: str, model_fingerprint: str, reference_ids: Sequence[str], *, timeout: float
    ) -> AsyncGenerator[FetchedRecord, None]:
        self.fetches.append(list(reference_ids))
        if self.error is not None:
            raise self.error
        for key in sorted(reference_ids, key=lambda key: key in self.gates):
            if key in self.gates:
                await self.gates[key].wait()
            found = FetchStatus.FOUND if key in self.records else FetchStatus.MISSING
            status = self.statuses.get(key, found)
            record = self.records.get(key, b"") if status is FetchStatus.FOUND else b""
            yield FetchedRecord(key, status, Tier.OBJECT if record else Tier.NONE, record, 1)

    async def stat(
        self, bank: str, model_fingerprint: str, reference_ids: Sequence[str], *, timeout: float
    ) -> Sequence[MemoryStat]:
        self.num_stats += 1
        if self.error is not None:
            raise self.error
        return [MemoryStat(key, key in self.records, len(self.records.get(key, b""))) for key in reference_ids]

    async def put(self, bank: str, reference_id: str, model_fingerprint: str, record: bytes, *, timeout: float) -> bool:
        self.puts.append(reference_id)
        if self.put_error is not None:
            raise self.put_error
        created = reference_id not in self.records
        self.records[reference_id] = record
        return created
