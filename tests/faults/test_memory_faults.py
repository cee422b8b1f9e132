"""The memory service as a process, and what befalls it: kill -9 during puts, full and read-only disks, S3 that dies.

A kill of the process keeps what the kernel has; that files and folders are synced before a put is answered, for the
power cut, is asserted in tests/unit/services/memory/test_folder_store.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memory3.errors import BackendUnavailableError, Memory3Error, StorageDeniedError, StorageFullError
from memory3.memory import MemoryClient
from memory3.types import FetchStatus, Tier
from services.memory.layout import Identity, object_key
from tests.helpers.memory_records import FINGERPRINT, make_record, reference_id
from tests.helpers.processes import ServiceProcess
from tests.helpers.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, s3_server
from tests.helpers.small_disk import remount, small_disk

BANK = "notes"
PAYLOAD_BYTES = 60_000


@contextlib.contextmanager
def memory_service(
    tmp_path: Path, store_uri: str, *, wait_serving: bool = True, **settings: object
) -> Iterator[ServiceProcess]:
    env = {f"MEMORY3_MEMORY_{name.upper()}": str(value) for name, value in settings.items()}
    env |= {"MEMORY3_MEMORY_PORT": "0", "MEMORY3_MEMORY_STORE_URI": store_uri}
    process = ServiceProcess("services.memory", env, tmp_path / "memory.log")
    try:
        process.start(wait_serving=wait_serving)
        yield process
    finally:
        process.stop(timeout_s=5)


def with_s3(
    tmp_path: Path, server: S3Server, bucket: str, **settings: object
) -> contextlib.AbstractContextManager[ServiceProcess]:
    keys = {"s3_access_key": ACCESS_KEY, "s3_secret_key": SECRET_KEY}
    quick = {
        "read_timeout_seconds": 0.5,
        "write_timeout_seconds": 5,
        "breaker_failures": 3,
        "breaker_pause_seconds": 0.1,
    }
    return memory_service(tmp_path, server.uri(bucket), **{**keys, **quick, **settings})


async def put(client: MemoryClient, number: int) -> bool:
    record = make_record(number, payload_bytes=PAYLOAD_BYTES)
    return await client.put(BANK, reference_id(number), FINGERPRINT, record, timeout=20)


async def statuses(client: MemoryClient, *numbers: int) -> list[FetchStatus]:
    ids = [reference_id(number) for number in numbers]
    found = {}
    async for item in client.batch_get(BANK, FINGERPRINT, ids):
        found[item.reference_id] = item
    for number in numbers:
        item = found[reference_id(number)]
        expected = make_record(number, payload_bytes=PAYLOAD_BYTES) if item.status is FetchStatus.FOUND else b""
        assert item.record == expected
    return [found[reference_id(number)].status for number in numbers]


async def is_serving(address: str) -> bool:
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline, "it does not come true"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("acknowledged", [1, 20, 60])
async def test_kill_during_puts_loses_nothing_acknowledged_and_shows_nothing_half_written(
    tmp_path: Path, acknowledged: int
) -> None:
    folder = tmp_path / "memories"
    done: set[int] = set()
    with memory_service(tmp_path, str(folder)) as service:
        enough = asyncio.Event()

        async def put_some(numbers: range, client: MemoryClient) -> None:
            with contextlib.suppress(Memory3Error):
                for number in numbers:
                    await put(client, number)
                    done.add(number)
                    if len(done) >= acknowledged:
                        enough.set()

        async with MemoryClient(service.address, retry=False) as client:
            writers = [asyncio.create_task(put_some(range(start, 800, 8), client)) for start in range(8)]
            async with asyncio.timeout(60):
                await enough.wait()
            service.kill()
            await asyncio.gather(*writers)
        assert acknowledged <= len(done) < 800
        service.start()
        async with MemoryClient(service.address) as client:
            found = await statuses(client, *range(800))
            assert all(found[number] is FetchStatus.FOUND for number in done)
            assert set(found) <= {FetchStatus.FOUND, FetchStatus.MISSING}
            listed = {entry.reference_id async for entry in client.list(BANK)}
            assert listed == {reference_id(n) for n, status in enumerate(found) if status is FetchStatus.FOUND}
            assert await asyncio.gather(*(put(client, number) for number in range(20))) == [
                status is FetchStatus.MISSING for status in found[:20]
            ]
    assert list((folder / ".incoming").iterdir()) == []


async def test_a_flipped_byte_is_noticed_after_a_restart_too(tmp_path: Path) -> None:
    folder = tmp_path / "memories"
    with memory_service(tmp_path, str(folder)) as service:
        async with MemoryClient(service.address) as client:
            await asyncio.gather(put(client, 1), put(client, 2))
            file = folder / object_key(Identity(BANK, reference_id(1), FINGERPRINT))
            data = bytearray(file.read_bytes())
            data[PAYLOAD_BYTES // 2] ^= 1
            file.write_bytes(data)
            assert await statuses(client, 1, 2) == [FetchStatus.CORRUPT, FetchStatus.FOUND]
        service.kill()
        service.start()
        async with MemoryClient(service.address) as client:
            assert await statuses(client, 1, 2) == [FetchStatus.CORRUPT, FetchStatus.FOUND]
            assert await put(client, 1)
            assert await statuses(client, 1, 2) == [FetchStatus.FOUND, FetchStatus.FOUND]


async def test_a_ram_tier_smaller_than_a_record_serves_from_the_store(tmp_path: Path) -> None:
    with memory_service(tmp_path, str(tmp_path / "memories"), ram_bytes=PAYLOAD_BYTES) as service:
        async with MemoryClient(service.address) as client:
            await put(client, 1)
            for _ in range(3):
                items = [item async for item in client.batch_get(BANK, FINGERPRINT, [reference_id(1)])]
                assert [(item.status, item.tier) for item in items] == [(FetchStatus.FOUND, Tier.OBJECT)]


async def test_a_full_disk_refuses_puts_and_serves_reads_until_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "1m"), memory_service(tmp_path, str(disk / "memories"), ram_bytes=0) as service:
        async with MemoryClient(service.address) as client:
            stored: list[int] = []

            async def fill() -> None:
                for number in range(40):
                    await put(client, number)
                    stored.append(number)

            with pytest.raises(StorageFullError, match="free space"):
                await fill()
            assert 5 < len(stored) < 18
            assert set(await statuses(client, *stored)) == {FetchStatus.FOUND}
            assert await statuses(client, len(stored)) == [FetchStatus.MISSING]
            assert await is_serving(service.address)
            assert await client.delete(BANK, [reference_id(number) for number in stored[:3]]) == 3
            assert await put(client, len(stored))
            assert await statuses(client, len(stored)) == [FetchStatus.FOUND]


async def test_a_read_only_disk_refuses_puts_and_serves_reads_until_it_can_be_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "4m"), memory_service(tmp_path, str(disk / "memories"), ram_bytes=0) as service:
        async with MemoryClient(service.address) as client:
            await put(client, 1)
            remount(disk, "ro")
            for _ in range(8):  # more than open the breaker
                with pytest.raises(StorageDeniedError):
                    await put(client, 2)
            with pytest.raises(StorageDeniedError):
                await client.delete(BANK, whole_bank=True)
            assert await statuses(client, 1, 2) == [FetchStatus.FOUND, FetchStatus.MISSING]
            remount(disk, "rw")
            assert await put(client, 2)


async def test_a_folder_that_cannot_be_made_is_not_serving_until_it_can(tmp_path: Path) -> None:
    in_the_way = tmp_path / "data"
    in_the_way.write_bytes(b"")
    with memory_service(tmp_path, str(in_the_way / "memories"), wait_serving=False) as service:
        assert not await is_serving(service.address)
        async with MemoryClient(service.address, retry=False) as client:
            with pytest.raises(BackendUnavailableError):
                await put(client, 1)
            in_the_way.unlink()
            await until(lambda: is_serving(service.address))

            async def is_put() -> bool:
                with contextlib.suppress(BackendUnavailableError):
                    await put(client, 1)
                    return True
                return False

            await until(is_put)
            assert await statuses(client, 1) == [FetchStatus.FOUND]


@pytest.mark.s3
async def test_s3_that_dies_and_comes_back_is_survived_without_a_restart(tmp_path: Path) -> None:
    with s3_server() as server, with_s3(tmp_path, server, "mortal") as service:
        async with MemoryClient(service.address, retry=False) as client:
            for number in range(6):
                assert await put(client, number)
            assert set(await statuses(client, 0, 1)) == {FetchStatus.FOUND}  # these are in RAM now
            server.kill()
            unavailable = [FetchStatus.UNAVAILABLE] * 4
            assert await statuses(client, *range(6)) == [FetchStatus.FOUND] * 2 + unavailable
            with pytest.raises(BackendUnavailableError):
                await put(client, 9)
            with pytest.raises(BackendUnavailableError):
                await client.stat(BANK, FINGERPRINT, [reference_id(1)])
            await until(lambda: _all(client, range(6), [FetchStatus.FOUND] * 2 + unavailable))
            server.start()

            async def is_back() -> bool:
                return set(await statuses(client, *range(6))) == {FetchStatus.FOUND}

            await until(is_back)
            assert await put(client, 9)
            await until(lambda: is_serving(service.address))
        assert "the object store is taken as down" in service.log
        assert "the object store answers again" in service.log
        assert SECRET_KEY not in service.log


@pytest.mark.s3
async def test_s3_that_hangs_costs_its_time_limit_once_and_then_nothing(tmp_path: Path) -> None:
    with s3_server() as server, with_s3(tmp_path, server, "sleepy", ram_bytes=0, breaker_pause_seconds=60) as service:
        async with MemoryClient(service.address, retry=False) as client:
            for number in range(6):
                await put(client, number)
            assert set(await statuses(client, *range(6))) == {FetchStatus.FOUND}
            server.pause()
            try:
                started = time.monotonic()
                assert set(await statuses(client, *range(6))) == {FetchStatus.UNAVAILABLE}
                first_s = time.monotonic() - started
                assert 0.4 < first_s < 5
                started = time.monotonic()
                for _ in range(10):
                    assert set(await statuses(client, *range(6))) == {FetchStatus.UNAVAILABLE}
                assert time.monotonic() - started < first_s * 5, "each call paid the time limit again"
            finally:
                server.resume()


@pytest.mark.s3
async def test_a_service_that_starts_before_its_s3_serves_when_that_comes(tmp_path: Path) -> None:
    with s3_server() as server:
        server.kill()
        with with_s3(tmp_path, server, "late", wait_serving=False) as service:
            assert not await is_serving(service.address)
            async with MemoryClient(service.address, retry=False) as client:
                assert await statuses(client, 1) == [FetchStatus.UNAVAILABLE]
                server.start()
                await until(lambda: is_serving(service.address))
                assert server.admin().bucket_exists(bucket_name="late")
                await until(lambda: _all(client, range(1, 2), [FetchStatus.MISSING]))
                assert await put(client, 1)
                assert await statuses(client, 1) == [FetchStatus.FOUND]


async def _all(client: MemoryClient, numbers: range, expected: list[FetchStatus]) -> bool:
    return await statuses(client, *numbers) == expected


def test_keys_in_the_uri_end_the_start_without_being_printed(tmp_path: Path) -> None:
    uri = "s3://key:very-secret@bucket"
    process = ServiceProcess("services.memory", {"MEMORY3_MEMORY_STORE_URI": uri}, tmp_path / "memory.log")
    with pytest.raises(AssertionError, match="ended with 1"):
        process.start()
    assert "MEMORY3_MEMORY_S3_SECRET_KEY" in process.log
    assert "very-secret" not in process.log
    process.stop()
