"""VectorIndex in this process: exact search over numpy arrays. For tests and tiny set-ups; nothing is kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from memory3.errors import UnknownBankError
from memory3.types import Bank, Document, Hit, Reference
from services.retrieval.ports import BankIdentity, Row, StoredRow, Vectors


@dataclass
class _LocalBank:
    identity: BankIdentity
    rows: dict[str, Row] = field(default_factory=dict)
    vectors: dict[str, Vectors] = field(default_factory=dict)

    def documents(self) -> list[Row]:
        """The rows that stand for documents, by document id."""
        return sorted((row for row in self.rows.values() if row.num_references), key=lambda row: row.key)


class LocalIndex:
    """Rows in dictionaries; the exact twin of the Milvus index."""

    def __init__(self) -> None:
        self._banks: dict[str, _LocalBank] = {}

    async def check(self) -> None:
        """Always there."""

    async def create(self, bank: str, identity: BankIdentity) -> BankIdentity:
        """Create the bank if it does not exist."""
        return self._banks.setdefault(bank, _LocalBank(identity)).identity

    async def identity(self, bank: str) -> BankIdentity:
        """Which embedder made the bank."""
        return self._open(bank).identity

    async def upsert(self, bank: str, rows: Sequence[Row], vectors: Vectors) -> None:
        """Write rows; one of the same key is replaced."""
        held = self._open(bank)
        for row, vector in zip(rows, vectors, strict=True):
            held.rows[row.key] = row
            held.vectors[row.key] = vector

    async def search(self, bank: str, vectors: Vectors, limit: int, document_ids: Sequence[str]) -> list[list[Hit]]:
        """Score every row of the bank (of these documents, if any are given)."""
        held = self._open(bank)
        wanted = set(document_ids)
        rows = [row for row in held.rows.values() if not wanted or row.reference.document_id in wanted]
        if not rows:
            return [[] for _ in vectors]
        scores = vectors @ np.stack([held.vectors[row.key] for row in rows]).T
        orders = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
        return [
            [Hit(rows[place].reference, float(of_query[place])) for place in order]
            for of_query, order in zip(scores, orders, strict=True)
        ]

    async def get(self, bank: str, reference_ids: Sequence[str]) -> list[Reference]:
        """References with one of these ids."""
        wanted = set(reference_ids)
        rows = self._open(bank).rows.values()
        return [row.reference for row in rows if row.reference.reference_id in wanted]

    async def stored(self, bank: str, document_ids: Sequence[str]) -> list[StoredRow]:
        """Rows of these documents."""
        wanted = set(document_ids)
        return [
            StoredRow(row.key, row.reference.reference_id, row.reference.document_id, row.version, row.num_references)
            for row in self._open(bank).rows.values()
            if row.reference.document_id in wanted
        ]

    async def held(self, bank: str, reference_ids: Sequence[str]) -> set[str]:
        """Ids that a row holds."""
        return {reference.reference_id for reference in await self.get(bank, reference_ids)}

    async def delete(self, bank: str, keys: Sequence[str]) -> None:
        """Remove rows."""
        held = self._open(bank)
        for key in keys:
            held.rows.pop(key, None)
            held.vectors.pop(key, None)

    async def documents(self, bank: str, after: str, limit: int) -> list[Document]:
        """The next documents by id."""
        rows = [row for row in self._open(bank).documents() if row.reference.document_id > after]
        return [
            Document(
                row.reference.document_id, row.reference.title, row.reference.source, row.version, row.num_references
            )
            for row in rows[:limit]
        ]

    async def banks(self) -> list[Bank]:
        """All banks by name."""
        return [
            Bank(name, len(held.rows), held.identity.embedder_id, held.identity.dimension)
            for name, held in sorted(self._banks.items())
        ]

    async def describe(self, bank: str) -> Bank:
        """The bank with its documents counted."""
        held = self._open(bank)
        num_documents = len({row.reference.document_id for row in held.documents()})
        return Bank(bank, len(held.rows), held.identity.embedder_id, held.identity.dimension, num_documents)

    async def drop(self, bank: str) -> None:
        """Forget the bank."""
        self._open(bank)
        del self._banks[bank]

    async def close(self) -> None:
        """Nothing to give back."""

    def _open(self, bank: str) -> _LocalBank:
        try:
            return self._banks[bank]
        except KeyError:
            raise UnknownBankError(f"no bank {bank!r}; ingest into it first, or list the banks") from None
