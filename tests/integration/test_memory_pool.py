"""MemoryPool over real servers: RAM that adds up, pods that come, go, hang and come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from memory3.errors import BackendUnavailableError, ConflictingRecordError
from memory3.health import is_serving
from memory3.memory import MemoryClient
from memory3.memory_pool import MemoryPool, open_memory
from memory3.rendezvous import ranked
from memory3.types import FetchStatus, Tier
from services.common.config import ServerSettings
from services.common.server import running_server
from services.memory.__main__ import mounts
from services.memory.core import Limits, MemoryCore
from services.memory.folder_store import FolderStore
from services.memory.ram_tier import RamTier
from tests.helpers.memory_records import FINGERPRINT, make_record, reference_id

BANK = "notes"
IDS = [reference_id(number) for number in range(40)]
MiB = 1024 * 1024


@dataclass
class Pods:
    """Memory servers on one store, each with a RAM tier of its own; and what a look-up of their name answers."""

    folder: Path
    listed: list[str] = field(default_factory=list)
    rams: dict[str, RamTier] = field(default_factory=dict)
    _stacks: dict[str, contextlib.AsyncExitStack] = field(default_factory=dict)

    async def start(self, port: int = 0) -> str:
        stack = contextlib.AsyncExitStack()
        store = FolderStore(self.folder, threads=2)
        await store.check()
        stack.push_async_callback(store.close)
        ram = RamTier(8 * MiB)
        core = MemoryCore(store, ram, Limits(8, 64 * MiB, 2.0))
        settings = ServerSettings(port=port, drain_seconds=0)
        server = await stack.enter_async_context(running_server(settings, mounts(core)))
        self.rams[server.address], self._stacks[server.address] = ram, stack
        return server.address

    async def stop(self, address: str) -> None:
        await self._stacks.pop(address).aclose()
        del self.rams[address]

    async def stop_all(self) -> None:
        for address in list(self._stacks):
            await self.stop(address)

    async def resolve(self, host: str, port: int) -> list[str]:
        assert (host, port) == ("pods.test", 7302)
        if not self.listed:
            raise OSError("no such host")
        return list(self.listed)

    def pool(self) -> MemoryPool:
        # Old at once: each call looks the name up again, in the background.
        return MemoryPool("pods.test:7302", retry=False, resolve=self.resolve, refresh_s=0)


@pytest.fixture
async def pods(tmp_path: Path) -> AsyncIterator[Pods]:
    there = Pods(tmp_path / "memories")
    for _ in range(3):
        there.listed.append(await there.start())
    yield there
    await there.stop_all()


@pytest.fixture
async def pool(pods: Pods) -> AsyncIterator[MemoryPool]:
    async with pods.pool() as client:
        for number, identifier in enumerate(IDS):
            await client.put(BANK, identifier, FINGERPRINT, make_record(number))
        yield client


async def tiers(client: MemoryClient) -> dict[str, Tier]:
    """All records fetched: which tier each came from."""
    items = [item async for item in client.batch_get(BANK, FINGERPRINT, IDS)]
    assert {item.status for item in items} == {FetchStatus.FOUND}
    assert sorted(item.reference_id for item in items) == sorted(IDS)
    return {item.reference_id: item.tier for item in items}


async def until_known(client: MemoryPool, pods: Pods) -> None:
    """Wait until the pool has the addresses that are listed."""
    async with asyncio.timeout(10):
        while set(client._pods) != set(pods.listed):
            await client.stat(BANK, FINGERPRINT, IDS[:1])
            await asyncio.sleep(0.01)


async def test_the_ram_of_the_pods_adds_up(pods: Pods, pool: MemoryPool) -> None:
    assert set((await tiers(pool)).values()) == {Tier.OBJECT}
    assert set((await tiers(pool)).values()) == {Tier.RAM}
    held = [ram.size_bytes for ram in pods.rams.values()]
    assert all(held), "each pod has its share"
    once = sum(len(make_record(number)) for number in range(len(IDS)))
    assert sum(held) < 1.5 * once, "no record lies in two pods"


async def test_a_pod_that_comes_takes_only_its_share(pods: Pods, pool: MemoryPool) -> None:
    await tiers(pool)
    pods.listed.append(await pods.start())
    await until_known(pool, pods)
    moved = {identifier for identifier, tier in (await tiers(pool)).items() if tier is Tier.OBJECT}
    assert moved == {identifier for identifier in IDS if ranked(identifier, pods.listed)[0] == pods.listed[-1]}
    assert set((await tiers(pool)).values()) == {Tier.RAM}


async def test_a_pod_that_leaves_gives_up_only_its_share(pods: Pods, pool: MemoryPool) -> None:
    await tiers(pool)
    gone = pods.listed.pop()
    await until_known(pool, pods)
    moved = {identifier for identifier, tier in (await tiers(pool)).items() if tier is Tier.OBJECT}
    assert moved == {identifier for identifier in IDS if ranked(identifier, [*pods.listed, gone])[0] == gone}


async def test_two_clients_share_keys_out_alike(pods: Pods, pool: MemoryPool) -> None:
    await tiers(pool)
    async with pods.pool() as other:
        assert set((await tiers(other)).values()) == {Tier.RAM}


async def test_what_a_dead_pod_owned_is_read_from_the_next(pods: Pods, pool: MemoryPool) -> None:
    await tiers(pool)
    dead = pods.listed[0]
    await pods.stop(dead)  # still listed: the name server has not noticed
    lost = {identifier for identifier in IDS if ranked(identifier, pods.listed)[0] == dead}
    assert lost
    assert {identifier for identifier, tier in (await tiers(pool)).items() if tier is Tier.OBJECT} == lost
    assert set((await tiers(pool)).values()) == {Tier.RAM}, "its stand-ins keep what they read"
    assert await pool.put(BANK, next(iter(lost)), FINGERPRINT, make_record(IDS.index(next(iter(lost))))) is False


async def test_a_pod_that_comes_back_gets_its_keys_back(
    pods: Pods, pool: MemoryPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory3.memory_pool._GONE_S", 0.0)
    dead = pods.listed[0]
    await pods.stop(dead)
    await tiers(pool)
    assert await pods.start(int(dead.rpartition(":")[2])) == dead
    async with asyncio.timeout(20):
        while not pods.rams[dead].size_bytes:
            await tiers(pool)


async def test_errors_of_a_pod_are_its_answer(pool: MemoryPool) -> None:
    with pytest.raises(ConflictingRecordError):
        await pool.put(BANK, IDS[0], FINGERPRINT, make_record(0, seed=1))


async def test_a_delete_reaches_every_pod(pods: Pods, pool: MemoryPool) -> None:
    await tiers(pool)
    for address in pods.listed:  # as after a time with other owners: every pod holds every record
        async with MemoryClient(address) as direct:
            await tiers(direct)
    assert await pool.delete(BANK, IDS) == len(IDS)
    for address in pods.listed:
        async with MemoryClient(address) as direct:
            items = [item async for item in direct.batch_get(BANK, FINGERPRINT, IDS)]
        assert {item.status for item in items} == {FetchStatus.MISSING}


async def test_a_list_is_whole(pool: MemoryPool) -> None:
    assert sorted([entry.reference_id async for entry in pool.list(BANK, page_size=7)]) == sorted(IDS)


async def test_all_pods_away_is_said_so(pods: Pods, pool: MemoryPool) -> None:
    await pods.stop_all()
    with pytest.raises(BackendUnavailableError):
        await tiers(pool)
    with pytest.raises(BackendUnavailableError):
        await pool.delete(BANK, IDS)


async def test_a_name_without_an_address_is_named(pods: Pods) -> None:
    pods.listed.clear()
    async with pods.pool() as lost:
        with pytest.raises(BackendUnavailableError, match=r"pods\.test"):
            await lost.stat(BANK, FINGERPRINT, IDS)


async def test_a_name_server_that_fails_for_a_while_changes_nothing(pods: Pods, pool: MemoryPool) -> None:
    await tiers(pool)
    pods.listed.clear()
    for _ in range(3):
        assert set((await tiers(pool)).values()) == {Tier.RAM}


async def test_a_fetch_that_is_left_frees_its_calls(pool: MemoryPool) -> None:
    items = pool.batch_get(BANK, FINGERPRINT, IDS)
    await anext(items)
    await items.aclose()
    assert {pod.calls for pod in pool._pods.values()} == {0}


async def test_the_address_chooses_the_client(pods: Pods) -> None:
    host, _, port = pods.listed[0].rpartition(":")
    async with open_memory(pods.listed[0]) as one, open_memory(f"rendezvous:{host}:{port}") as shared:
        assert type(one) is MemoryClient
        assert isinstance(shared, MemoryPool)
        assert await is_serving(shared)
        assert await shared.put(BANK, IDS[0], FINGERPRINT, make_record(0)) is True
