"""Which S3 client for the data path: MinIO's SDK or obstore? GET and PUT of 100 KB objects against SeaweedFS.

    python -m bench.store_clients [--objects 400] [--rounds 5]

Both are called as a service would: awaited on one event loop (the SDK in a thread pool of the size of the concurrency).
Rounds of the two alternate; a rate is the median over rounds, with the least and the greatest. Client and server share
this machine's cores. CPU is that of the client's process, per operation.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import minio
import obstore
import urllib3
from obstore.store import S3Store

from bench.machine import heading
from tests.helpers.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, s3_server

SIZE_BYTES = 100_000
BUCKET = "bench"
CONCURRENCIES = (1, 8, 32)


class Client(Protocol):
    """One way to read and write objects."""

    async def get(self, key: str) -> int: ...

    async def put(self, key: str, data: bytes) -> None: ...


class MinioClient:
    """MinIO's SDK in threads."""

    def __init__(self, server: S3Server, concurrency: int) -> None:
        self._pool = ThreadPoolExecutor(concurrency)
        self._client = minio.Minio(
            server.endpoint.removeprefix("http://"),
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            secure=False,
            region="us-east-1",
            http_client=urllib3.PoolManager(maxsize=concurrency, retries=False),
        )

    async def get(self, key: str) -> int:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._get, key)

    async def put(self, key: str, data: bytes) -> None:
        await asyncio.get_running_loop().run_in_executor(self._pool, self._put, key, data)

    def _get(self, key: str) -> int:
        response = self._client.get_object(bucket_name=BUCKET, object_name=key)
        try:
            return len(response.read())
        finally:
            response.close()
            response.release_conn()

    def _put(self, key: str, data: bytes) -> None:
        self._client.put_object(bucket_name=BUCKET, object_name=key, data=io.BytesIO(data), length=len(data))


class ObstoreClient:
    """obstore's asyncio calls, with the conditional put that the memory tier uses."""

    def __init__(self, server: S3Server, _: int) -> None:
        self._store: Any = S3Store(
            BUCKET,
            endpoint=server.endpoint,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    async def get(self, key: str) -> int:
        answer = await obstore.get_async(self._store, key)
        return len((await answer.bytes_async()).to_bytes())

    async def put(self, key: str, data: bytes) -> None:
        await obstore.put_async(self._store, key, data, mode="create", use_multipart=False)


CLIENTS: dict[str, Callable[[S3Server, int], Client]] = {"minio": MinioClient, "obstore": ObstoreClient}


@dataclass
class Sample:
    """What the rounds of one client, operation and concurrency gave."""

    rates: list[float] = field(default_factory=list)  # operations per second, one a round
    latencies_ms: list[float] = field(default_factory=list)  # one an operation
    cpu_s: float = 0.0


async def measure(sample: Sample, call: Callable[[int], Awaitable[object]], count: int, concurrency: int) -> None:
    """Run `count` calls, `concurrency` at a time."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            started = time.perf_counter()
            await call(number)
            sample.latencies_ms.append((time.perf_counter() - started) * 1000)

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    sample.rates.append(count / (time.perf_counter() - started))
    sample.cpu_s += time.process_time() - cpu


def putting(client: Client, prefix: str, data: bytes) -> Callable[[int], Awaitable[None]]:
    """Puts object `number`."""
    return lambda number: client.put(f"{prefix}/{number}", data)


def getting(client: Client, prefix: str) -> Callable[[int], Awaitable[None]]:
    """Gets object `number` and looks at its length."""

    async def get(number: int) -> None:
        assert await client.get(f"{prefix}/{number}") == SIZE_BYTES

    return get


async def run(server: S3Server, count: int, rounds: int) -> dict[tuple[str, int, str], Sample]:
    """All rounds of all clients, alternating."""
    samples: dict[tuple[str, int, str], Sample] = {}
    data = os.urandom(SIZE_BYTES)
    for concurrency in CONCURRENCIES:
        clients = {name: make(server, concurrency) for name, make in CLIENTS.items()}
        for turn in range(-1, rounds):  # the first turn warms up
            for name, client in clients.items():
                prefix = f"{concurrency}/{name}/{turn}"
                for operation, call in (("PUT", putting(client, prefix, data)), ("GET", getting(client, prefix))):
                    sample = Sample() if turn < 0 else samples.setdefault((operation, concurrency, name), Sample())
                    await measure(sample, call, count, concurrency)
    return samples


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=300, help="operations in one round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(heading())
    print(f"{SIZE_BYTES} byte objects, {options.rounds} rounds of {options.objects} operations, SeaweedFS beside it\n")
    with s3_server() as server:
        server.admin().make_bucket(bucket_name=BUCKET)
        samples = asyncio.run(run(server, options.objects, options.rounds))
    print("| operation | at once | client | ops/s: median (least-greatest) | p50 ms | p95 ms | client CPU ms/op |")
    print("|---|---|---|---|---|---|---|")
    for (operation, concurrency, name), sample in sorted(samples.items()):
        quantiles = statistics.quantiles(sample.latencies_ms, n=20)
        print(
            f"| {operation} | {concurrency} | {name} | {statistics.median(sample.rates):.0f} "
            f"({min(sample.rates):.0f}-{max(sample.rates):.0f}) | {quantiles[9]:.2f} | {quantiles[18]:.2f} "
            f"| {sample.cpu_s / len(sample.latencies_ms) * 1000:.2f} |"
        )


if __name__ == "__main__":
    main()
