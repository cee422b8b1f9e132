"""References -> memories: from the cache beside the worker, from a fetch already under way, or by one new fetch.

A load belongs to nobody: a recall that gives up leaves it running, and what arrives late still fills the cache.
Knows no queries, no scores and no engine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from opentelemetry.util.types import AnyValue

from memory3 import semconv
from memory3.errors import Memory3Error
from memory3.telemetry import tracer
from memory3.types import FetchedRecord, FetchStatus, MemoryStatus, Reference, Tier
from model.codec.packed_memory import PackedMemory
from model.codec.record import RecordError
from services.decoder.breaker import CircuitBreaker
from services.decoder.cold_start import ColdStart
from services.decoder.memory_cache import MemoryCache
from services.decoder.model_bundle import ModelBundle
from services.decoder.ports import MemorySource
from services.decoder.span_failure import tell_failure
from services.decoder.stages import wall_ns

log = logging.getLogger(__name__)

_NOT_FOUND = {
    FetchStatus.MISSING: MemoryStatus.MISSING,
    FetchStatus.CORRUPT: MemoryStatus.REFUSED,
    FetchStatus.MISMATCH: MemoryStatus.REFUSED,
}
"""What a fetched item without a record means for its reader; all else did not arrive, so it is late."""


@dataclass(frozen=True)
class Loaded:
    """How one load ended; `memory` is there only with status READ."""

    status: MemoryStatus
    tier: Tier = Tier.NONE
    memory: PackedMemory | None = None
    record_bytes: int = 0


@dataclass(eq=False)
class Load:
    """One load under way, shared by all that wait for it."""

    reference: Reference
    future: asyncio.Future[Loaded]
    is_missing: bool = False
    """The store has no memory of it; if anything comes, it is being written."""

    @property
    def outcome(self) -> Loaded:
        """How it stands now."""
        if self.future.done():
            return self.future.result()
        return Loaded(MemoryStatus.MISSING if self.is_missing else MemoryStatus.LATE)

    def settle(self, loaded: Loaded) -> None:
        """End it, if it has not ended."""
        if not self.future.done():
            self.future.set_result(loaded)


def _settled(reference: Reference, loaded: Loaded) -> Load:
    load = Load(reference, asyncio.get_running_loop().create_future())
    load.settle(loaded)
    return load


@dataclass
class LoadTimes:
    """When fetching and loading ran, monotonic nanoseconds; None for what has not begun or not ended."""

    fetch_start_ns: int | None = None
    fetch_end_ns: int | None = None
    load_start_ns: int | None = None
    load_end_ns: int | None = None


@dataclass(frozen=True)
class LoadBatch:
    """The loads of one recall, by reference id, and the times of the fetch it began (empty if it needed none)."""

    loads: Mapping[str, Load]
    times: LoadTimes = field(default_factory=LoadTimes)

    async def wait(self, timeout_s: float) -> None:
        """Wait until all have ended, or the time is over."""
        waiting = [load.future for load in self.loads.values() if not load.future.done()]
        if waiting:
            await asyncio.wait(waiting, timeout=max(0.0, timeout_s))


class MemoryLoader:
    """Loads memories of one model. One for each worker."""

    def __init__(
        self,
        store: MemorySource,
        model: ModelBundle,
        cache: MemoryCache,
        breaker: CircuitBreaker,
        cold_start: ColdStart | None,
        *,
        cold_start_per_fetch: int,
        fetch_timeout_s: float,
    ) -> None:
        """`cold_start` None: a missing memory stays missing."""
        self._store = store
        self._model = model
        self._cache = cache
        self._breaker = breaker
        self._cold_start = cold_start
        self._cold_start_per_fetch = cold_start_per_fetch
        self._fetch_timeout_s = fetch_timeout_s
        self._in_flight: dict[tuple[str, str], Load] = {}
        self._fetches: set[asyncio.Task[None]] = set()

    def load(self, bank: str, references: Sequence[Reference]) -> LoadBatch:
        """Begin loading distinct references, the most wanted first: one fetch for all that nobody else fetches."""
        loads: dict[str, Load] = {}
        misses: dict[str, Load] = {}
        for reference in references:
            key = (bank, reference.reference_id)
            load = self._in_flight.get(key)
            if (cached := self._cache.get(*key)) is not None:
                load = _settled(reference, Loaded(MemoryStatus.READ, Tier.WORKER, cached))
            elif load is None:
                load = Load(reference, asyncio.get_running_loop().create_future())
                self._in_flight[key] = misses[reference.reference_id] = load
            elif self._breaker.is_open and not load.is_missing:
                # Its fetch hangs, and whoever began it has waited for that already.
                load = _settled(reference, load.outcome)
            loads[reference.reference_id] = load
        batch = LoadBatch(loads)
        if misses:
            fetch = asyncio.create_task(self._load(bank, misses, batch.times))
            self._fetches.add(fetch)
            fetch.add_done_callback(self._fetches.discard)
        return batch

    async def close(self) -> None:
        """Give up what is under way."""
        for fetch in list(self._fetches):
            fetch.cancel()
        await asyncio.gather(*self._fetches, return_exceptions=True)

    async def _load(self, bank: str, loads: Mapping[str, Load], times: LoadTimes) -> None:
        takes: list[asyncio.Task[None]] = []
        try:
            await self._fetch(bank, loads, times, takes)
            for result in await asyncio.gather(*takes, return_exceptions=True):
                if isinstance(result, Exception):
                    log.error("loading a memory of bank %s failed in an unexpected way", bank, exc_info=result)
        finally:
            for take in takes:
                take.cancel()
            for reference_id, load in loads.items():
                load.settle(Loaded(MemoryStatus.LATE))
                self._in_flight.pop((bank, reference_id), None)
            self._end_load(times, len(takes))

    async def _fetch(
        self, bank: str, loads: Mapping[str, Load], times: LoadTimes, takes: list[asyncio.Task[None]]
    ) -> None:
        """Read the records; each is taken while the others still come."""
        num_missing = 0
        tiers: Counter[Tier] = Counter()
        num_bytes = 0
        times.fetch_start_ns = time.monotonic_ns()
        attributes: dict[str, AnyValue] = {semconv.ATTR_BANK: bank, semconv.ATTR_NUM_MEMORIES: len(loads)}
        with tracer.start_as_current_span(semconv.SPAN_FETCH, attributes=attributes) as span:
            try:
                async with self._breaker.call() as is_alive:
                    items = self._store.batch_get(
                        bank, self._model.fingerprint, list(loads), timeout=self._fetch_timeout_s
                    )
                    async for item in items:
                        is_alive()
                        tiers[item.tier] += 1
                        num_bytes += len(item.record)
                        num_missing += item.status is FetchStatus.MISSING
                        if times.load_start_ns is None:
                            times.load_start_ns = time.monotonic_ns()
                        may_write = num_missing <= self._cold_start_per_fetch
                        takes.append(asyncio.create_task(self._take(bank, loads[item.reference_id], item, may_write)))
            except Memory3Error as error:
                tell_failure(span, error)
                log.info("fetch of %d memories of bank %s: %s", len(loads), bank, error)
            finally:
                times.fetch_end_ns = time.monotonic_ns()
                span.set_attributes(
                    {
                        semconv.ATTR_NUM_MISSING: num_missing,
                        semconv.ATTR_NUM_LATE: len(loads) - tiers.total(),
                        semconv.ATTR_NUM_RAM: tiers[Tier.RAM],
                        semconv.ATTR_NUM_OBJECT: tiers[Tier.OBJECT],
                        semconv.ATTR_BYTES: num_bytes,
                    }
                )

    async def _take(self, bank: str, load: Load, item: FetchedRecord, may_write: bool) -> None:
        """Settle one load with what was fetched for it."""
        reference_id = item.reference_id
        if item.status is FetchStatus.FOUND:
            try:
                memory = await asyncio.to_thread(self._model.unpack, item.record, reference_id)
            except RecordError as error:
                log.warning("memory of reference %s is refused (%s): %s", reference_id, error.reason, error)
                load.settle(Loaded(MemoryStatus.REFUSED, item.tier, record_bytes=len(item.record)))
                return
            self._cache.put(bank, reference_id, memory)
            load.settle(Loaded(MemoryStatus.READ, item.tier, memory, len(item.record)))
        elif item.status is FetchStatus.MISSING and self._cold_start is not None and may_write:
            load.is_missing = True
            written = await self._cold_start.write(bank, load.reference)
            if written is None:
                load.settle(Loaded(MemoryStatus.MISSING))
                return
            self._cache.put(bank, reference_id, written.memory)
            load.settle(Loaded(MemoryStatus.READ, Tier.COLD, written.memory))
        else:
            load.settle(Loaded(_NOT_FOUND.get(item.status, MemoryStatus.LATE), item.tier))

    def _end_load(self, times: LoadTimes, num_taken: int) -> None:
        """Loading overlaps fetching, so its span is told afterwards, from its first record to its last memory."""
        if times.load_start_ns is None:
            return
        times.load_end_ns = time.monotonic_ns()
        tracer.start_span(
            semconv.SPAN_LOAD,
            start_time=wall_ns(times.load_start_ns),
            attributes={semconv.ATTR_NUM_MEMORIES: num_taken},
        ).end(wall_ns(times.load_end_ns))
