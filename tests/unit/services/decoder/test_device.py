"""The device's thread: the engine's steps and encoding share it, and neither starves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from memory3.errors import BackendUnavailableError, InternalError, OverloadedError
from services.decoder.device import Device, EncodeLimits
from tests.helpers.waiting import until


class FakeEngine:
    """Has work for as many steps as it is given."""

    def __init__(self, num_steps: int = 0, step_s: float = 0.002) -> None:
        self.num_steps = num_steps
        self.step_s = step_s
        self.log: list[str] = []
        self.is_stalled = False
        self.error: Exception | None = None

    @property
    def has_work(self) -> bool:
        return self.num_steps > 0

    def step(self) -> list[str]:
        if self.error is not None:
            raise self.error
        time.sleep(self.step_s)
        self.num_steps -= 1
        self.log.append("step")
        return [f"step {self.num_steps}"]


class FakeEncoder:
    """Encodes into the tokens themselves; a reference takes `reference_s`."""

    def __init__(self, log: list[str], reference_s: float = 0.0) -> None:
        self.log = log
        self.reference_s = reference_s
        self.batches: list[list[Sequence[int]]] = []
        self.error: Exception | None = None

    def write(self, references: Sequence[Sequence[int]], *, preceding: Sequence[Sequence[int]]) -> list[Any]:
        time.sleep(self.reference_s * len(references))
        self.batches.append(list(references))
        self.log.append("encode")
        if self.error is not None:
            raise self.error
        return list(references)


class Rig:
    def __init__(self, engine: FakeEngine, reference_s: float = 0.0, **limits: Any) -> None:
        values = {"batch_size": 4, "pause_ns": 10_000_000, "share": 0.5, "max_pending": 100} | limits
        self.engine = engine
        self.encoder = FakeEncoder(engine.log, reference_s)
        self.device = Device(engine, self.encoder, EncodeLimits(**values))  # type: ignore[arg-type]
        self.events: list[Any] = []
        self.failures: list[Exception] = []

    async def __aenter__(self) -> Rig:
        self.device.start(self.events.extend, self.failures.append)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.device.stop()

    def block(self) -> threading.Event:
        """Hold the thread until the returned event is set."""
        free = threading.Event()
        self.device.submit(lambda _: _wait(free))
        return free


def _wait(free: threading.Event) -> Sequence[Any]:
    assert free.wait(10)
    return ()


async def test_steps_run_while_there_is_work_and_their_events_arrive_in_order() -> None:
    async with Rig(FakeEngine(3)) as rig:
        await until(lambda: len(rig.events) == 3, "three steps")
    assert rig.events == ["step 2", "step 1", "step 0"]


async def test_a_command_wakes_an_idle_device_and_its_events_are_published() -> None:
    async with Rig(FakeEngine()) as rig:
        rig.device.submit(lambda engine: ["event"])  # type: ignore[list-item]
        await until(lambda: rig.events == ["event"], "the command's event")


async def test_what_a_command_raises_goes_to_its_own_handler_and_the_device_goes_on() -> None:
    errors: list[Exception] = []

    def refuse(engine: object) -> Sequence[Any]:
        raise ValueError("no")

    async with Rig(FakeEngine()) as rig:
        rig.device.submit(refuse, errors.append)
        await until(lambda: errors, "the error")
        rig.device.submit(lambda engine: ["event"])  # type: ignore[list-item]
        await until(lambda: rig.events, "the next command")
    assert str(errors[0]) == "no"


async def test_references_that_wait_are_encoded_in_batches_urgent_ones_first() -> None:
    async with Rig(FakeEngine()) as rig:
        free = rig.block()
        bulk = [asyncio.create_task(rig.device.encode([i], urgent=False)) for i in range(5)]
        urgent = [asyncio.create_task(rig.device.encode([i], urgent=True)) for i in (10, 11)]
        await asyncio.sleep(0)
        free.set()
        encoded = await asyncio.gather(*bulk, *urgent)
    assert [result.memory for result in encoded] == [[0], [1], [2], [3], [4], [10], [11]]
    assert rig.encoder.batches == [[[10], [11], [0], [1]], [[2], [3], [4]]]


async def test_encoding_takes_no_more_than_its_share_while_somebody_decodes() -> None:
    async with Rig(FakeEngine(num_steps=60, step_s=0.004), reference_s=0.004, pause_ns=1) as rig:
        await asyncio.gather(*(rig.device.encode([i], urgent=False) for i in range(20)))
        log = list(rig.engine.log)
    last = len(log) - log[::-1].index("encode")
    num_steps = log[:last].count("step")
    assert 10 <= num_steps <= 40, f"20 encodings of 4 ms ran among {num_steps} steps of 4 ms: {log}"


async def test_batches_are_cut_to_the_pause_while_somebody_decodes() -> None:
    async with Rig(FakeEngine(num_steps=40, step_s=0.005), reference_s=0.01, pause_ns=20_000_000) as rig:
        await asyncio.gather(*(rig.device.encode([i], urgent=False) for i in range(9)))
    assert max(map(len, rig.encoder.batches[1:])) <= 2, "a reference takes 10 ms, the pause is 20 ms"


async def test_a_stalled_engine_leaves_the_device_to_encoding() -> None:
    engine = FakeEngine(num_steps=1)
    engine.is_stalled = True
    async with Rig(engine) as rig:
        await asyncio.gather(*(rig.device.encode([i], urgent=True) for i in range(8)))
        assert engine.log == ["encode", "encode"] or engine.log.count("step") == 0


async def test_too_many_waiting_references_are_refused_with_a_hint() -> None:
    async with Rig(FakeEngine(), max_pending=3) as rig:
        free = rig.block()
        waiting = [asyncio.create_task(rig.device.encode([i], urgent=False)) for i in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="3 references wait") as refused:
            await rig.device.encode([9], urgent=False)
        assert refused.value.retry_after_ms
        free.set()
        await asyncio.gather(*waiting)


async def test_a_reference_whose_caller_is_gone_is_not_encoded() -> None:
    async with Rig(FakeEngine()) as rig:
        free = rig.block()
        gone = asyncio.create_task(rig.device.encode([1], urgent=False))
        stays = asyncio.create_task(rig.device.encode([2], urgent=False))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        free.set()
        await stays
    assert rig.encoder.batches == [[[2]]]


async def test_a_batch_that_fails_fails_its_references_only() -> None:
    async with Rig(FakeEngine()) as rig:
        rig.encoder.error = RuntimeError("no room")
        with pytest.raises(InternalError, match="no room"):
            await rig.device.encode([1], urgent=False)
        rig.encoder.error = None
        assert (await rig.device.encode([2], urgent=False)).memory == [2]


async def test_an_engine_that_raises_ends_the_device_and_says_so() -> None:
    engine = FakeEngine(num_steps=1)
    engine.error = RuntimeError("broken")
    async with Rig(engine) as rig:
        await until(lambda: rig.failures, "the failure")
        assert rig.device.failure is rig.failures[0]
        with pytest.raises(BackendUnavailableError):
            await rig.device.encode([1], urgent=False)


async def test_stopping_fails_the_references_that_wait() -> None:
    rig = Rig(FakeEngine())
    async with rig:
        free = rig.block()
        waiting = asyncio.create_task(rig.device.encode([1], urgent=False))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(rig.device.stop())
        await asyncio.sleep(0)
        free.set()
        await stopping
        with pytest.raises(BackendUnavailableError):
            await waiting
