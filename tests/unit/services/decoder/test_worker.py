"""A whole worker with the tiny model between tiers that do not exist: its ends, its limits, its clean-up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from memory3.errors import BackendUnavailableError, DeadlineExceededError, InternalError, OverloadedError
from memory3.types import FinalEvent, GenerationEvent, GenerationRequest, Mode
from model.engine.engine import Engine
from model.expansion.expander import Expander
from services.decoder.assembly import build_worker
from services.decoder.config import DecoderSettings
from services.decoder.worker import Worker
from tests.helpers.waiting import until

ENDLESS = GenerationRequest(Mode.NONE, prompt="x", max_tokens=500)
SHORT = replace(ENDLESS, max_tokens=3)
RECALLING = GenerationRequest(Mode.MEMORY, prompt="x", bank="bank", max_tokens=3)


@pytest.fixture
async def worker(settings: DecoderSettings) -> AsyncIterator[Worker]:
    nowhere = {"retrieval_address": "127.0.0.1:1", "memory_address": "127.0.0.1:1", "num_slots": 2, "max_waiting": 1}
    worker = await build_worker(settings.model_copy(update=nowhere))
    yield worker
    await worker.stop()


async def run(worker: Worker, request: GenerationRequest, timeout_s: float | None = None) -> list[GenerationEvent]:
    return [event async for event in worker.generate(request, {}, timeout_s)]


async def num_in_engine(worker: Worker) -> int:
    """Sequences the engine has, counted in its own thread."""
    counted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def count(engine: Engine) -> tuple[()]:
        total = engine.num_waiting + engine.num_running + engine.num_recalling
        counted.get_loop().call_soon_threadsafe(counted.set_result, total)
        return ()

    worker._device.submit(count)
    return await counted


async def test_a_generation_ends_with_its_final_event(worker: Worker) -> None:
    events = await run(worker, SHORT)
    assert isinstance(events[-1], FinalEvent)
    assert await num_in_engine(worker) == 0


async def test_more_than_slots_and_queue_are_refused(worker: Worker) -> None:
    running = [asyncio.create_task(run(worker, ENDLESS)) for _ in range(3)]
    await until(lambda: worker._admission.num_held == 3, "three generations are held")
    with pytest.raises(OverloadedError) as refused:
        await run(worker, SHORT)
    assert refused.value.retry_after_ms
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert isinstance((await run(worker, SHORT))[-1], FinalEvent)


async def test_closing_the_iterator_frees_the_slot_at_once(worker: Worker) -> None:
    stream = worker.generate(ENDLESS, {})
    await anext(stream)
    assert await num_in_engine(worker) == 1
    await stream.aclose()
    assert await num_in_engine(worker) == 0
    assert worker._admission.num_held == 0
    assert not worker._generations


async def test_a_caller_that_is_cancelled_before_its_first_event_leaves_nothing_behind(worker: Worker) -> None:
    for _ in range(20):
        caller = asyncio.create_task(run(worker, ENDLESS))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
    await until(lambda: worker._admission.num_held == 0, "no permit is held")
    assert await num_in_engine(worker) == 0


async def test_the_deadline_holds_without_anybody_to_cancel(worker: Worker) -> None:
    with pytest.raises(DeadlineExceededError, match=r"0\.05 s"):
        await run(worker, ENDLESS, timeout_s=0.05)
    assert await num_in_engine(worker) == 0


async def test_stopping_ends_generations_and_refuses_new_ones(worker: Worker) -> None:
    running = asyncio.create_task(run(worker, ENDLESS))
    await until(lambda: worker._generations, "the generation has begun")
    await worker.stop()
    with pytest.raises(BackendUnavailableError):
        await running
    with pytest.raises(BackendUnavailableError):
        await run(worker, SHORT)
    with pytest.raises(BackendUnavailableError):
        worker.check()


async def test_an_engine_that_breaks_ends_its_generations_and_fails_the_check(worker: Worker) -> None:
    running = asyncio.create_task(run(worker, ENDLESS))
    await until(lambda: worker._generations, "the generation has begun")

    def broken(self: object) -> list[object]:
        raise RuntimeError("out of order")

    def break_it(engine: Engine) -> tuple[()]:
        engine.step = broken.__get__(engine)  # type: ignore[method-assign]
        return ()

    worker._device.submit(break_it)
    with pytest.raises(InternalError, match="out of order"):
        await running
    with pytest.raises(InternalError, match="out of order"):
        worker.check()
    with pytest.raises(InternalError):
        await run(worker, SHORT)


async def test_a_model_that_fails_on_one_sequence_ends_that_one_only(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ArithmeticError("not this one")

    with monkeypatch.context() as patch:
        patch.setattr(worker._model.runner, "prefill", fail)
        with pytest.raises(InternalError, match="not this one"):
            await run(worker, SHORT)
    assert isinstance((await run(worker, SHORT))[-1], FinalEvent)
    worker.check()


async def test_memories_that_cannot_be_expanded_end_their_generation_only(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Expander, memories: object) -> list[object]:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(Expander, "expand", full)
        with pytest.raises(InternalError, match=r"could not be expanded: RuntimeError: out of memory"):
            await run(worker, RECALLING)
    assert await num_in_engine(worker) == 0
    assert isinstance((await run(worker, RECALLING))[-1], FinalEvent)


async def test_without_any_tier_a_generation_that_wants_memories_answers_without(worker: Worker) -> None:
    final = (await run(worker, RECALLING))[-1]
    assert isinstance(final, FinalEvent)
    assert final.usage.num_output_tokens == 3
    assert final.usage.num_recalls_failed == 1
