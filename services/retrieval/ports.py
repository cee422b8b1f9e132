"""What the retrieval tier needs from others: an embedder and a vector index. Knows neither of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memory3.types import Bank, Document, Hit, Reference

Vectors = NDArray[np.float32]
"""One row for each text, `[n, dimension]`, unit length."""

KEY_SEPARATOR = "\t"
"""Between document id and the rest of a row's key; lower than any character of an id, so keys sort by document."""


@dataclass(frozen=True)
class Row:
    """One row of a bank: a reference as one version of a document holds it.

    `num_references` is the count of the whole document in the last row of a complete document and 0 in all others: that
    row stands for the document in listings.
    """

    reference: Reference
    version: str
    num_references: int = 0

    @property
    def key(self) -> str:
        """Primary key: equal for equal content, different for each version of a document."""
        held = f"{self.version}\0{self.reference.ordinal}\0{self.reference.reference_id}"
        digest = hashlib.blake2b(held.encode(), digest_size=16).hexdigest()
        return f"{self.reference.document_id}{KEY_SEPARATOR}{digest}"


@dataclass(frozen=True)
class StoredRow:
    """What maintenance needs to know of a row, without its text and vector."""

    key: str
    reference_id: str
    document_id: str
    version: str
    num_references: int


@dataclass(frozen=True)
class BankIdentity:
    """What must agree between a bank and the embedder that searches it."""

    embedder_id: str
    dimension: int


class Embedder(Protocol):
    """Turns texts into vectors. Blocking; called from one thread at a time."""

    @property
    def embedder_id(self) -> str:
        """Name and version; equal ids give equal vectors."""

    @property
    def dimension(self) -> int:
        """Numbers in one vector."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit vector for each text, in order; longer texts than the embedder reads are truncated."""


class VectorIndex(Protocol):
    """Banks of rows with vectors, searched by cosine.

    Every method but `check`, `create` and `banks` raises UnknownBankError when the bank does not exist; all raise
    BackendUnavailableError when the index does not answer. Reads see every write that was acknowledged before, by any
    process; `search` those of this process.
    """

    async def check(self) -> None:
        """Return if the index answers."""

    async def create(self, bank: str, identity: BankIdentity) -> BankIdentity:
        """Create the bank if it does not exist; returns the identity it has."""

    async def identity(self, bank: str) -> BankIdentity:
        """Which embedder made the bank."""

    async def upsert(self, bank: str, rows: Sequence[Row], vectors: Vectors) -> None:
        """Write rows; one of the same key is replaced."""

    async def search(self, bank: str, vectors: Vectors, limit: int, document_ids: Sequence[str]) -> list[list[Hit]]:
        """The `limit` rows nearest to each vector by falling score, of these documents only if any are given."""

    async def get(self, bank: str, reference_ids: Sequence[str]) -> list[Reference]:
        """Every row's reference that has one of these ids, in any order."""

    async def stored(self, bank: str, document_ids: Sequence[str]) -> list[StoredRow]:
        """Every row of these documents, all versions, in any order."""

    async def held(self, bank: str, reference_ids: Sequence[str]) -> set[str]:
        """Those of the ids that at least one row holds."""

    async def delete(self, bank: str, keys: Sequence[str]) -> None:
        """Remove rows; absent ones count as removed."""

    async def documents(self, bank: str, after: str, limit: int) -> list[Document]:
        """The next complete documents by id; exclusive of `after`. Two while one version replaces another."""

    async def banks(self) -> list[Bank]:
        """All banks by name, documents not counted."""

    async def describe(self, bank: str) -> Bank:
        """The bank with its documents counted."""

    async def drop(self, bank: str) -> None:
        """Remove the bank with all its rows."""

    async def close(self) -> None:
        """Give back connections and files."""
