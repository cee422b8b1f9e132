"""What the retrieval tier does: embed, search, keep banks of versioned documents. Knows no transport and no vendor."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy as np

from memory3 import semconv
from memory3.errors import MalformedRequestError, ModelMismatchError
from memory3.telemetry import histogram, tracer
from memory3.types import (
    Bank,
    DeleteResult,
    Document,
    EmbedResult,
    Hit,
    Reference,
    RetrieveResult,
    RetrieveTiming,
    UpsertResult,
)
from services.retrieval import limits
from services.retrieval.batcher import Batcher, Embedded
from services.retrieval.ports import BankIdentity, Row, StoredRow, VectorIndex, Vectors

_search_seconds = histogram(semconv.METRIC_SEARCH)
_MAX_SEARCH_ROWS = 4_096
"""Where over-fetching ends: so many rows of one search may repeat the same few references."""


@dataclass(frozen=True)
class Page:
    """Some documents of a bank and the token of the next page; empty at the end."""

    documents: Sequence[Document]
    next_token: str


class RetrievalCore:
    """The RPCs of the retrieval tier, on domain types."""

    def __init__(self, index: VectorIndex, batcher: Batcher) -> None:
        self._index = index
        self._batcher = batcher
        self._identity = BankIdentity(batcher.embedder_id, batcher.dimension)
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def embed(self, texts: Sequence[str]) -> EmbedResult:
        """Vectors of texts. Raises MalformedRequestError, OverloadedError."""
        started = time.perf_counter_ns()
        limits.check_count("texts", len(texts), 1, limits.MAX_TEXTS)
        embedded = await self._embed(texts)
        timing = RetrieveTiming(time.perf_counter_ns() - started, embedded.queue_ns, embedded.embed_ns)
        vectors = [vector.tobytes() for vector in embedded.vectors.astype("<f4", copy=False)]
        return EmbedResult(vectors, self._identity.dimension, self._identity.embedder_id, timing)

    async def retrieve(
        self, bank: str, queries: Sequence[str], top_k: int, document_ids: Sequence[str]
    ) -> RetrieveResult:
        """The references nearest to each query, each text once.

        Raises MalformedRequestError, UnknownBankError, ModelMismatchError, OverloadedError, BackendUnavailableError.
        """
        started = time.perf_counter_ns()
        limits.check_bank(bank)
        limits.check_count("queries", len(queries), 1, limits.MAX_TEXTS)
        limits.check_count("top_k", top_k, 1, limits.MAX_TOP_K)
        limits.check_count("document_ids", len(document_ids), 0, limits.MAX_FILTER_DOCUMENTS)
        limits.check_document_ids(document_ids)
        self._check_identity(bank, await self._index.identity(bank))
        embedded = await self._embed(queries)
        search_started = time.perf_counter_ns()
        with tracer.start_as_current_span(semconv.SPAN_SEARCH) as span:
            results = await self._search(bank, embedded.vectors, top_k, document_ids)
            span.set_attribute(semconv.ATTR_BANK, bank)
            span.set_attribute(semconv.ATTR_NUM_QUERIES, len(queries))
            span.set_attribute(semconv.ATTR_NUM_HITS, sum(len(hits) for hits in results))
            ended = time.perf_counter_ns()
            _search_seconds.record((ended - search_started) / 1e9)
        timing = RetrieveTiming(ended - started, embedded.queue_ns, embedded.embed_ns, ended - search_started)
        return RetrieveResult(results, timing)

    async def upsert(
        self, bank: str, document_id: str, version: str, references: Sequence[Reference], *, last_part: bool
    ) -> UpsertResult:
        """Write one part of a document; with the last part, remove what other versions hold.

        Only what is missing is embedded and written, so a repeated call costs one read.
        Raises MalformedRequestError, ModelMismatchError, OverloadedError, BackendUnavailableError.
        """
        started = time.perf_counter_ns()
        limits.check_bank(bank)
        limits.check_part(document_id, version, references)
        self._check_identity(bank, await self._index.create(bank, self._identity))
        async with self._document_lock(bank, document_id):
            read_started = time.perf_counter_ns()
            stored = {row.key: row for row in await self._index.stored(bank, [document_id])}
            search_ns = time.perf_counter_ns() - read_started
            rows = _rows_of_part(version, references, stored, last_part=last_part)
            missing = [
                row for row in rows if row.key not in stored or stored[row.key].num_references != row.num_references
            ]
            queue_ns = embed_ns = 0
            for first in range(0, len(missing), self._batcher.max_batch_texts):
                some = missing[first : first + self._batcher.max_batch_texts]
                embedded = await self._embed([row.reference.text for row in some], bulk=True)
                queue_ns += embedded.queue_ns
                embed_ns += embedded.embed_ns
                write_started = time.perf_counter_ns()
                await self._index.upsert(bank, some, embedded.vectors)
                search_ns += time.perf_counter_ns() - write_started
            removed = [row for row in stored.values() if last_part and row.version != version]
            remove_started = time.perf_counter_ns()
            orphans = await self._remove(bank, removed)
        ended = time.perf_counter_ns()
        timing = RetrieveTiming(ended - started, queue_ns, embed_ns, search_ns + ended - remove_started)
        return UpsertResult(len(references), len(removed), orphans, timing)

    async def delete(self, bank: str, document_ids: Sequence[str], *, whole_bank: bool) -> DeleteResult:
        """Remove documents, or the whole bank.

        Raises MalformedRequestError, UnknownBankError, BackendUnavailableError.
        """
        limits.check_bank(bank)
        if whole_bank == bool(document_ids):
            raise MalformedRequestError(
                f"{len(document_ids)} document_ids with whole_bank={whole_bank}; "
                "give either document_ids or whole_bank, not both and not neither"
            )
        limits.check_document_ids(document_ids)
        if whole_bank:
            described = await self._index.describe(bank)
            await self._index.drop(bank)
            return DeleteResult(described.num_documents or 0, described.num_references, [])
        removed: list[StoredRow] = []
        orphans: list[str] = []
        wanted = sorted(set(document_ids))
        for first in range(0, len(wanted), limits.MAX_FILTER_DOCUMENTS):
            some = wanted[first : first + limits.MAX_FILTER_DOCUMENTS]
            async with contextlib.AsyncExitStack() as locked:
                for document_id in some:
                    await locked.enter_async_context(self._document_lock(bank, document_id))
                rows = await self._index.stored(bank, some)
                orphans += await self._remove(bank, rows)
            removed += rows
        return DeleteResult(len({row.document_id for row in removed}), len(removed), sorted(set(orphans)))

    async def get_references(self, bank: str, reference_ids: Sequence[str]) -> list[Reference]:
        """References in the order of the ids; once for each document that holds one.

        Raises MalformedRequestError, UnknownBankError, BackendUnavailableError.
        """
        limits.check_bank(bank)
        limits.check_count("reference_ids", len(reference_ids), 1, limits.MAX_TEXTS)
        limits.check_reference_ids(reference_ids)
        held: dict[str, dict[str, Reference]] = {reference_id: {} for reference_id in reference_ids}
        for reference in await self._index.get(bank, list(held)):
            held[reference.reference_id].setdefault(reference.document_id, reference)
        return [by_document[document] for by_document in held.values() for document in sorted(by_document)]

    async def list_documents(self, bank: str, page_size: int, page_token: str) -> Page:
        """A page of complete documents by id.

        Raises MalformedRequestError, UnknownBankError, BackendUnavailableError.
        """
        limits.check_bank(bank)
        limits.check_count("page_size", page_size, 0, limits.MAX_PAGE)
        size = page_size or limits.DEFAULT_PAGE
        found = await self._index.documents(bank, _from_token(page_token), size)
        # While one version replaces another both are complete; the document is still one.
        documents = list({document.document_id: document for document in found}.values())
        return Page(documents, _to_token(found[-1].document_id) if len(found) == size else "")

    async def list_banks(self) -> list[Bank]:
        """All banks by name. Raises BackendUnavailableError."""
        return await self._index.banks()

    async def describe_bank(self, bank: str) -> Bank:
        """One bank, documents counted. Raises MalformedRequestError, UnknownBankError, BackendUnavailableError."""
        limits.check_bank(bank)
        return await self._index.describe(bank)

    async def _embed(self, texts: Sequence[str], *, bulk: bool = False) -> Embedded:
        attributes = {semconv.ATTR_NUM_QUERIES: len(texts), semconv.ATTR_QUEUE_LENGTH: self._batcher.num_waiting}
        with tracer.start_as_current_span(semconv.SPAN_EMBED, attributes=attributes) as span:
            embedded = await self._batcher.embed(texts, bulk=bulk)
            span.set_attribute(semconv.ATTR_WAITED, embedded.queue_ns / 1e6)
            span.set_attribute(semconv.ATTR_BATCH_SIZE, embedded.batch_size)
            return embedded

    async def _search(self, bank: str, vectors: Vectors, top_k: int, document_ids: Sequence[str]) -> list[list[Hit]]:
        """Search with room for repeated references, and again with more room where it was not enough."""
        results: list[list[Hit]] = [[] for _ in vectors]
        pending = list(range(len(vectors)))
        limit = 2 * top_k
        while pending:
            found = await self._index.search(bank, vectors[np.array(pending)], limit, document_ids)
            short: list[int] = []
            for place, hits in zip(pending, found, strict=True):
                results[place] = _distinct(hits)[:top_k]
                if len(results[place]) < top_k and len(hits) == limit and limit < _MAX_SEARCH_ROWS:
                    short.append(place)
            pending = short
            limit = min(4 * limit, _MAX_SEARCH_ROWS)
        return results

    async def _remove(self, bank: str, rows: Sequence[StoredRow]) -> list[str]:
        """Remove rows; returns the references that no row holds any more, sorted."""
        if not rows:
            return []
        await self._index.delete(bank, [row.key for row in rows])
        gone = {row.reference_id for row in rows}
        return sorted(gone - await self._index.held(bank, sorted(gone)))

    def _check_identity(self, bank: str, identity: BankIdentity) -> None:
        if identity != self._identity:
            raise ModelMismatchError(
                f"bank {bank!r} was embedded by {identity.embedder_id!r} ({identity.dimension} numbers), this service "
                f"embeds with {self._identity.embedder_id!r} ({self._identity.dimension}); start it with the bank's "
                "embedder, or ingest again, into a new bank or after deleting this one"
            )

    def _document_lock(self, bank: str, document_id: str) -> asyncio.Lock:
        # Two versions at once would each remove the other's rows, and the document would be gone. Locks of several
        # documents are taken by rising id.
        return self._locks.setdefault((bank, document_id), asyncio.Lock())


def _rows_of_part(
    version: str, references: Sequence[Reference], stored: dict[str, StoredRow], *, last_part: bool
) -> list[Row]:
    """The part's rows; the last row of the last part carries the count of the whole document."""
    rows = {row.key: row for row in (Row(reference, version) for reference in references)}
    if last_part:
        of_version = {key for key, row in stored.items() if row.version == version}
        last = max(rows.values(), key=lambda row: row.reference.ordinal)
        rows[last.key] = Row(last.reference, version, len(of_version | rows.keys()))
    else:
        # A part sent again after the document was completed must not take the count away.
        rows = {
            key: Row(row.reference, version, stored[key].num_references) if key in stored else row
            for key, row in rows.items()
        }
    return list(rows.values())


def _distinct(hits: Sequence[Hit]) -> list[Hit]:
    """The best hit of each text, order kept: a text that stands behind others in two documents is read once."""
    first: dict[str, Hit] = {}
    for hit in hits:
        first.setdefault(hit.reference.text, hit)
    return list(first.values())


def _to_token(document_id: str) -> str:
    return base64.urlsafe_b64encode(document_id.encode()).decode()


def _from_token(token: str) -> str:
    try:
        after = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
        if after:
            limits.check_id("page_token", after)
    except (binascii.Error, UnicodeError) as error:
        raise MalformedRequestError(
            f"page_token {token[:80]!r} is not one of ours; pass next_page_token of the page before, or nothing"
        ) from error
    return after
