"""Recall: one retrieve, one look-up, one fetch, one deadline; what did not come is named."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
from opentelemetry.sdk.trace import Span, TracerProvider

from memory3 import semconv
from memory3.errors import (
    BackendUnavailableError,
    ConflictingRecordError,
    DeadlineExceededError,
    MalformedRequestError,
    ModelMismatchError,
    OverloadedError,
    UnknownBankError,
)
from memory3.types import FetchStatus, Hit, MemoryStatus, RecalledMemory, ReferenceText, Tier
from model.engine.engine import Engine
from model.engine.events import Event
from model.identity import reference_id
from services.decoder.breaker import CircuitBreaker
from services.decoder.cold_start import ColdStart
from services.decoder.device import Device
from services.decoder.encoding import Encoding
from services.decoder.memory_cache import MemoryCache
from services.decoder.memory_loader import MemoryLoader
from services.decoder.model_bundle import ModelBundle
from services.decoder.recall import Recalled, RecalledChunk, Recaller, RecallRequest, _by_rank, _tell_each
from tests.helpers.tiers import FakeMemory, FakeRetrieval, reference
from tests.helpers.waiting import until

SOON_MS = 60
"""A deadline that a test waits for."""


@dataclass
class Stage:
    """A recaller between fakes."""

    recaller: Recaller
    retrieval: FakeRetrieval
    memory: FakeMemory
    encoding: Encoding
    model: ModelBundle
    cache: MemoryCache

    async def store(self, *texts: str) -> None:
        for text in texts:
            written = await self.encoding.write(ReferenceText(reference_id(text), text), urgent=False)
            self.memory.records[reference_id(text)] = written.record

    async def recall(self, *queries: str, deadline_ms: int = 5000, top_k: int = 5) -> Recalled:
        deadline_ns = time.monotonic_ns() + deadline_ms * 1_000_000
        return await self.recaller.recall(RecallRequest("bank", queries, top_k, (), deadline_ns))


async def make(
    model: ModelBundle,
    encoding: Encoding,
    *,
    cold: bool,
    cold_per_fetch: int = 10,
    cache_bytes: int = 10**8,
    slow_after_s: float = 5.0,
) -> Stage:
    retrieval, memory = FakeRetrieval(lambda query: query.split()), FakeMemory()
    cache = MemoryCache(cache_bytes)

    async def probe_retrieval() -> None:
        if retrieval.error is not None:
            raise retrieval.error
        await retrieval.gate.wait()

    async def probe_memory() -> None:
        if memory.error is not None:
            raise memory.error

    fast = {"slow_after_s": slow_after_s, "first_pause_s": 0.01, "longest_pause_s": 0.02}
    loader = MemoryLoader(
        memory,
        model,
        cache,
        CircuitBreaker("memory", probe_memory, **fast),
        ColdStart(encoding, memory, model.fingerprint, put_parallelism=2, put_timeout_s=1) if cold else None,
        cold_start_per_fetch=cold_per_fetch,
        fetch_timeout_s=5,
    )
    breaker = CircuitBreaker("retrieval", probe_retrieval, **fast)
    recaller = Recaller(retrieval, breaker, loader, retrieve_timeout_s=5)
    return Stage(recaller, retrieval, memory, encoding, model, cache)


@pytest.fixture
async def stage(model: ModelBundle, encoding: Encoding) -> AsyncIterator[Stage]:
    made = await make(model, encoding, cold=False)
    yield made
    await made.recaller.close()


def statuses(recalled: Recalled, chunk: int = 0) -> list[MemoryStatus]:
    return [memory.status for memory in recalled.chunks[chunk].memories]


def tiers(recalled: Recalled, chunk: int = 0) -> list[Tier]:
    return [memory.tier for memory in recalled.chunks[chunk].memories]


def names(recalled: Recalled, chunk: int = 0) -> list[str]:
    return [memory.reference_id for memory in recalled.chunks[chunk].readable]


async def test_all_queries_in_one_retrieve_and_all_misses_in_one_fetch(stage: Stage) -> None:
    await stage.store("a", "b", "c")
    recalled = await stage.recall("a b", "b c")
    assert [call[1] for call in stage.retrieval.calls] == [("a b", "b c")]
    assert [sorted(ids) for ids in stage.memory.fetches] == [sorted(map(reference_id, "abc"))]
    assert [names(recalled, 0), names(recalled, 1)] == [[*map(reference_id, "ab")], [*map(reference_id, "bc")]]
    assert statuses(recalled) == [MemoryStatus.READ] * 2
    assert tiers(recalled) == [Tier.OBJECT] * 2
    first = recalled.chunks[0].memories[0]
    assert (first.text, first.title, first.document_id) == ("a", "Title of a", "doc of a")
    assert first.record_bytes == len(stage.memory.records[reference_id("a")])


async def test_what_was_read_once_comes_from_the_cache(stage: Stage) -> None:
    await stage.store("a", "b")
    await stage.recall("a")
    recalled = await stage.recall("a b")
    assert tiers(recalled) == [Tier.WORKER, Tier.OBJECT]
    assert stage.memory.fetches[1:] == [[reference_id("b")]]


async def test_a_blank_query_asks_nobody_and_finds_nothing(stage: Stage) -> None:
    await stage.store("a")
    recalled = await stage.recall(" \n", "a")
    assert [len(chunk.memories) for chunk in recalled.chunks] == [0, 1]
    assert stage.retrieval.calls[0][1] == ("a",)
    await stage.recall("  ")
    assert len(stage.retrieval.calls) == 1


async def test_late_records_are_named_late_and_fill_the_cache_when_they_come(stage: Stage) -> None:
    await stage.store("a", "b")
    gate = stage.memory.gates[reference_id("b")] = asyncio.Event()
    recalled = await stage.recall("a b", deadline_ms=SOON_MS)
    assert statuses(recalled) == [MemoryStatus.READ, MemoryStatus.LATE]
    assert names(recalled) == [reference_id("a")]
    gate.set()
    await until(lambda: len(stage.cache) == 2, "the late memory is cached")
    assert tiers(await stage.recall("a b")) == [Tier.WORKER] * 2


async def test_recalls_that_miss_the_same_reference_share_one_fetch(stage: Stage) -> None:
    await stage.store("a", "b")
    gate = stage.memory.gates[reference_id("a")] = asyncio.Event()
    both = asyncio.gather(stage.recall("a"), stage.recall("a b"))
    await until(lambda: len(stage.memory.fetches) == 2, "both recalls fetch")
    gate.set()
    first, second = await both
    assert stage.memory.fetches == [[reference_id("a")], [reference_id("b")]]
    assert statuses(first) == [MemoryStatus.READ]
    assert statuses(second) == [MemoryStatus.READ] * 2


async def test_a_recall_that_is_cancelled_leaves_the_fetch_to_the_others(stage: Stage) -> None:
    await stage.store("a")
    gate = stage.memory.gates[reference_id("a")] = asyncio.Event()
    first = asyncio.create_task(stage.recall("a"))
    await until(lambda: stage.memory.fetches, "the first recall fetches")
    second = asyncio.create_task(stage.recall("a"))
    await until(lambda: len(stage.retrieval.calls) == 2, "the second recall has begun")
    first.cancel()
    gate.set()
    assert statuses(await second) == [MemoryStatus.READ]
    assert len(stage.memory.fetches) == 1


@pytest.mark.parametrize(
    ("fetched", "expected"),
    [
        (FetchStatus.MISSING, MemoryStatus.MISSING),
        (FetchStatus.CORRUPT, MemoryStatus.REFUSED),
        (FetchStatus.MISMATCH, MemoryStatus.REFUSED),
        (FetchStatus.UNAVAILABLE, MemoryStatus.LATE),
        (FetchStatus.UNKNOWN, MemoryStatus.LATE),
    ],
)
async def test_items_without_record(stage: Stage, fetched: FetchStatus, expected: MemoryStatus) -> None:
    await stage.store("a", "b")
    stage.memory.statuses[reference_id("a")] = fetched
    recalled = await stage.recall("a b")
    assert statuses(recalled) == [expected, MemoryStatus.READ]
    assert names(recalled) == [reference_id("b")]


async def test_a_record_that_this_worker_cannot_read_is_refused(stage: Stage) -> None:
    await stage.store("a", "b")
    record = bytearray(stage.memory.records[reference_id("a")])
    record[-1] ^= 1
    stage.memory.records[reference_id("a")] = bytes(record)
    stage.memory.records[reference_id("c")] = stage.memory.records[reference_id("b")]
    recalled = await stage.recall("a b c")
    assert statuses(recalled) == [MemoryStatus.REFUSED, MemoryStatus.READ, MemoryStatus.REFUSED]


@pytest.mark.parametrize("error", [UnknownBankError, MalformedRequestError, ModelMismatchError])
async def test_what_the_caller_did_wrong_reaches_the_caller(stage: Stage, error: type[Exception]) -> None:
    stage.retrieval.error = error("no such thing")
    for _ in range(2):  # it says nothing about the tier: the second is asked as well
        with pytest.raises(error, match="no such thing"):
            await stage.recall("a")


@pytest.mark.parametrize("error", [BackendUnavailableError, OverloadedError, DeadlineExceededError])
async def test_retrieval_that_fails_costs_the_memories_and_no_more(stage: Stage, error: type[Exception]) -> None:
    stage.retrieval.error = error("down")
    recalled = await stage.recall("a", "b")
    assert recalled.retrieval_failed
    assert [len(chunk.memories) for chunk in recalled.chunks] == [0, 0]


async def test_retrieval_that_is_late_is_given_up_at_the_deadline(stage: Stage) -> None:
    stage.retrieval.gate.clear()
    began = time.monotonic()
    recalled = await stage.recall("a", deadline_ms=SOON_MS)
    assert recalled.retrieval_failed
    assert SOON_MS / 1000 <= time.monotonic() - began < 2


async def test_a_retrieval_tier_that_hangs_costs_its_deadline_once_and_is_found_again(
    model: ModelBundle, encoding: Encoding
) -> None:
    stage = await make(model, encoding, cold=False, slow_after_s=0.2)
    await stage.store("a")
    stage.retrieval.gate.clear()
    # Shorter than slow_after: the call goes on behind, so even such deadlines find out that the tier hangs.
    assert (await stage.recall("a", deadline_ms=SOON_MS)).retrieval_failed
    await until(lambda: stage.recaller._breaker.is_open, "the breaker opens")
    began = time.monotonic()
    assert (await stage.recall("a")).retrieval_failed
    assert time.monotonic() - began < 0.1
    stage.retrieval.gate.set()
    await until(lambda: not stage.recaller._breaker.is_open, "the breaker closes")
    assert statuses(await stage.recall("a")) == [MemoryStatus.READ]
    await stage.recaller.close()


async def test_a_memory_tier_that_is_down_makes_memories_late_and_is_found_again(stage: Stage) -> None:
    await stage.store("a")
    stage.memory.error = BackendUnavailableError("down")
    for _ in range(3):
        began = time.monotonic()
        assert statuses(await stage.recall("a")) == [MemoryStatus.LATE]
        assert time.monotonic() - began < 1
    assert len(stage.memory.fetches) == 1, "while it is down nobody asks it"
    stage.memory.error = None
    await until(lambda: not stage.recaller._loader._breaker.is_open, "the breaker closes")
    assert statuses(await stage.recall("a")) == [MemoryStatus.READ]


async def test_a_memory_tier_that_hangs_costs_its_deadline_once(model: ModelBundle, encoding: Encoding) -> None:
    stage = await make(model, encoding, cold=False, slow_after_s=0.05)
    stage.recaller._loader._breaker._probe = asyncio.Event().wait  # it hangs as well
    await stage.store("a", "b")
    gate = stage.memory.gates[reference_id("a")] = asyncio.Event()
    assert statuses(await stage.recall("a", deadline_ms=100)) == [MemoryStatus.LATE]
    for query in ("a", "a b"):  # not even for the fetch that is still under way
        began = time.monotonic()
        assert set(statuses(await stage.recall(query))) == {MemoryStatus.LATE}
        assert time.monotonic() - began < 0.1
    gate.set()
    await until(lambda: len(stage.cache) == 1, "the late memory is cached")
    assert tiers(await stage.recall("a")) == [Tier.WORKER]
    await stage.recaller._loader._breaker.close()


async def test_stages_are_nested_and_lie_within_the_recall(stage: Stage) -> None:
    await stage.store("a")
    recall = (await stage.recall("a")).stage
    assert [child.name for child in recall.children] == ["retrieve", "fetch", "load"]
    assert [child.name for child in recall.children[0].children] == ["embed", "search"]
    for child in recall.children:
        assert recall.start_ns <= child.start_ns <= child.end_ns <= recall.end_ns


async def test_cold_start_writes_reads_and_puts(model: ModelBundle, encoding: Encoding) -> None:
    stage = await make(model, encoding, cold=True)
    await stage.store("a")
    recalled = await stage.recall("a b")
    assert tiers(recalled) == [Tier.OBJECT, Tier.COLD]
    assert statuses(recalled) == [MemoryStatus.READ] * 2
    await until(lambda: reference_id("b") in stage.memory.records, "the new memory is put")
    fresh = await make(model, encoding, cold=False)
    fresh.memory.records = stage.memory.records
    again = await fresh.recall("b")
    (warm,), (_, cold) = again.chunks[0].readable, recalled.chunks[0].readable
    assert warm.payload == cold.payload, "what is read cold equals what is read after the store"


async def test_cold_start_that_is_not_done_in_time_is_missing_and_kept(
    model: ModelBundle, encoding: Encoding, device: Device
) -> None:
    stage = await make(model, encoding, cold=True)
    is_free = threading.Event()

    def hold(engine: Engine) -> Sequence[Event]:
        is_free.wait(10)
        return ()

    device.submit(hold)
    recalled = await stage.recall("a b c", deadline_ms=SOON_MS)
    assert statuses(recalled) == [MemoryStatus.MISSING] * 3
    is_free.set()
    await until(lambda: len(stage.cache) == 3, "all three are written behind")
    assert tiers(await stage.recall("a b c")) == [Tier.WORKER] * 3


async def test_cold_start_is_bounded_for_each_recall(model: ModelBundle, encoding: Encoding) -> None:
    stage = await make(model, encoding, cold=True, cold_per_fetch=2)
    recalled = await stage.recall("a b c d")
    assert statuses(recalled).count(MemoryStatus.READ) == 2
    assert statuses(recalled).count(MemoryStatus.MISSING) == 2


async def test_recalls_that_miss_the_same_reference_share_one_encoding(model: ModelBundle, encoding: Encoding) -> None:
    stage = await make(model, encoding, cold=True)
    both = await asyncio.gather(stage.recall("a"), stage.recall("a"))
    assert [tiers(recalled) for recalled in both] == [[Tier.COLD], [Tier.COLD]]
    await until(lambda: stage.memory.puts, "it is put")
    assert stage.memory.puts == [reference_id("a")]


async def test_a_failing_put_costs_nothing_now(model: ModelBundle, encoding: Encoding) -> None:
    stage = await make(model, encoding, cold=True)
    stage.memory.put_error = BackendUnavailableError("full of sand")
    assert statuses(await stage.recall("a")) == [MemoryStatus.READ]
    await until(lambda: stage.memory.puts, "the put was tried")
    assert tiers(await stage.recall("a")) == [Tier.WORKER]


async def test_a_memory_that_another_writer_put_meanwhile_is_no_failure(
    model: ModelBundle, encoding: Encoding, caplog: pytest.LogCaptureFixture
) -> None:
    stage = await make(model, encoding, cold=True)
    stage.memory.put_error = ConflictingRecordError("there is another record; it is kept")
    assert statuses(await stage.recall("a")) == [MemoryStatus.READ]
    await until(lambda: stage.memory.puts, "the put was tried")
    assert "not stored" not in caplog.text


async def test_a_reference_that_cannot_be_written_is_missing(model: ModelBundle, encoding: Encoding) -> None:
    stage = await make(model, encoding, cold=True)
    too_long = "x" * (model.plan.max_reference_tokens + 1)
    assert statuses(await stage.recall(f"{too_long} a")) == [MemoryStatus.MISSING, MemoryStatus.READ]


async def test_memories_larger_than_the_cache_are_read_all_the_same(model: ModelBundle, encoding: Encoding) -> None:
    stage = await make(model, encoding, cold=False, cache_bytes=0)
    await stage.store("a")
    for _ in range(2):
        assert tiers(await stage.recall("a")) == [Tier.OBJECT]


def test_the_best_of_every_query_are_loaded_first(model: ModelBundle) -> None:
    def hits(texts: str) -> Sequence[Hit]:
        return [Hit(reference(text), 0.5) for text in texts]

    assert [found.text for found in _by_rank([hits("abc"), hits("dae"), ()])] == ["a", "d", "b", "c", "e"]


def test_each_memory_is_told_once_and_those_not_read_last() -> None:
    def memory(name: str, status: MemoryStatus, tier: Tier) -> RecalledMemory:
        return RecalledMemory(name, f"doc of {name}", "", "its text", 1.0, status, tier, 7)

    late, ram = memory("a", MemoryStatus.LATE, Tier.NONE), memory("b", MemoryStatus.READ, Tier.RAM)
    span = TracerProvider().get_tracer("test").start_span("recall")
    assert isinstance(span, Span)
    _tell_each(span, [RecalledChunk([late, ram], ()), RecalledChunk([ram], ())])
    told = [dict(event.attributes or {}) for event in span.events]
    assert {event.name for event in span.events} == {semconv.EVENT_MEMORY}
    assert [
        (event[semconv.ATTR_REFERENCE_ID], event[semconv.ATTR_STATUS], event[semconv.ATTR_TIER]) for event in told
    ] == [
        ("b", "read", "ram"),
        ("a", "late", "none"),
    ]
    assert "its text" not in str(told)
