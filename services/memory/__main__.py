"""Composition root of the memory service: settings -> adapters -> core -> server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from opentelemetry.metrics import CallbackOptions, Observation

from memory3 import semconv, telemetry
from memory3.api.memory.v1 import memory_pb2, memory_pb2_grpc
from services.common import logs
from services.common.config import load
from services.common.server import Mount, serve_forever
from services.common.signals import end_at_sigterm
from services.memory.breaker import Breaker
from services.memory.config import FolderLocation, MemorySettings, S3Location
from services.memory.core import Limits, MemoryCore
from services.memory.folder_store import FolderStore
from services.memory.guarded_store import GuardedStore
from services.memory.ports import ObjectStore
from services.memory.ram_tier import RamTier
from services.memory.s3_store import S3ObjectStore
from services.memory.servicer import MemoryServicer

_LONGEST_PAUSE_S = 10.0


def make_store(settings: MemorySettings, location: FolderLocation | S3Location) -> ObjectStore:
    """The store that the settings name; it need not be reachable yet."""
    if isinstance(location, FolderLocation):
        return FolderStore(location.folder, threads=settings.folder_threads)
    return S3ObjectStore(location, *settings.s3_keys, timeout_s=settings.write_timeout_seconds, ca=settings.s3_ca)


def mounts(core: MemoryCore) -> list[Mount]:
    """The service on its core."""
    name = memory_pb2.DESCRIPTOR.services_by_name["MemoryService"].full_name
    return [Mount(memory_pb2_grpc.add_MemoryServiceServicer_to_server, MemoryServicer(core), name)]


def observe(ram: RamTier, core: MemoryCore, breaker: Breaker) -> None:
    """Export what is held at the moment of each collection."""

    def gauge(metric: tuple[str, str, str], read: Callable[[], int]) -> None:
        def observed(_: CallbackOptions) -> list[Observation]:
            return [Observation(read())]

        name, unit, meaning = metric
        telemetry.meter.create_observable_gauge(name, [observed], unit, meaning)

    gauge(semconv.METRIC_RAM_BYTES, lambda: ram.size_bytes)
    gauge(semconv.METRIC_RAM_LIMIT, lambda: ram.capacity_bytes)
    gauge(semconv.METRIC_IN_FLIGHT_BYTES, lambda: core.bytes_in_flight)
    gauge(semconv.METRIC_IN_FLIGHT_LIMIT, lambda: core.most_bytes_in_flight)
    gauge(semconv.METRIC_STORE_DOWN, lambda: int(breaker.is_open))


@contextlib.asynccontextmanager
async def open_core(
    settings: MemorySettings, backend: ObjectStore
) -> AsyncGenerator[tuple[MemoryCore, Callable[[], Awaitable[None]]], None]:
    """The core on this store, and what checks that it can be used; the store is closed at the end of the block."""
    breaker = Breaker(
        failures_to_open=settings.breaker_failures,
        first_pause_s=settings.breaker_pause_seconds,
        longest_pause_s=_LONGEST_PAUSE_S,
    )
    store = GuardedStore(
        backend,
        breaker,
        read_timeout_s=settings.read_timeout_seconds,
        write_timeout_s=settings.write_timeout_seconds,
    )
    ram = RamTier(settings.ram_bytes)
    bounds = Limits(settings.max_parallel_reads, settings.max_bytes_in_flight, settings.queue_timeout_seconds)
    core = MemoryCore(store, ram, bounds)
    observe(ram, core, breaker)
    try:
        yield core, store.check
    finally:
        await store.close()


async def serve(settings: MemorySettings, backend: ObjectStore) -> None:
    """Serve until the process is told to stop."""
    async with open_core(settings, backend) as (core, check):
        await serve_forever(settings, mounts(core), [check])


def main() -> None:
    """Entry point of `python -m services.memory`."""
    end_at_sigterm()
    settings = load(MemorySettings)
    try:
        location = settings.location
    except ValueError as error:
        raise SystemExit(f"MEMORY3_MEMORY_STORE_URI {error}") from error
    logs.start(semconv.SERVICE_MEMORY, settings.log_level)
    stop_telemetry = telemetry.start(semconv.SERVICE_MEMORY)
    try:
        asyncio.run(serve(settings, make_store(settings, location)))
    finally:
        stop_telemetry()


if __name__ == "__main__":
    main()
