"""How often a call is made, and when a run gives up."""

import pytest

from memory3.errors import (
    BackendUnavailableError,
    MalformedRequestError,
    OverloadedError,
    PermissionDeniedError,
    StorageDeniedError,
    UnauthenticatedError,
)
from services.ingest.retry import MAX_ATTEMPTS, RunStoppedError, Tier


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def failing(times: int, error: Exception):
    left = [times]

    async def attempt() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return "done"

    return attempt


async def test_pauses_grow_and_stay_bounded(clock):
    tier = Tier("t", "x", 3600, clock=clock, sleep=clock.sleep)
    assert await tier.call(failing(12, BackendUnavailableError("down"))) == "done"
    assert all(0.05 * 2**n <= pause <= 0.1 * 2**n for n, pause in enumerate(clock.pauses[:6]))
    assert max(clock.pauses) <= 5.0


async def test_the_tiers_hint_is_honoured(clock):
    tier = Tier("t", "x", 3600, clock=clock, sleep=clock.sleep)
    await tier.call(failing(1, OverloadedError("full", retry_after_ms=7000)))
    assert clock.pauses == [7.0]


async def test_a_callers_fault_is_not_tried_again(clock):
    tier = Tier("t", "x", 3600, clock=clock, sleep=clock.sleep)
    with pytest.raises(MalformedRequestError):
        await tier.call(failing(1, MalformedRequestError("bad")))
    assert clock.pauses == []


async def test_an_outage_longer_than_the_patience_stops_the_run(clock):
    tier = Tier("retrieval", "host:1", 60, clock=clock, sleep=clock.sleep)
    with pytest.raises(
        RunStoppedError, match=r"retrieval at host:1 has failed for 6\d s: down; .* run the same command"
    ):
        await tier.call(failing(10**9, BackendUnavailableError("down")))
    assert clock.now >= 60
    with pytest.raises(RunStoppedError):  # still down: the next call does not wait another minute
        await tier.call(failing(1, BackendUnavailableError("down")))


async def test_a_success_ends_the_outage(clock):
    tier = Tier("t", "x", 60, clock=clock, sleep=clock.sleep)
    await tier.call(failing(8, BackendUnavailableError("down")))
    clock.now += 1000
    assert await tier.call(failing(3, BackendUnavailableError("down"))) == "done"


async def test_one_call_that_always_fails_beside_others_that_work_gives_up(clock):
    tier = Tier("t", "x", 60, clock=clock, sleep=clock.sleep)
    attempts = 0

    async def poisoned() -> None:
        nonlocal attempts
        attempts += 1
        await tier.call(failing(0, OverloadedError("")))
        raise OverloadedError("full")

    with pytest.raises(OverloadedError):
        await tier.call(poisoned)
    assert attempts == MAX_ATTEMPTS


@pytest.mark.parametrize("error", [StorageDeniedError, UnauthenticatedError, PermissionDeniedError])
async def test_what_is_hopeless_stops_the_run_at_once(clock, error):
    tier = Tier("memory", "x", 3600, clock=clock, sleep=clock.sleep)
    with pytest.raises(RunStoppedError, match="memory at x: read-only"):
        await tier.call(failing(1, error("read-only")))
    assert clock.pauses == []
