"""The parts that know nothing of generations: cache, queue, admission, breaker, stages."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory3.errors import (
    BackendUnavailableError,
    MalformedRequestError,
    OverloadedError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from memory3.types import (
    FinalEvent,
    FinishReason,
    GenerationEvent,
    RecallEvent,
    TimelineEntry,
    Timing,
    TokenEvent,
    Usage,
)
from model.codec.packed_memory import PackedMemory
from services.decoder.admission import Admission
from services.decoder.breaker import CircuitBreaker, TierDownError
from services.decoder.event_queue import EventQueue
from services.decoder.memory_cache import MemoryCache
from services.decoder.stages import Stage, timeline, total_ns, under
from tests.helpers.waiting import until


def memory(num_kept: int) -> PackedMemory:
    return PackedMemory(bytes(17 * num_kept), {}, (1, 1, num_kept, 2), num_kept, "0" * 32)


class TestMemoryCache:
    @given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 8)), max_size=60), st.integers(0, 200))
    def test_it_is_never_above_its_bound_and_gives_what_was_put(
        self, puts: list[tuple[str, int]], capacity: int
    ) -> None:
        cache, newest = MemoryCache(capacity), {}
        for key, num_kept in puts:
            newest[key] = memory(num_kept)
            cache.put("bank", key, newest[key])
            held = {key: found for key in newest if (found := cache.get("bank", key)) is not None}
            assert sum(len(one.payload) for one in held.values()) == cache.num_bytes <= capacity
            assert len(cache) == len(held)

    def test_the_least_recently_used_goes_first(self) -> None:
        a, b, c = memory(1), memory(1), memory(1)
        cache = MemoryCache(2 * len(a.payload))
        cache.put("bank", "a", a)
        cache.put("bank", "b", b)
        assert cache.get("bank", "a") is a
        cache.put("bank", "c", c)
        assert cache.get("bank", "b") is None
        assert cache.get("bank", "a") is a

    def test_banks_are_apart(self) -> None:
        cache = MemoryCache(1000)
        cache.put("one", "a", memory(1))
        assert cache.get("other", "a") is None

    def test_one_larger_than_the_bound_changes_nothing(self) -> None:
        cache = MemoryCache(len(memory(2).payload))
        cache.put("bank", "a", small := memory(1))
        cache.put("bank", "b", memory(3))
        assert cache.get("bank", "a") is small


RECALL = RecallEvent(0, 0, (), False, 0, 0)
FINAL = FinalEvent(FinishReason.END, Usage(), Timing(), (), 0)


async def read_all(queue: EventQueue) -> list[GenerationEvent]:
    return [event async for event in queue.read()]


class TestEventQueue:
    async def test_text_that_waits_is_merged_and_never_across_another_event(self) -> None:
        queue = EventQueue()
        for event in (TokenEvent("a", [1]), TokenEvent("b", [2, 3]), RECALL, TokenEvent("c", [4]), FINAL):
            queue.put(event)
        queue.close()
        assert await read_all(queue) == [TokenEvent("ab", [1, 2, 3]), RECALL, TokenEvent("c", [4]), FINAL]

    async def test_a_reader_that_keeps_up_gets_every_event(self) -> None:
        queue = EventQueue()
        reading = asyncio.create_task(read_all(queue))
        for number in range(3):
            queue.put(TokenEvent("x", [number]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        queue.close()
        assert await reading == [TokenEvent("x", [0]), TokenEvent("x", [1]), TokenEvent("x", [2])]

    async def test_an_error_ends_it_at_once_and_the_first_end_counts(self) -> None:
        queue = EventQueue()
        queue.put(TokenEvent("a", [1]))
        queue.close(MalformedRequestError("first"))
        queue.close(MalformedRequestError("second"))
        with pytest.raises(MalformedRequestError, match="first"):
            await read_all(queue)


class TestAdmission:
    def test_it_refuses_above_its_limit_with_a_hint_and_gives_back(self) -> None:
        admission = Admission(2, "this test")
        with admission.permit():
            with admission.permit(), pytest.raises(OverloadedError, match=r"2 generations .* in this test") as refused:
                admission.permit().__enter__()
            assert 50 <= (refused.value.retry_after_ms or 0) <= 5000
            with admission.permit():
                assert admission.num_held == 2
        assert admission.num_held == 0

    def test_a_failing_holder_gives_its_permit_back(self) -> None:
        admission = Admission(1, "this test")
        with pytest.raises(KeyError), admission.permit():
            raise KeyError
        assert admission.num_held == 0


class Tier:
    """Something to probe."""

    def __init__(self) -> None:
        self.is_up = False
        self.num_probes = 0

    async def probe(self) -> None:
        self.num_probes += 1
        if not self.is_up:
            raise BackendUnavailableError("down")


class TestCircuitBreaker:
    @pytest.fixture
    def tier(self) -> Tier:
        return Tier()

    @pytest.fixture
    async def breaker(self, tier: Tier) -> CircuitBreaker:
        return CircuitBreaker("test", tier.probe, slow_after_s=0.05, first_pause_s=0.01, longest_pause_s=0.02)

    async def fail(self, breaker: CircuitBreaker, error: Exception) -> None:
        with pytest.raises(type(error)):
            async with breaker.call():
                raise error

    async def test_it_opens_refuses_and_closes_when_a_probe_succeeds(self, breaker: CircuitBreaker, tier: Tier) -> None:
        await self.fail(breaker, BackendUnavailableError("down"))
        await self.fail(breaker, TierDownError("open"))
        await until(lambda: tier.num_probes >= 2, "it probes again and again")
        assert breaker.is_open
        tier.is_up = True
        await until(lambda: not breaker.is_open, "it closes")
        async with breaker.call():
            pass

    async def test_the_callers_mistakes_do_not_open_it(self, breaker: CircuitBreaker) -> None:
        await self.fail(breaker, MalformedRequestError("bad"))
        await self.fail(breaker, OverloadedError("busy"))
        assert not breaker.is_open

    async def test_a_refused_token_does_not_either_and_is_logged(
        self, breaker: CircuitBreaker, caplog: pytest.LogCaptureFixture
    ) -> None:
        await self.fail(breaker, UnauthenticatedError("the token is not known here"))
        await self.fail(breaker, PermissionDeniedError("Put needs the right write"))
        assert not breaker.is_open
        assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
        assert "TOKEN_FILE" in caplog.text

    async def test_a_call_without_answer_opens_it_before_it_ends(self, breaker: CircuitBreaker) -> None:
        async with breaker.call():
            await until(lambda: breaker.is_open, "it opens while the call hangs")
        await breaker.close()

    async def test_a_long_call_that_shows_life_does_not(self, breaker: CircuitBreaker) -> None:
        async with breaker.call() as is_alive:
            is_alive()
            await asyncio.sleep(0.08)
        assert not breaker.is_open

    async def test_a_probe_that_is_refused_is_an_answer(self, breaker: CircuitBreaker, tier: Tier) -> None:
        async def refuse() -> None:
            raise MalformedRequestError("no such bank")

        breaker = CircuitBreaker("test", refuse, slow_after_s=1, first_pause_s=0.01)
        await self.fail(breaker, BackendUnavailableError("down"))
        await until(lambda: not breaker.is_open, "it closes")

    async def test_a_probe_that_fails_unexpectedly_does_not_end_probing(self) -> None:
        num_calls = 0

        async def probe() -> None:
            nonlocal num_calls
            num_calls += 1
            if num_calls < 3:
                raise RuntimeError("a bug")

        breaker = CircuitBreaker("test", probe, slow_after_s=1, first_pause_s=0.001, longest_pause_s=0.001)
        await self.fail(breaker, BackendUnavailableError("down"))
        await until(lambda: not breaker.is_open, "it closes")
        assert num_calls == 3


class TestStages:
    ROOT = Stage(
        "generate",
        "decoder-worker",
        100,
        200,
        (
            Stage("decode", "decoder-worker", 150, 200),
            Stage("recall", "decoder-worker", 110, 140, (Stage("fetch", "decoder-worker", 120, 130),)),
            Stage("recall", "decoder-worker", 160, 165),
        ),
    )

    def test_the_timeline_names_parents_before_children_and_counts_from_arrival(self) -> None:
        assert [
            (entry.name, entry.parent, entry.start_ns, entry.duration_ns) for entry in timeline(self.ROOT, 100)
        ] == [
            ("generate", None, 0, 100),
            ("recall", 0, 10, 30),
            ("fetch", 1, 20, 10),
            ("decode", 0, 50, 50),
            ("recall", 0, 60, 5),
        ]

    def test_times_of_one_name_are_summed_at_any_depth(self) -> None:
        assert total_ns([self.ROOT], "recall") == 35
        assert total_ns([self.ROOT], "fetch") == 10

    def test_a_workers_timeline_hangs_under_the_fronts(self) -> None:
        front = TimelineEntry("generate", "decoder", None, 0, 500)
        entries = under(front, 7, timeline(self.ROOT, 100))
        assert [(entry.parent, entry.start_ns) for entry in entries[:3]] == [(None, 0), (0, 7), (1, 17)]
