"""What the memory tier does: verified records by identity. Knows no transport and no vendor."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from memory3 import semconv
from memory3.errors import (
    BackendUnavailableError,
    ConflictingRecordError,
    CorruptRecordError,
    MalformedRequestError,
    ModelMismatchError,
    OverloadedError,
)
from memory3.telemetry import meter, tracer
from memory3.types import FetchedRecord, FetchStatus, MemoryEntry, MemoryStat, Tier
from model.codec.record import RecordError
from services.memory import layout, limits
from services.memory.arrivals import Arrivals
from services.memory.budget import ByteBudget, Reservation
from services.memory.layout import Identity
from services.memory.ports import ObjectStore
from services.memory.ram_tier import RamTier
from services.memory.reader import Read, Reader, verify

log = logging.getLogger(__name__)
_fetched = meter.create_counter(*semconv.METRIC_FETCH)
_fetched_bytes = meter.create_counter(*semconv.METRIC_FETCH_BYTES)
_puts = meter.create_counter(*semconv.METRIC_PUT)

_READ_AHEAD = 16
"""Records that one call may have begun and not yet sent: a receiver that stalls holds no more."""

_DELETE_CHUNK = 100
"""Objects deleted in one call of the store: few enough for its time limit on a slow disk."""


@dataclass(frozen=True)
class Limits:
    """How much the core does at once."""

    max_parallel_reads: int
    """Reads of the object store under way, over all calls."""
    max_bytes_in_flight: int
    """Bytes of records being read, stored, or waiting for their receiver; at least two largest records."""
    queue_timeout_s: float
    """Longest wait of one record for its turn, seconds."""


@dataclass(frozen=True)
class Page:
    """Some memories of a bank and the token of the next page; empty at the end."""

    memories: Sequence[MemoryEntry]
    next_token: str


class MemoryCore:
    """The RPCs of the memory tier, on domain types."""

    def __init__(self, store: ObjectStore, ram: RamTier, bounds: Limits) -> None:
        self._store = store
        self._reader = Reader(
            store, ram, max_parallel=bounds.max_parallel_reads, queue_timeout_s=bounds.queue_timeout_s
        )
        self._bounds = bounds
        self._budget = ByteBudget(bounds.max_bytes_in_flight)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def bytes_in_flight(self) -> int:
        """Bytes taken of `max_bytes_in_flight`."""
        return self._budget.used_bytes

    @property
    def most_bytes_in_flight(self) -> int:
        """`max_bytes_in_flight`."""
        return self._budget.capacity_bytes

    async def put(self, identity: Identity, record: bytes) -> bool:
        """Store a record durably; False if an equal one was there. Errors: memory.proto."""
        limits.check_identity(identity)
        limits.check_record_size(len(record))
        try:
            verify(identity, record)
        except RecordError as error:
            _puts.add(1, {semconv.ATTR_STATUS: "refused"})
            wrong = ModelMismatchError if error.reason == "mismatch" else CorruptRecordError
            raise wrong(f"the record sent for {identity}: {error}") from error
        key = layout.object_key(identity)
        try:
            # The second part is for a record that is there already and must be compared.
            room = await self._budget.acquire(
                len(record) + limits.MAX_RECORD_BYTES, timeout_s=self._bounds.queue_timeout_s
            )
        except TimeoutError as error:
            raise OverloadedError(
                f"{self._budget.capacity_bytes} bytes of records in flight is the limit and is reached; try again soon",
                retry_after_ms=500,
            ) from error
        # Of two puts that both find a damaged record, the later would undo the earlier one; and some S3 servers make
        # racing creators of one key wait for seconds.
        with room:
            async with self._locks.setdefault(key, asyncio.Lock()):
                outcome = await self._create(identity, key, record)
        _puts.add(1, {semconv.ATTR_STATUS: outcome})
        if outcome == "conflicting":
            raise ConflictingRecordError(
                f"there is another record for {identity}; it is kept. Delete it first if yours is to take its place"
            )
        return outcome != "equal"

    async def _create(self, identity: Identity, key: str, record: bytes) -> str:
        """Create or compare; returns how that went: created, equal, healed or conflicting."""
        if await self._store.put_new(key, record):
            self._reader.forget(identity)
            return "created"
        existing = await self._store.get(key, limits.MAX_RECORD_BYTES)
        if existing == record:
            return "equal"
        if existing is not None:
            try:
                verify(identity, existing)
            except RecordError as error:
                # A sound record of a later format is not ours to destroy.
                if error.reason != "version":
                    log.warning("replacing the unusable record %s: %s", key, error)
                    await self._store.replace(key, record)
                    self._reader.forget(identity)
                    return "healed"
            return "conflicting"
        raise BackendUnavailableError(
            f"the record of {identity} was deleted while it was put; put it again", retry_after_ms=0
        )

    async def batch_get(
        self, bank: str, model_fingerprint: str, reference_ids: Sequence[str]
    ) -> AsyncGenerator[FetchedRecord, None]:
        """Records in the order in which they arrive, one item for each distinct id. Raises MalformedRequestError."""
        started_ns = time.perf_counter_ns()
        limits.check_bank(bank)
        limits.check_fingerprint(model_fingerprint)
        limits.check_reference_ids(reference_ids, 1, limits.MAX_FETCH_IDS)
        identities = [Identity(bank, reference_id, model_fingerprint) for reference_id in dict.fromkeys(reference_ids)]
        held: dict[Identity, Reservation] = {}
        hits, misses = self._look_in_ram(identities)
        arrivals = Arrivals(misses, functools.partial(self._fetch, held), _READ_AHEAD)
        results = arrivals.results()
        try:
            for identity, record in hits:
                yield _item(identity, Read(FetchStatus.FOUND, record), Tier.RAM, started_ns)
            async for identity, read in results:
                yield _item(identity, read, Tier.OBJECT, started_ns)
                if identity in held:
                    held.pop(identity).release()
        finally:
            await results.aclose()
            await arrivals.cancel()
            for reservation in held.values():
                reservation.release()

    def _look_in_ram(self, identities: Sequence[Identity]) -> tuple[list[tuple[Identity, bytes]], list[Identity]]:
        """Those that are in RAM with their records, and the others."""
        hits: list[tuple[Identity, bytes]] = []
        misses: list[Identity] = []
        with tracer.start_as_current_span(semconv.SPAN_TIER_RAM) as span:
            for identity in identities:
                record = self._reader.in_ram(identity)
                if record is None:
                    misses.append(identity)
                else:
                    hits.append((identity, record))
            span.set_attribute(semconv.ATTR_NUM_MEMORIES, len(identities))
            span.set_attribute(semconv.ATTR_NUM_HITS, len(hits))
            span.set_attribute(semconv.ATTR_BYTES, sum(len(record) for _, record in hits))
        return hits, misses

    async def _fetch(self, held: dict[Identity, Reservation], identity: Identity) -> tuple[Identity, Read]:
        """Read one record as soon as there is room; its bytes are accounted for in `held`."""
        try:
            held[identity] = await self._budget.acquire(limits.MAX_RECORD_BYTES, timeout_s=self._bounds.queue_timeout_s)
        except TimeoutError:
            log.warning("no room for a record within %g s: receivers are too slow", self._bounds.queue_timeout_s)
            return identity, Read(FetchStatus.UNAVAILABLE)
        read = await self._reader.read(identity)
        held[identity].shrink(len(read.record))
        return identity, read

    async def stat(self, bank: str, model_fingerprint: str, reference_ids: Sequence[str]) -> Sequence[MemoryStat]:
        """Which memories exist, in the order of the ids. Raises MalformedRequestError, BackendUnavailableError."""
        limits.check_bank(bank)
        limits.check_fingerprint(model_fingerprint)
        limits.check_reference_ids(reference_ids, 1, limits.MAX_IDS)
        identities = {Identity(bank, reference_id, model_fingerprint) for reference_id in reference_ids}
        sizes = await self._sizes(identities)
        found = {identity.reference_id: size for identity, size in sizes.items()}
        return [
            MemoryStat(reference_id, reference_id in found, found.get(reference_id, 0))
            for reference_id in reference_ids
        ]

    async def delete(
        self, bank: str, reference_ids: Sequence[str], model_fingerprint: str | None, *, whole_bank: bool
    ) -> int:
        """Delete memories of references, or of the bank; how many were there. Errors: memory.proto."""
        limits.check_bank(bank)
        limits.check_reference_ids(reference_ids, 0, limits.MAX_IDS)
        if model_fingerprint is not None:
            limits.check_fingerprint(model_fingerprint)
        if whole_bank == bool(reference_ids):
            raise MalformedRequestError(
                f"{len(reference_ids)} reference_ids with whole_bank = {whole_bank}: give ids, or whole_bank alone"
            )
        wanted = frozenset(reference_ids)

        def is_doomed(key: str) -> bool:
            identity = layout.parse_key(key)
            return (
                identity is not None
                and identity.bank == bank
                and (whole_bank or identity.reference_id in wanted)
                and model_fingerprint in (None, identity.model_fingerprint)
            )

        try:
            if whole_bank:
                return await self._delete_below(layout.bank_prefix(bank), is_doomed)
            if model_fingerprint is not None:
                there = await self._sizes({Identity(bank, reference_id, model_fingerprint) for reference_id in wanted})
                return await self._delete_keys([layout.object_key(identity) for identity in there])
            work = Arrivals(
                [layout.reference_prefix(bank, reference_id) for reference_id in wanted],
                lambda prefix: self._delete_below(prefix, is_doomed),
                self._bounds.max_parallel_reads,
            )
            return sum([count async for count in work.results()])
        finally:
            # Also after a failure: some may be gone. And only now: what was read before must not come back into RAM.
            self._reader.forget_where(is_doomed)

    async def list(self, bank: str, model_fingerprint: str | None, page_size: int, page_token: str) -> Page:
        """A page of the bank's memories by key. Raises MalformedRequestError, BackendUnavailableError."""
        limits.check_bank(bank)
        if model_fingerprint is not None:
            limits.check_fingerprint(model_fingerprint)
        size = limits.check_page_size(page_size)
        try:
            after = layout.start_after(bank, page_token)
        except ValueError as error:
            raise MalformedRequestError(str(error)) from error
        found: list[MemoryEntry] = []
        while len(found) <= size:  # one more than the page tells whether there is a next one
            objects = await self._store.list(layout.bank_prefix(bank), after, size + 1)
            for item in objects:
                identity = layout.parse_key(item.key)
                if identity is not None and model_fingerprint in (None, identity.model_fingerprint):
                    found.append(MemoryEntry(bank, identity.reference_id, identity.model_fingerprint, item.size_bytes))
            if len(objects) <= size:
                break
            after = objects[-1].key
        page = found[:size]
        token = ""
        if len(found) > size:
            token = layout.page_token(Identity(bank, page[-1].reference_id, page[-1].model_fingerprint))
        return Page(page, token)

    async def _sizes(self, identities: set[Identity]) -> dict[Identity, int]:
        """Bytes of those that exist."""

        async def stat(identity: Identity) -> tuple[Identity, int | None]:
            return identity, await self._store.stat(layout.object_key(identity))

        results = Arrivals(identities, stat, self._bounds.max_parallel_reads).results()
        return {identity: size async for identity, size in results if size is not None}

    async def _delete_below(self, prefix: str, is_doomed: Callable[[str], bool]) -> int:
        """Delete all doomed objects below the prefix."""
        num_deleted, after = 0, ""
        while True:
            objects = await self._store.list(prefix, after, _DELETE_CHUNK)
            num_deleted += await self._delete_keys([item.key for item in objects if is_doomed(item.key)])
            if len(objects) < _DELETE_CHUNK:
                return num_deleted
            after = objects[-1].key

    async def _delete_keys(self, keys: Sequence[str]) -> int:
        for begin in range(0, len(keys), _DELETE_CHUNK):
            await self._store.delete(keys[begin : begin + _DELETE_CHUNK])
        return len(keys)


def _item(identity: Identity, read: Read, tier: Tier, started_ns: int) -> FetchedRecord:
    """One item of the answer, counted."""
    found = read.status is FetchStatus.FOUND
    used = tier if found else Tier.NONE
    _fetched.add(1, {semconv.ATTR_STATUS: read.status.name.lower(), semconv.ATTR_TIER: used.name.lower()})
    if found:
        _fetched_bytes.add(len(read.record), {semconv.ATTR_TIER: used.name.lower()})
    elapsed_ns = time.perf_counter_ns() - started_ns
    return FetchedRecord(identity.reference_id, read.status, used, read.record, elapsed_ns)
