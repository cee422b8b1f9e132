"""The core on a store whose every answer the test holds: sharing, order, bounds, and what races may not do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from memory3 import semconv
from memory3.errors import BackendUnavailableError, ConflictingRecordError, OverloadedError, StorageDeniedError
from memory3.types import FetchedRecord, FetchStatus, Tier
from services.memory import core as core_module
from services.memory.core import Limits, MemoryCore
from services.memory.layout import Identity, object_key, parse_key
from services.memory.limits import MAX_RECORD_BYTES
from services.memory.ports import StoredObject
from services.memory.ram_tier import RamTier
from tests.helpers.memory_records import FINGERPRINT, make_record, reference_id

MiB = 1024 * 1024
BANK = "notes"


class HeldStore:
    """A dictionary. A read is held while its key is in `held`, and answers what was there when it began."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.failing: dict[str, Exception] = {}
        self.reads: list[str] = []
        self.reading = 0
        self.most_reading = 0

    def hold(self, number: int) -> asyncio.Event:
        return self.held.setdefault(key_of(number), asyncio.Event())

    async def get(self, key: str, limit_bytes: int) -> bytes | None:
        assert limit_bytes == MAX_RECORD_BYTES
        found = self.objects.get(key)
        self.reads.append(key)
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        try:
            await asyncio.sleep(0)
            if key in self.held:
                await self.held[key].wait()
            if key in self.failing:
                raise self.failing[key]
        finally:
            self.reading -= 1
        return found

    async def put_new(self, key: str, data: bytes) -> bool:
        if key in self.objects:
            return False
        self.objects[key] = data
        return True

    async def replace(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    async def stat(self, key: str) -> int | None:
        if key in self.failing:
            raise self.failing[key]
        return len(self.objects[key]) if key in self.objects else None

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            if key in self.failing:
                raise self.failing[key]
            self.objects.pop(key, None)

    async def list(self, prefix: str, start_after: str, limit: int) -> Sequence[StoredObject]:
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > start_after)
        return [StoredObject(key, len(self.objects[key])) for key in keys[:limit]]

    async def check(self) -> None:
        """Always ready."""

    async def close(self) -> None:
        """Nothing to close."""


def identity_of(number: int) -> Identity:
    return Identity(BANK, reference_id(number), FINGERPRINT)


def key_of(number: int) -> str:
    return object_key(identity_of(number))


@pytest.fixture
def store() -> HeldStore:
    store = HeldStore()
    for number in range(64):
        store.objects[key_of(number)] = make_record(number)
    return store


def make_core(store: HeldStore, *, ram: int = 64 * MiB, reads: int = 8, in_flight: int = 64 * MiB) -> MemoryCore:
    return MemoryCore(store, RamTier(ram), Limits(reads, in_flight, 5.0))


def fetch(core: MemoryCore, *numbers: int) -> AsyncIterator[FetchedRecord]:
    return core.batch_get(BANK, FINGERPRINT, [reference_id(number) for number in numbers])


async def statuses(core: MemoryCore, *numbers: int) -> list[FetchStatus]:
    found = {item.reference_id: item.status async for item in fetch(core, *numbers)}
    return [found[reference_id(number)] for number in numbers]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_calls_at_the_same_time_share_one_read(store: HeldStore) -> None:
    core = make_core(store)
    gate = store.hold(1)
    calls = [asyncio.create_task(statuses(core, 1)) for _ in range(5)]
    await settle()
    gate.set()
    assert await asyncio.gather(*calls) == [[FetchStatus.FOUND]] * 5
    assert store.reads == [key_of(1)]


async def test_records_come_as_they_arrive_and_ram_comes_first(store: HeldStore) -> None:
    core = make_core(store)
    await statuses(core, 3)
    gate = store.hold(1)
    items = fetch(core, 1, 2, 3)
    assert (first := await anext(items)).reference_id == reference_id(3)
    assert first.tier is Tier.RAM
    assert store.reads[1:] == [], "nothing ran yet"
    assert (await anext(items)).reference_id == reference_id(2)
    gate.set()
    last = await anext(items)
    assert (last.reference_id, last.tier) == (reference_id(1), Tier.OBJECT)
    assert last.elapsed_ns >= first.elapsed_ns


async def test_reads_under_way_are_bounded_over_all_calls(store: HeldStore) -> None:
    core = make_core(store, reads=4)
    await asyncio.gather(*(statuses(core, *range(start, start + 20)) for start in (0, 20, 40)))
    assert store.most_reading == 4


async def test_bytes_in_flight_are_bounded_over_all_calls(store: HeldStore) -> None:
    core = make_core(store, in_flight=4 * MAX_RECORD_BYTES, reads=64)
    gates = [store.hold(number) for number in range(60)]
    calls = [asyncio.create_task(statuses(core, *range(start, start + 20))) for start in (0, 20, 40)]
    await settle()
    assert store.reading == 4
    assert core.bytes_in_flight == 4 * MAX_RECORD_BYTES
    for gate in gates:
        gate.set()
    assert all(status is FetchStatus.FOUND for call in await asyncio.gather(*calls) for status in call)
    assert core.bytes_in_flight == 0


async def test_a_receiver_that_leaves_takes_nothing_with_it(store: HeldStore) -> None:
    core = make_core(store)
    store.hold(2)
    items = fetch(core, *range(20))
    await anext(items)
    await items.aclose()  # type: ignore[attr-defined]
    await settle()
    assert (store.reading, core.bytes_in_flight) == (0, 0)


async def test_a_receiver_that_stalls_holds_a_bounded_number_of_records(store: HeldStore) -> None:
    core = make_core(store, reads=64, in_flight=1024 * MiB)
    items = fetch(core, *range(64))
    await anext(items)
    await settle()
    assert len(store.reads) <= 17
    await items.aclose()  # type: ignore[attr-defined]


async def test_without_room_an_item_is_unavailable_and_a_put_refused(store: HeldStore) -> None:
    core = MemoryCore(store, RamTier(0), Limits(8, 2 * MAX_RECORD_BYTES, 0.02))
    store.hold(1), store.hold(2)
    stalled = asyncio.create_task(statuses(core, 1, 2))
    await settle()
    assert await statuses(core, 3) == [FetchStatus.UNAVAILABLE]
    with pytest.raises(OverloadedError) as caught:
        await core.put(identity_of(70), make_record(70))
    assert caught.value.retry_after_ms
    stalled.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await stalled
    assert await statuses(core, 3) == [FetchStatus.FOUND]


@pytest.mark.parametrize("error", [BackendUnavailableError("down"), StorageDeniedError("no")])
async def test_a_store_that_fails_is_that_items_status(store: HeldStore, error: Exception) -> None:
    core = make_core(store)
    store.failing[key_of(2)] = error
    assert await statuses(core, 1, 2, 99) == [FetchStatus.FOUND, FetchStatus.UNAVAILABLE, FetchStatus.MISSING]
    del store.failing[key_of(2)]
    assert await statuses(core, 2) == [FetchStatus.FOUND]


async def test_a_read_that_a_delete_overtook_does_not_bring_the_record_back(store: HeldStore) -> None:
    core = make_core(store)
    gate = store.hold(1)
    reader = asyncio.create_task(statuses(core, 1))
    await settle()
    assert await core.delete(BANK, [reference_id(1)], None, whole_bank=False) == 1
    after = asyncio.create_task(statuses(core, 1))
    await settle()
    gate.set()
    assert await reader == [FetchStatus.FOUND]  # it was asked for before the delete
    assert await after == [FetchStatus.MISSING]
    assert await statuses(core, 1) == [FetchStatus.MISSING]


async def test_a_read_that_a_put_overtook_does_not_hide_the_record(store: HeldStore) -> None:
    core = make_core(store)
    gate = store.hold(70)
    reader = asyncio.create_task(statuses(core, 70))
    await settle()
    assert await core.put(identity_of(70), make_record(70))
    after = asyncio.create_task(statuses(core, 70))
    await settle()
    gate.set()
    assert (await reader, await after) == ([FetchStatus.MISSING], [FetchStatus.FOUND])


async def test_a_delete_that_fails_half_way_leaves_nothing_of_it_in_ram(store: HeldStore) -> None:
    core = make_core(store)
    await statuses(core, *range(64))
    doomed = sorted(map(key_of, range(64)))
    assert len(doomed) <= 100
    store.failing[doomed[30]] = BackendUnavailableError("down")
    with pytest.raises(BackendUnavailableError):
        await core.delete(BANK, [], None, whole_bank=True)
    gone = [identity for key in doomed[:30] if (identity := parse_key(key))]
    items = core.batch_get(BANK, FINGERPRINT, [identity.reference_id for identity in gone])
    assert {item.status async for item in items} == {FetchStatus.MISSING}


async def test_stat_and_delete_fail_as_a_whole_when_the_store_does(store: HeldStore) -> None:
    core = make_core(store)
    store.failing[key_of(2)] = BackendUnavailableError("down")
    with pytest.raises(BackendUnavailableError):
        await core.stat(BANK, FINGERPRINT, [reference_id(number) for number in range(10)])
    with pytest.raises(BackendUnavailableError):
        await core.delete(BANK, [reference_id(2)], FINGERPRINT, whole_bank=False)


async def test_objects_that_are_not_ours_are_neither_listed_nor_deleted(store: HeldStore) -> None:
    core = make_core(store)
    foreign = [f"banks/{BANK}/00/readme.txt", f"banks/{BANK}/zz/{'f' * 32}/{FINGERPRINT}.m3em", "banks/README"]
    store.objects.update(dict.fromkeys(foreign, b"mine"))
    page = await core.list(BANK, None, 1000, "")
    assert len(page.memories) == 64
    assert await core.delete(BANK, [], None, whole_bank=True) == 64
    assert sorted(store.objects) == sorted(foreign)


async def test_every_outcome_is_counted(store: HeldStore, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counter:
        def __init__(self) -> None:
            self.seen: list[tuple[int, dict[str, str]]] = []

        def add(self, amount: int, attributes: dict[str, str]) -> None:
            self.seen.append((amount, attributes))

    fetched, puts = Counter(), Counter()
    monkeypatch.setattr(core_module, "_fetched", fetched)
    monkeypatch.setattr(core_module, "_puts", puts)
    core = make_core(store)
    store.objects[key_of(1)] = b"damaged"
    store.objects[key_of(2)] = make_record(3)
    store.failing[key_of(3)] = BackendUnavailableError("down")
    await statuses(core, 0, 1, 2, 3, 99)
    await statuses(core, 0)
    assert sorted((a[semconv.ATTR_STATUS], a[semconv.ATTR_TIER]) for _, a in fetched.seen) == [
        ("corrupt", "none"), ("found", "object"), ("found", "ram"),
        ("mismatch", "none"), ("missing", "none"), ("unavailable", "none"),
    ]  # fmt: skip
    for number in (1, 2, 4, 99):
        await core.put(identity_of(number), make_record(number))
    with pytest.raises(ConflictingRecordError):
        await core.put(identity_of(4), make_record(4, seed=1))
    assert [a[semconv.ATTR_STATUS] for _, a in puts.seen] == ["healed", "healed", "equal", "created", "conflicting"]
