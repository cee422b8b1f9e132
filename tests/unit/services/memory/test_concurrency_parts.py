"""Coalescer, byte budget, arrivals and breaker: each alone, with a clock or events instead of waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from memory3.errors import BackendUnavailableError, StorageFullError
from services.memory.arrivals import Arrivals
from services.memory.breaker import Breaker
from services.memory.budget import ByteBudget
from services.memory.coalescer import Coalescer
from services.memory.guarded_store import GuardedStore


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


class Work:
    """Counts its runs and ends when told."""

    def __init__(self) -> None:
        self.runs = 0
        self.cancelled = 0
        self.release = asyncio.Event()
        self.current: list[bool] = []

    async def __call__(self, is_current: Callable[[], bool]) -> int:
        self.runs += 1
        number = self.runs
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.current.append(is_current())
        return number


async def test_equal_keys_share_one_run_and_others_do_not() -> None:
    coalescer: Coalescer[int] = Coalescer()
    work = Work()
    callers = [asyncio.create_task(coalescer.run(key, work)) for key in ("a", "a", "a", "b")]
    await settle()
    assert work.runs == 2
    work.release.set()
    assert await asyncio.gather(*callers) == [1, 1, 1, 2]
    assert await coalescer.run("a", work) == 3, "a finished run must not be joined"


async def test_one_who_goes_away_leaves_the_run_to_the_others_the_last_one_ends_it() -> None:
    coalescer: Coalescer[int] = Coalescer()
    work = Work()
    first, second = (asyncio.create_task(coalescer.run("a", work)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    assert work.cancelled == 0
    second.cancel()
    await settle()
    assert work.cancelled == 1
    work.release.set()
    assert await coalescer.run("a", work) == 2, "a cancelled run must not be joined"


async def test_all_who_share_a_run_get_its_error() -> None:
    async def fail(_: Callable[[], bool]) -> int:
        await asyncio.sleep(0)
        raise BackendUnavailableError("down")

    coalescer: Coalescer[int] = Coalescer()
    outcomes = await asyncio.gather(*(coalescer.run("a", fail) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(outcome, BackendUnavailableError) for outcome in outcomes)


async def test_after_forget_nobody_joins_and_the_old_run_is_not_current() -> None:
    coalescer: Coalescer[int] = Coalescer()
    work = Work()
    old = asyncio.create_task(coalescer.run("a", work))
    await settle()
    coalescer.forget_where(lambda key: key == "a")
    new = asyncio.create_task(coalescer.run("a", work))
    await settle()
    work.release.set()
    assert await asyncio.gather(old, new) == [1, 2]
    assert work.current == [False, True]


async def test_the_budget_is_never_exceeded_and_is_first_come_first_served() -> None:
    budget = ByteBudget(10)
    first = await budget.acquire(8, timeout_s=1)
    large = asyncio.create_task(budget.acquire(9, timeout_s=60))
    small = asyncio.create_task(budget.acquire(1, timeout_s=60))
    await settle()
    assert (budget.used_bytes, large.done(), small.done()) == (8, False, False)
    first.shrink(1)
    await settle()
    assert (budget.used_bytes, large.done(), small.done()) == (10, True, False)
    first.release()
    first.release()
    await settle()
    assert (budget.used_bytes, small.done()) == (10, True)
    (await large).release()
    (await small).release()
    assert budget.used_bytes == 0


async def test_who_gives_up_waiting_leaves_nothing_taken() -> None:
    budget = ByteBudget(10)
    with await budget.acquire(10, timeout_s=1):
        with pytest.raises(TimeoutError):
            await budget.acquire(5, timeout_s=0.01)
        impatient = asyncio.create_task(budget.acquire(10, timeout_s=60))
        patient = asyncio.create_task(budget.acquire(3, timeout_s=60))
        await settle()
        impatient.cancel()
        await settle()
        assert not patient.done()
    await settle()
    assert (budget.used_bytes, patient.done()) == (3, True)


async def test_a_turn_that_comes_in_the_moment_of_giving_up_is_not_lost() -> None:
    budget = ByteBudget(10)
    first = await budget.acquire(10, timeout_s=1)
    waiting = asyncio.create_task(budget.acquire(10, timeout_s=60))
    await settle()
    first.release()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert budget.used_bytes == 0
    (await budget.acquire(10, timeout_s=1)).release()


async def test_results_come_as_they_are_ready_and_only_so_many_are_begun() -> None:
    begun: list[int] = []
    gates = [asyncio.Event() for _ in range(6)]

    async def work(number: int) -> int:
        begun.append(number)
        await gates[number].wait()
        return number

    results = Arrivals(range(6), work, 3).results()
    await settle()
    assert begun == [0, 1, 2]
    gates[2].set()
    assert await anext(results) == 2
    gates[0].set()
    assert await anext(results) == 0
    await settle()
    assert sorted(begun) == [0, 1, 2, 3], "what was taken last does not count until the next is asked for"
    for gate in gates:
        gate.set()
    assert sorted([result async for result in results]) == [1, 3, 4, 5]


async def test_leaving_early_cancels_what_runs() -> None:
    work = Work()
    results = Arrivals(range(5), lambda _: work(lambda: True), 5).results()
    reader = asyncio.create_task(anext(results))
    await settle()
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert work.cancelled == 5


class Clock:
    """Goes on when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_breaker(clock: Clock) -> Breaker:
    return Breaker(failures_to_open=3, first_pause_s=1.0, longest_pause_s=3.0, clock=clock)


def fail(breaker: Breaker) -> None:
    with pytest.raises(BackendUnavailableError, match="down"), breaker.watch():
        raise BackendUnavailableError("down")


def is_refused(breaker: Breaker) -> bool:
    try:
        with breaker.watch():
            return False
    except BackendUnavailableError as error:
        return (error.retry_after_ms or 0) > 0


def test_the_breaker_opens_after_failures_in_a_row_only() -> None:
    breaker = make_breaker(Clock())
    for _ in range(5):
        fail(breaker)
        fail(breaker)
        assert not is_refused(breaker)  # an answer in between: it counts anew
    for _ in range(3):
        assert not breaker.is_open
        fail(breaker)
    assert breaker.is_open
    assert is_refused(breaker)


def test_one_trial_after_the_pause_decides_and_pauses_grow_to_a_limit() -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    for _ in range(3):
        fail(breaker)
    for pause_s in (1.0, 2.0, 3.0, 3.0):
        clock.now += pause_s - 0.01
        assert is_refused(breaker)
        clock.now += 0.02
        fail(breaker)
    clock.now += 3.1
    with breaker.watch():
        assert is_refused(breaker), "a second call while the trial runs"
    assert not breaker.is_open
    for _ in range(3):
        fail(breaker)
    clock.now += 1.1
    assert not is_refused(breaker), "after healing the pause is short again"


def test_a_full_store_is_a_store_that_answers() -> None:
    breaker = make_breaker(Clock())
    for _ in range(9):
        with pytest.raises(StorageFullError), breaker.watch():
            raise StorageFullError("full")
    assert not breaker.is_open


def test_a_cancelled_trial_lets_another_one_try() -> None:
    clock = Clock()
    breaker = make_breaker(clock)
    for _ in range(3):
        fail(breaker)
    clock.now += 1.1
    with pytest.raises(asyncio.CancelledError), breaker.watch():
        raise asyncio.CancelledError
    assert breaker.is_open
    assert not is_refused(breaker)


class HangingStore:
    """Never answers."""

    async def get(self, _: str, __: int) -> bytes | None:
        await asyncio.Event().wait()
        return None


async def test_a_store_that_hangs_is_unavailable_in_time_and_then_not_asked() -> None:
    breaker = make_breaker(Clock())
    store = GuardedStore(HangingStore(), breaker, read_timeout_s=0.01, write_timeout_s=1)  # type: ignore[arg-type]
    for _ in range(3):
        with pytest.raises(BackendUnavailableError, match="within"):
            await store.get("a", 1)
    with pytest.raises(BackendUnavailableError, match="not asked"):
        await store.get("a", 1)
