"""Fetch of five memories, as one recall does it: from the RAM tier, from a folder, from S3, and a bare GET beside it.

    python -m bench.fetch_memories [--repeats 300]

Arms are interleaved; every repeat runs each arm once. Through the service a time is that of one BatchGet, from the call
to the last record, in a client process of its own on the same machine. The bare arm gets the same five objects from
the same SeaweedFS with obstore, all at once, without gRPC, verification or service. The sets of five rotate over 200
records, so that the arms without RAM tier read other objects each time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store

from bench.machine import heading
from memory3.memory import MemoryClient
from memory3.types import FetchStatus, Tier
from services.memory.layout import Identity, object_key
from tests.helpers.memory_records import FINGERPRINT, make_record, reference_id
from tests.helpers.processes import ServiceProcess, service_process
from tests.helpers.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, s3_server

BANK, BUCKET = "bench", "memory3"
NUM_RECORDS, AT_ONCE = 200, 5
SIZES = (12_164, 48_138)
"""Of the records of the shipped plan, with the codecs `trellis` and `int8`."""
Fetch = Callable[[Sequence[int]], Awaitable[None]]


def through_service(client: MemoryClient, tier: Tier) -> Fetch:
    """One BatchGet; all must be found, in that tier."""

    async def fetch(numbers: Sequence[int]) -> None:
        ids = [reference_id(number) for number in numbers]
        items = [item async for item in client.batch_get(BANK, FINGERPRINT, ids)]
        assert [(item.status, item.tier) for item in items] == [(FetchStatus.FOUND, tier)] * len(numbers)

    return fetch


def bare(server: S3Server) -> Fetch:
    """The same objects with obstore alone."""
    store: Any = S3Store(
        BUCKET,
        endpoint=server.endpoint,
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    async def get(number: int) -> bytes:
        key = object_key(Identity(BANK, reference_id(number), FINGERPRINT))
        return bytes((await (await obstore.get_async(store, key)).bytes_async()).to_bytes())

    async def fetch(numbers: Sequence[int]) -> None:
        assert all(await asyncio.gather(*map(get, numbers)))

    return fetch


async def measure(arms: dict[str, Fetch], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each fetch, by arm; the first tenth is warm-up."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(-repeats // 10, repeats):
        numbers = [(repeat * AT_ONCE + offset) % NUM_RECORDS for offset in range(AT_ONCE)]
        for name, fetch in arms.items():
            started = time.perf_counter()
            await fetch(numbers)
            if repeat >= 0:
                times[name].append((time.perf_counter() - started) * 1000)
    return times


@contextlib.contextmanager
def services(folder: Path, server: S3Server) -> Iterator[dict[str, ServiceProcess]]:
    """One service a tier."""
    s3 = {
        "MEMORY3_MEMORY_STORE_URI": server.uri(BUCKET),
        "MEMORY3_MEMORY_S3_ACCESS_KEY": ACCESS_KEY,
        "MEMORY3_MEMORY_S3_SECRET_KEY": SECRET_KEY,
    }
    local = {"MEMORY3_MEMORY_STORE_URI": str(folder / "memories")}
    no_ram = {"MEMORY3_MEMORY_RAM_BYTES": "0"}
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(
                service_process("services.memory", {"MEMORY3_MEMORY_PORT": "0", **env}, folder / f"{name}.log")
            )
            for name, env in {"ram": s3, "s3": {**s3, **no_ram}, "folder": {**local, **no_ram}}.items()
        }


async def run(size: int, folder: Path, server: S3Server, repeats: int) -> dict[str, list[float]]:
    """Store the records, then measure all arms."""
    with services(folder, server) as running:
        async with contextlib.AsyncExitStack() as stack:
            clients = {
                name: await stack.enter_async_context(MemoryClient(process.address))
                for name, process in running.items()
            }
            for number in range(NUM_RECORDS):
                record = make_record(number, payload_bytes=size)
                await clients["s3"].put(BANK, reference_id(number), FINGERPRINT, record)
                await clients["folder"].put(BANK, reference_id(number), FINGERPRINT, record)
            await through_service(clients["ram"], Tier.OBJECT)(range(NUM_RECORDS))
            return await measure(
                {
                    "service, RAM tier": through_service(clients["ram"], Tier.RAM),
                    "service, folder": through_service(clients["folder"], Tier.OBJECT),
                    "service, S3": through_service(clients["s3"], Tier.OBJECT),
                    "bare obstore GET, S3": bare(server),
                },
                repeats,
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=300)
    options = parser.parse_args()
    print(heading())
    print(f"fetch of {AT_ONCE} memories, {options.repeats} repeats of each arm, interleaved\n")
    print("| bytes of one | arm | p50 ms | p95 ms | least-greatest ms | n |")
    print("|---|---|---|---|---|---|")
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder, s3_server() as server:
            times = asyncio.run(run(size, Path(folder), server, options.repeats))
        for name, values in times.items():
            quantiles = statistics.quantiles(values, n=20)
            print(
                f"| {size} | {name} | {quantiles[9]:.2f} | {quantiles[18]:.2f} "
                f"| {min(values):.2f}-{max(values):.2f} | {len(values)} |"
            )


if __name__ == "__main__":
    main()
