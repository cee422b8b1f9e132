"""VectorIndex on Milvus: a server (2.3 or newer) or Milvus Lite, by one URI. One collection for each bank.

Only what both kinds of Milvus share is used: a varchar key, one float vector, scalar fields, filters on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from memory3.errors import UnknownBankError
from memory3.types import Bank, Document, Hit, Reference
from services.retrieval import limits
from services.retrieval.milvus_connection import (
    KEY,
    VECTOR,
    Client,
    CollectionNotFoundError,
    MilvusConnection,
    make_collection,
)
from services.retrieval.milvus_text import among, bank_of, collection_of, literal
from services.retrieval.ports import KEY_SEPARATOR, BankIdentity, Row, StoredRow, Vectors

T = TypeVar("T")

_EMBEDDER = "memory3.embedder_id"
_DIMENSION = "memory3.dimension"
_ROWS = "memory3.rows"
"""Properties of a collection: the bank's identity, and what its rows have. (Lite keeps no description.)"""

_ROWS_NOW = "2"
"""Raise it when rows get other fields: banks of before can be read by id, listed and dropped, and match no embedder."""
_EARLIER = " (rows of an earlier version)"

_TEXTS = {
    KEY: limits.MAX_ID_BYTES + 64,
    "reference_id": 64,
    "text": limits.MAX_TEXT_BYTES,
    "preceding": limits.MAX_TEXT_BYTES,
    "document_id": limits.MAX_ID_BYTES,
    "version": limits.MAX_ID_BYTES,
    "title": limits.MAX_LABEL_BYTES,
    "source": limits.MAX_LABEL_BYTES,
}
_NUMBERS = ["ordinal", "start_char", "end_char", "num_tokens", "num_references"]
_REFERENCE_FIELDS = list(Reference.__dataclass_fields__)
_STORED_FIELDS = list(StoredRow.__dataclass_fields__)
_DOCUMENT_FIELDS = list(Document.__dataclass_fields__)

_PAGE_ROWS = 4_096
"""Rows of one query; larger answers come in pages."""

_IDENTITY_SECONDS = 5.0
"""How long a bank's identity is believed: another process may have dropped the bank and made it anew."""

_LITE_FLUSH_ROWS = 512
"""Milvus Lite searches rows that are not flushed in Python, much slower than flushed ones."""

_FLUSH_SECONDS = 60.0


class MilvusIndex:
    """Rows in collections of the Milvus at `uri`; see MilvusConnection for `token`, `ca`, `timeout_s`, `threads`.

    `index_type`: FLAT, HNSW or auto (FLAT on Lite, HNSW on a server); `hnsw_ef`: candidates of an HNSW search;
    `search_consistency`: Milvus' level for `search`.
    """

    def __init__(
        self,
        uri: str,
        *,
        token: str = "",
        ca: Path | None = None,
        timeout_s: float = 10.0,
        threads: int = 16,
        index_type: str = "auto",
        hnsw_ef: int = 128,
        search_consistency: str = "Session",
    ) -> None:
        self._identities: dict[str, tuple[BankIdentity, float]] = {}
        # What answers after a failure may have been restarted, and its collections not be loaded.
        self._milvus = MilvusConnection(
            uri, token=token, ca=ca, timeout_s=timeout_s, threads=threads, on_failure=self._identities.clear
        )
        self._index_type = ("FLAT" if self._milvus.lite else "HNSW") if index_type == "auto" else index_type
        self._hnsw_ef = hnsw_ef
        self._search_consistency = search_consistency
        self._timeout_s = timeout_s
        self._creating = asyncio.Lock()
        self._unflushed: Counter[str] = Counter()

    async def check(self) -> None:
        """Return if Milvus answers."""
        await self._milvus.run(self._collections)

    async def create(self, bank: str, identity: BankIdentity) -> BankIdentity:
        """Create the bank's collection if it does not exist; returns the identity it has."""
        with contextlib.suppress(UnknownBankError):
            return await self.identity(bank)
        async with self._creating:
            with contextlib.suppress(UnknownBankError):
                return await self.identity(bank)
            await self._milvus.run(self._create, bank, identity)
        return await self.identity(bank)

    async def identity(self, bank: str) -> BankIdentity:
        """Which embedder made the bank; asked, and the collection loaded, at most every few seconds."""
        known, until = self._identities.get(bank, (None, 0.0))
        if known is None or time.monotonic() > until:
            known = await self._run(bank, self._identity)
            self._identities[bank] = (known, time.monotonic() + _IDENTITY_SECONDS)
        return known

    async def upsert(self, bank: str, rows: Sequence[Row], vectors: Vectors) -> None:
        """Write rows; one of the same key is replaced."""
        await self._run_loaded(bank, self._upsert, rows, vectors)

    async def search(self, bank: str, vectors: Vectors, limit: int, document_ids: Sequence[str]) -> list[list[Hit]]:
        """The nearest rows of the bank, of these documents only if any are given."""
        return await self._run_loaded(bank, self._search, vectors, limit, document_ids)

    async def get(self, bank: str, reference_ids: Sequence[str]) -> list[Reference]:
        """References with one of these ids."""
        is_earlier = (await self.identity(bank)).embedder_id.endswith(_EARLIER)
        fields = [name for name in _REFERENCE_FIELDS if name != "preceding" or not is_earlier]
        rows = await self._query(bank, among("reference_id", reference_ids), fields)
        return [Reference(**{name: row[name] for name in fields}) for row in rows]

    async def stored(self, bank: str, document_ids: Sequence[str]) -> list[StoredRow]:
        """Rows of these documents."""
        rows = await self._query(bank, among("document_id", document_ids), _STORED_FIELDS)
        return [StoredRow(**{name: row[name] for name in _STORED_FIELDS}) for row in rows]

    async def held(self, bank: str, reference_ids: Sequence[str]) -> set[str]:
        """Ids that a row holds."""
        found: set[str] = set()
        for first in range(0, len(reference_ids), limits.MAX_TEXTS):
            some = reference_ids[first : first + limits.MAX_TEXTS]
            rows = await self._query(bank, among("reference_id", some), ["reference_id"])
            found.update(row["reference_id"] for row in rows)
        return found

    async def delete(self, bank: str, keys: Sequence[str]) -> None:
        """Remove rows."""
        for first in range(0, len(keys), _PAGE_ROWS):
            await self._run_loaded(bank, self._delete, keys[first : first + _PAGE_ROWS])

    async def documents(self, bank: str, after: str, limit: int) -> list[Document]:
        """The next documents by id: keys begin with the document's id, so their order is the documents'."""
        # "g" comes after every hex digit: past all keys of the document `after`.
        condition = f"num_references > 0{_past(after + KEY_SEPARATOR + 'g' if after else '')}"
        rows = await self._run_loaded(bank, self._page, condition, _DOCUMENT_FIELDS, limit)
        return [Document(**{name: row[name] for name in _DOCUMENT_FIELDS}) for row in rows]

    async def banks(self) -> list[Bank]:
        """All banks by name. Collections of others in the same Milvus are left alone."""
        collections = await self._milvus.run(self._collections)
        found: list[Bank] = []
        for bank in sorted(bank for bank in map(bank_of, collections) if bank is not None):
            # One that was dropped since it was listed is no bank any more.
            with contextlib.suppress(UnknownBankError):
                found.append(await self._bank(bank))
        return found

    async def describe(self, bank: str) -> Bank:
        """The bank with its documents counted."""
        described = await self._bank(bank)
        num_documents = await self._run_loaded(bank, self._count, "num_references > 0")
        return Bank(bank, described.num_references, described.embedder_id, described.dimension, num_documents)

    async def drop(self, bank: str) -> None:
        """Remove the bank's collection."""
        await self._run(bank, self._drop)
        self._identities.pop(bank, None)
        self._unflushed.pop(bank, None)

    async def close(self) -> None:
        """Close the connection; Milvus Lite gives its files back."""
        await self._milvus.close()

    async def _bank(self, bank: str) -> Bank:
        identity = await self.identity(bank)
        return Bank(bank, await self._run_loaded(bank, self._count, ""), identity.embedder_id, identity.dimension)

    async def _query(self, bank: str, condition: str, fields: Sequence[str]) -> list[dict[str, Any]]:
        """All rows that meet the condition."""
        rows: list[dict[str, Any]] = []
        last_key = ""
        while True:
            page = await self._run_loaded(bank, self._page, condition + _past(last_key), [KEY, *fields], _PAGE_ROWS)
            rows += page
            if len(page) < _PAGE_ROWS:
                return rows
            last_key = page[-1][KEY]

    async def _run_loaded(self, bank: str, function: Callable[..., T], *args: object) -> T:
        """As `_run`; the bank's collection is loaded."""
        await self.identity(bank)
        return await self._run(bank, function, *args)

    async def _run(self, bank: str, function: Callable[..., T], *args: object) -> T:
        """Call `function(client, collection, *args)` in a thread. Raises UnknownBankError, BackendUnavailableError."""
        try:
            return await self._milvus.run(function, collection_of(bank), *args)
        except CollectionNotFoundError as error:
            self._identities.pop(bank, None)
            raise UnknownBankError(f"no bank {bank!r}; ingest into it first, or list the banks") from error

    # What follows runs in the threads of the connection.

    def _collections(self, client: Client) -> list[str]:
        return list(client.list_collections(timeout=self._timeout_s))

    def _create(self, client: Client, bank: str, identity: BankIdentity) -> None:
        make_collection(
            client,
            collection_of(bank),
            texts=_TEXTS,
            numbers=_NUMBERS,
            dimension=identity.dimension,
            index_type=self._index_type,
            properties={_EMBEDDER: identity.embedder_id, _DIMENSION: str(identity.dimension), _ROWS: _ROWS_NOW},
        )

    def _identity(self, client: Client, collection: str) -> BankIdentity:
        described = client.describe_collection(collection, timeout=self._timeout_s)
        # Not loaded after a restart of Lite, or when somebody released it.
        client.load_collection(collection, timeout=self._timeout_s)
        kept = described["properties"]
        # A collection that has none can be listed and dropped, and matches no embedder.
        embedder_id = kept.get(_EMBEDDER, "unknown") + ("" if kept.get(_ROWS) == _ROWS_NOW else _EARLIER)
        return BankIdentity(embedder_id, int(kept.get(_DIMENSION, 0)))

    def _upsert(self, client: Client, collection: str, rows: Sequence[Row], vectors: Vectors) -> None:
        data = [
            {
                **row.reference.__dict__,
                KEY: row.key,
                "version": row.version,
                "num_references": row.num_references,
                VECTOR: vector,
            }
            for row, vector in zip(rows, vectors, strict=True)
        ]
        client.upsert(collection, data, timeout=self._timeout_s)
        self._flush_lite(client, collection, len(rows))

    def _delete(self, client: Client, collection: str, keys: Sequence[str]) -> None:
        deleted = among(KEY, keys)
        client.delete(collection, filter=deleted, timeout=self._timeout_s)
        if not self._milvus.lite:
            # A server's answer to a delete has no timestamp (2.3.5), so a search of level Session does not wait for it.
            # This strong read does, and returns when the rows are gone.
            self._count(client, collection, deleted)
        self._flush_lite(client, collection, len(keys))

    def _flush_lite(self, client: Client, collection: str, num_rows: int) -> None:
        self._unflushed[collection] += num_rows
        if self._milvus.lite and self._unflushed[collection] >= _LITE_FLUSH_ROWS:
            client.flush(collection, timeout=_FLUSH_SECONDS)
            self._unflushed[collection] = 0

    def _search(
        self, client: Client, collection: str, vectors: Vectors, limit: int, document_ids: Sequence[str]
    ) -> list[list[Hit]]:
        results = client.search(
            collection,
            data=list(vectors.astype(np.float32, copy=False)),
            limit=limit,
            filter=among("document_id", document_ids) if document_ids else "",
            output_fields=_REFERENCE_FIELDS,
            search_params={"metric_type": "COSINE", "params": {"ef": max(self._hnsw_ef, limit)}},
            consistency_level=self._search_consistency,
            timeout=self._timeout_s,
        )
        return [
            [
                Hit(Reference(**{name: hit["entity"][name] for name in _REFERENCE_FIELDS}), float(hit["distance"]))
                for hit in hits
            ]
            for hits in results
        ]

    def _page(
        self, client: Client, collection: str, condition: str, fields: Sequence[str], limit: int
    ) -> list[dict[str, Any]]:
        """The first `limit` rows that meet the condition, in the order of their keys."""
        rows = client.query(
            collection,
            filter=condition,
            output_fields=list(fields),
            limit=limit,
            timeout=self._timeout_s,
            # What pymilvus' own iterator says: without it Lite gives rows in no order.
            iterator="True",
        )
        return list(rows)

    def _count(self, client: Client, collection: str, condition: str) -> int:
        rows = client.query(collection, filter=condition, output_fields=["count(*)"], timeout=self._timeout_s)
        return int(rows[0]["count(*)"])

    def _drop(self, client: Client, collection: str) -> None:
        # Milvus takes the drop of what is absent for a success.
        client.describe_collection(collection, timeout=self._timeout_s)
        client.drop_collection(collection, timeout=self._timeout_s)


def _past(key: str) -> str:
    """The end of a filter: only rows after this key; nothing for an empty one."""
    return f" and key > {literal(key)}" if key else ""
