"""The three tiers in memory, strict about what the contracts say; a hook lets a test fail any call."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

from memory3.errors import UnknownBankError
from memory3.types import (
    Document,
    MemoryStat,
    Reference,
    ReferenceText,
    RetrieveTiming,
    UpsertResult,
    WriteItem,
    WriteResult,
    WriteStatus,
)

FINGERPRINT = "f" * 32


class FakeTiers:
    """Index, memory store and writer at once. `before(call, argument)` may raise what the tier would."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[str, list[Reference]]] = {}
        self.memories: set[str] = set()
        self.writes: Counter[str] = Counter()
        self.batches: list[int] = []
        self.upserts: Counter[str] = Counter()
        self.refuse: Callable[[str], str] = lambda reference_id: ""
        self.before: Callable[[str, object], None] = lambda call, argument: None
        self.warm = True

    async def write(self, bank: str, references: Sequence[ReferenceText], *, timeout: float) -> WriteResult:
        self.before("write", references)
        assert 1 <= len(references) <= 64
        self.batches.append(len(references))
        items = []
        for reference_id, _, _ in references:
            error = self.refuse(reference_id)
            if error:
                items.append(WriteItem(reference_id, WriteStatus.FAILED, 0, error))
                continue
            existed = reference_id in self.memories
            self.memories.add(reference_id)
            self.writes[reference_id] += not existed
            items.append(WriteItem(reference_id, WriteStatus.EXISTED if existed else WriteStatus.WRITTEN, 100))
        return WriteResult(items, 1, 1, 1)

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
        self.before("upsert", document_id)
        assert references
        if self.warm:
            assert {r.reference_id for r in references} <= self.memories, "put before index"
        self.upserts[document_id] += 1
        held_version, held = self.rows.get(document_id, (version, []))
        removed = [] if held_version == version else held
        kept = {r.ordinal: r for r in ([] if removed else held)} | {r.ordinal: r for r in references}
        self.rows[document_id] = (version, list(kept.values()))
        still = self.held()
        orphans = sorted({r.reference_id for r in removed} - still)
        return UpsertResult(len(references), len(removed), orphans, RetrieveTiming())

    async def get_references(self, bank: str, reference_ids: Sequence[str], *, timeout: float) -> list[Reference]:
        self.before("get_references", reference_ids)
        return [r for _, rows in self.rows.values() for r in rows if r.reference_id in reference_ids]

    async def list_documents(self, bank: str) -> AsyncIterator[Document]:
        self.before("list_documents", bank)
        if not self.rows:
            raise UnknownBankError(f"no bank {bank}")
        for document_id, (version, rows) in self.rows.items():
            yield Document(document_id, "", "", version, len(rows))

    async def stat(
        self, bank: str, model_fingerprint: str, reference_ids: Sequence[str], *, timeout: float
    ) -> list[MemoryStat]:
        self.before("stat", reference_ids)
        assert len(reference_ids) <= 4096
        return [MemoryStat(r, r in self.memories, 100) for r in reference_ids]

    async def delete(self, bank: str, reference_ids: Sequence[str], *, timeout: float) -> int:
        self.before("delete", reference_ids)
        gone = self.memories & set(reference_ids)
        self.memories -= gone
        return len(gone)

    def held(self) -> set[str]:
        return {r.reference_id for _, rows in self.rows.values() for r in rows}
