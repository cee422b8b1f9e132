"""Recall: the texts of query chunks -> the memories they read. One retrieve, one look-up, one fetch, one deadline.

What has come when the deadline passes is used; the rest is named with its status, and the answer goes on without it.
Knows no engine and no tokens.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from opentelemetry.trace import Span
from opentelemetry.util.types import AnyValue

from memory3 import semconv
from memory3.errors import MalformedRequestError, Memory3Error, ModelMismatchError, UnknownBankError
from memory3.telemetry import histogram, meter, records_content, tracer
from memory3.types import Hit, MemoryStatus, RecalledMemory, Reference, RetrieveResult, Tier
from model.codec.packed_memory import PackedMemory
from services.decoder.breaker import CircuitBreaker
from services.decoder.memory_loader import Load, LoadBatch, LoadTimes, MemoryLoader
from services.decoder.ports import ReferenceSource
from services.decoder.stages import Stage

log = logging.getLogger(__name__)
_duration = histogram(semconv.METRIC_RECALL)
_memories = meter.create_counter(*semconv.METRIC_MEMORIES)

_NUM_OF_TIER = {
    Tier.WORKER: semconv.ATTR_NUM_WORKER,
    Tier.RAM: semconv.ATTR_NUM_RAM,
    Tier.OBJECT: semconv.ATTR_NUM_OBJECT,
    Tier.COLD: semconv.ATTR_NUM_COLD,
}

_CALLERS_FAULT = (MalformedRequestError, UnknownBankError, ModelMismatchError)
"""Answers of the retrieval tier that the caller must see: they are no fault of the tier, and asking again is no use."""


@dataclass(frozen=True)
class RecallRequest:
    """What to recall. Blank queries find nothing."""

    bank: str
    queries: Sequence[str]
    top_k: int
    document_ids: Sequence[str]
    deadline_ns: int
    """When to go on with what has come; monotonic clock."""

    @property
    def remaining_s(self) -> float:
        """Time left, not below 0."""
        return max(0, self.deadline_ns - time.monotonic_ns()) / 1e9


@dataclass(frozen=True)
class Retrieved:
    """Hits for each query; none at all if retrieval failed or was late."""

    hits: Sequence[Sequence[Hit]]
    failed: bool
    stage: Stage


@dataclass(frozen=True)
class RecalledChunk:
    """What one query recalled: everything by falling score, and of that what can be read, in the same order."""

    memories: Sequence[RecalledMemory]
    readable: tuple[PackedMemory, ...]


@dataclass(frozen=True)
class Recalled:
    """One chunk for each query, in order."""

    chunks: Sequence[RecalledChunk]
    retrieval_failed: bool
    stage: Stage


class Recaller:
    """Recalls memories for one worker."""

    def __init__(
        self, retrieval: ReferenceSource, breaker: CircuitBreaker, loader: MemoryLoader, *, retrieve_timeout_s: float
    ) -> None:
        """`retrieve_timeout_s`: how long a retrieve may go on after its recall gave up, to see if the tier lives."""
        self._retrieval = retrieval
        self._breaker = breaker
        self._loader = loader
        self._retrieve_timeout_s = retrieve_timeout_s
        self._retrieves: set[asyncio.Task[RetrieveResult]] = set()

    async def recall(self, request: RecallRequest) -> Recalled:
        """Memories for each query. Raises what the caller did wrong (`_CALLERS_FAULT`); degrades otherwise."""
        start_ns = time.monotonic_ns()
        attributes: dict[str, AnyValue] = {
            semconv.ATTR_BANK: request.bank,
            semconv.ATTR_NUM_QUERIES: len(request.queries),
            semconv.ATTR_DEADLINE: request.remaining_s * 1e3,
        }
        if records_content():
            attributes[semconv.ATTR_QUERIES] = list(request.queries)
        with tracer.start_as_current_span(semconv.SPAN_RECALL, attributes=attributes) as span:
            retrieved = await self.retrieve(request)
            batch = self._loader.load(request.bank, _by_rank(retrieved.hits))
            await batch.wait(request.remaining_s)
            chunks = [_chunk(hits, batch) for hits in retrieved.hits]
            _count(span, chunks, retrieval_failed=retrieved.failed)
            _tell_each(span, chunks)
            end_ns = time.monotonic_ns()
            children = (retrieved.stage, *_load_stages(batch.times, end_ns))
            stage = Stage(semconv.SPAN_RECALL, semconv.SERVICE_WORKER, start_ns, end_ns, children)
            for part in (stage, *children):
                # Inside the span, so that what is measured is linked to it.
                _duration.record(part.duration_ns / 1e9, {semconv.ATTR_STAGE: part.name})
        return Recalled(chunks, retrieved.failed, stage)

    async def retrieve(self, request: RecallRequest) -> Retrieved:
        """References for each query, for a recall or as text. Raises as `recall` does."""
        start_ns = time.monotonic_ns()
        queries = [query for query in request.queries if query.strip()]
        result: RetrieveResult | None = None
        failed = False
        if queries:
            call = asyncio.create_task(self._call(request, queries))
            # Not cancelled at the deadline: a call that hangs must be seen by the breaker, however short the deadline.
            self._retrieves.add(call)
            call.add_done_callback(self._forget)
            await asyncio.wait([call], timeout=request.remaining_s)
            if call.done():
                error = call.exception()
                if isinstance(error, _CALLERS_FAULT):
                    raise error
                failed = error is not None
                result = None if failed else call.result()
            else:
                failed = True
        end_ns = time.monotonic_ns()
        found = iter(result.results if result is not None else ())
        hits = [next(found, ()) if query.strip() else () for query in request.queries]
        parts = _retrieve_parts(result, start_ns, end_ns)
        stage = Stage(semconv.SPAN_RETRIEVE, semconv.SERVICE_WORKER, start_ns, end_ns, parts)
        return Retrieved(hits, failed, stage)

    async def close(self) -> None:
        """Give up the calls under way."""
        for call in list(self._retrieves):
            call.cancel()
        await asyncio.gather(*self._retrieves, return_exceptions=True)

    async def _call(self, request: RecallRequest, queries: Sequence[str]) -> RetrieveResult:
        attributes: dict[str, AnyValue] = {semconv.ATTR_BANK: request.bank, semconv.ATTR_NUM_QUERIES: len(queries)}
        with tracer.start_as_current_span(semconv.SPAN_RETRIEVE, attributes=attributes) as span:
            async with self._breaker.call():
                result = await self._retrieval.retrieve(
                    request.bank, queries, request.top_k, request.document_ids, timeout=self._retrieve_timeout_s
                )
            span.set_attribute(semconv.ATTR_NUM_HITS, sum(len(hits) for hits in result.results))
            return result

    def _forget(self, call: asyncio.Task[RetrieveResult]) -> None:
        self._retrieves.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            level = logging.INFO if isinstance(error, Memory3Error) else logging.ERROR
            log.log(level, "retrieve: %s: %s", type(error).__name__, error)


def _by_rank(hits: Sequence[Sequence[Hit]]) -> list[Reference]:
    """The distinct references, every query's best before every query's second."""
    distinct: dict[str, Reference] = {}
    for rank in zip_longest(*hits):
        for hit in rank:
            if hit is not None:
                distinct.setdefault(hit.reference.reference_id, hit.reference)
    return list(distinct.values())


def _chunk(hits: Sequence[Hit], batch: LoadBatch) -> RecalledChunk:
    loads: list[tuple[Hit, Load]] = [(hit, batch.loads[hit.reference.reference_id]) for hit in hits]
    memories = [recalled_memory(hit, load) for hit, load in loads]
    readable = [load.outcome.memory for _, load in loads]
    return RecalledChunk(memories, tuple(memory for memory in readable if memory is not None))


def recalled_memory(hit: Hit, load: Load | None) -> RecalledMemory:
    """How one hit fared; without a load it is read as text."""
    reference, outcome = hit.reference, load.outcome if load is not None else None
    return RecalledMemory(
        reference_id=reference.reference_id,
        document_id=reference.document_id,
        title=reference.title,
        text=reference.text,
        score=hit.score,
        status=outcome.status if outcome is not None else MemoryStatus.READ,
        tier=outcome.tier if outcome is not None else Tier.NONE,
        record_bytes=outcome.record_bytes if outcome is not None else 0,
    )


def _count(span: Span, chunks: Sequence[RecalledChunk], *, retrieval_failed: bool) -> None:
    memories = [memory for chunk in chunks for memory in chunk.memories]
    for memory in memories:
        _memories.add(1, {semconv.ATTR_STATUS: memory.status.name.lower(), semconv.ATTR_TIER: memory.tier.name.lower()})
    counts = memory_counts(memories)
    span.set_attributes({**counts, semconv.ATTR_NUM_RECALLS_FAILED: int(retrieval_failed)})


def _tell_each(span: Span, chunks: Sequence[RecalledChunk]) -> None:
    """An event for each distinct memory. Those that were not read come last: a span keeps its last 128 events."""
    distinct = {memory.reference_id: memory for chunk in chunks for memory in chunk.memories}
    for memory in sorted(distinct.values(), key=lambda memory: memory.status is not MemoryStatus.READ):
        attributes: dict[str, AnyValue] = {
            semconv.ATTR_REFERENCE_ID: memory.reference_id,
            semconv.ATTR_DOCUMENT_ID: memory.document_id,
            semconv.ATTR_STATUS: memory.status.name.lower(),
            semconv.ATTR_TIER: memory.tier.name.lower(),
            semconv.ATTR_BYTES: memory.record_bytes,
        }
        span.add_event(semconv.EVENT_MEMORY, attributes)


def memory_counts(memories: Iterable[RecalledMemory]) -> dict[str, int]:
    """Attributes of a span: how many were read, by tier, and how many were late or missing; one of two chunks twice."""
    counts = dict.fromkeys((semconv.ATTR_NUM_MEMORIES, *_NUM_OF_TIER.values()), 0)
    counts |= {semconv.ATTR_NUM_LATE: 0, semconv.ATTR_NUM_MISSING: 0}
    for memory in memories:
        match memory.status:
            case MemoryStatus.READ:
                counts[semconv.ATTR_NUM_MEMORIES] += 1
                if memory.tier in _NUM_OF_TIER:
                    counts[_NUM_OF_TIER[memory.tier]] += 1
            case MemoryStatus.LATE:
                counts[semconv.ATTR_NUM_LATE] += 1
            case MemoryStatus.MISSING | MemoryStatus.REFUSED:
                counts[semconv.ATTR_NUM_MISSING] += 1
    return counts


def _retrieve_parts(result: RetrieveResult | None, start_ns: int, end_ns: int) -> tuple[Stage, ...]:
    """The retrieval tier's own stages, told as durations: laid in the middle of the call, one after the other."""
    if result is None:
        return ()
    timing = result.timing
    embed_ns = start_ns + max(0, end_ns - start_ns - timing.total_ns) // 2 + timing.queue_ns
    search_ns = embed_ns + timing.embed_ns
    return (
        Stage(semconv.SPAN_EMBED, semconv.SERVICE_RETRIEVAL, embed_ns, search_ns),
        Stage(semconv.SPAN_SEARCH, semconv.SERVICE_RETRIEVAL, search_ns, search_ns + timing.search_ns),
    )


def _load_stages(times: LoadTimes, end_ns: int) -> list[Stage]:
    """Fetch and load, as far as this recall waited for them."""
    stages = []
    for name, start, end in (
        (semconv.SPAN_FETCH, times.fetch_start_ns, times.fetch_end_ns),
        (semconv.SPAN_LOAD, times.load_start_ns, times.load_end_ns),
    ):
        if start is not None and start < end_ns:
            stages.append(Stage(name, semconv.SERVICE_WORKER, start, min(end or end_ns, end_ns)))
    return stages
