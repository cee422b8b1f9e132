"""What replicas of the memory tier bring: RAM that adds up, so that more is found there and less is read from S3.

    python -m bench.memory_replicas --repeats 5

One bank lies in SeaweedFS. RAM of one replica holds a part of it (--ram-share), so three hold nearly all, if each is
asked for its own records: that is what clients do at an address rendezvous:host:port (memory3/memory_pool.py). Arms,
each of its own server processes, all up at once, asked in an order that rotates:

    1, 2, 3           so many replicas, records shared out by rendezvous hashing
    3, any is asked   three replicas, each call goes whole to the next one, as behind a plain load balancer

A round is --requests calls of BatchGet for five different memories each, a few at once, the same for all arms.
Popularity: "zipf" asks for the memory of rank i in proportion to 1/i, "even" for all alike. Replicas start empty for
each; rounds of warm-up do not count.

The hit ratio is the share of memories that came from RAM. "At best": what a cache that always holds the most popular
would reach with that much RAM. Bytes from S3 are what the S3 server says it has sent. CPU is that of the replicas.
memories/s and MB/s are those of one client, which shares the cores with the replicas and the store: where all of them
run on two cores more replicas cannot be faster, but for the reads that they save. Spread is [lower quartile-upper
quartile] over rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bench.cpu import cpu_s
from bench.generation import quartiles
from bench.machine import heading
from memory3.memory import MemoryClient
from memory3.memory_pool import MemoryPool
from memory3.types import FetchedRecord, FetchStatus, Tier
from services.memory.ram_tier import ENTRY_OVERHEAD_BYTES
from services.planning.popularity import Popularity
from tests.helpers.memory_records import FINGERPRINT, make_record, reference_id
from tests.helpers.processes import ServiceProcess
from tests.helpers.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, s3_server

BANK, BUCKET = "bench", "memory3"
PER_CALL = 5
ARMS = {"1": 1, "2": 2, "3": 3, "3, any is asked": 3}
"""Name and number of replicas."""
ANY = "any"
"""In the name of an arm whose calls go to any replica."""
POPULARITIES = {"zipf": 1.0, "even": 0.0}
"""Name and Zipf's exponent."""
_SETTLED_S = 0.05


@dataclass(frozen=True)
class Size:
    """What is stored and asked."""

    records: int
    payload_bytes: int
    ram_share: float
    requests: int
    at_once: int
    warm_up: int
    repeats: int

    @property
    def record_bytes(self) -> int:
        return len(make_record(0, payload_bytes=self.payload_bytes))

    @property
    def ram_bytes(self) -> int:
        """Of one replica."""
        return int(self.ram_share * self.records * (self.record_bytes + ENTRY_OVERHEAD_BYTES))

    def at_best(self, replicas: int, exponent: float) -> float:
        """Hit ratio of a cache of that much RAM that always holds the most popular."""
        return Popularity(self.records, exponent).most_popular_share(replicas * self.ram_share * self.records)


@dataclass
class Sample:
    """One arm, a figure for each round."""

    hit_ratio: list[float] = field(default_factory=list)
    s3_bytes: list[float] = field(default_factory=list)
    memories_s: list[float] = field(default_factory=list)
    bytes_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    """Of the replicas, a memory."""
    calls_ms: list[float] = field(default_factory=list)
    """One for each call."""


class AnyReplica:
    """Each call goes whole to the next replica."""

    def __init__(self, clients: Sequence[MemoryClient]) -> None:
        self._next = itertools.cycle(clients)

    def batch_get(
        self, bank: str, model_fingerprint: str, reference_ids: Sequence[str]
    ) -> AsyncGenerator[FetchedRecord, None]:
        return next(self._next).batch_get(bank, model_fingerprint, reference_ids)


Client = MemoryClient | AnyReplica


def draw(size: Size, exponent: float, seed: str) -> list[list[str]]:
    """The calls of one round: ids, different ones in a call."""
    source = random.Random(seed)
    totals = list(itertools.accumulate(rank**-exponent for rank in range(1, size.records + 1)))
    calls = []
    for _ in range(size.requests):
        numbers: dict[int, None] = {}
        while len(numbers) < min(PER_CALL, size.records):
            numbers[source.choices(range(size.records), cum_weights=totals)[0]] = None
        calls.append([reference_id(number) for number in numbers])
    return calls


@dataclass
class Fetched:
    """What the calls of one round brought."""

    memories: int = 0
    from_ram: int = 0
    num_bytes: int = 0
    calls_ms: list[float] = field(default_factory=list)


async def fetch(client: Client, calls: Sequence[Sequence[str]], at_once: int) -> Fetched:
    """All calls, so many at once."""
    fetched = Fetched()
    waiting = iter(calls)

    async def one_after_the_other() -> None:
        for ids in waiting:
            began = time.perf_counter()
            async for item in client.batch_get(BANK, FINGERPRINT, ids):
                if item.status is not FetchStatus.FOUND:
                    raise RuntimeError(f"memory {item.reference_id} is {item.status.name}; is the machine overloaded?")
                fetched.memories += 1
                fetched.from_ram += item.tier is Tier.RAM
                fetched.num_bytes += len(item.record)
            fetched.calls_ms.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return fetched


async def settled(read: Callable[[], int]) -> int:
    """The count, once it has stopped growing: a server counts an answer a moment after it was received."""
    last = -1
    async with asyncio.timeout(10):
        while last != (now := await asyncio.to_thread(read)):
            last = now
            await asyncio.sleep(_SETTLED_S)
    return last


@contextlib.contextmanager
def replicas(
    server: S3Server, arms: Mapping[str, int], ram_bytes: int, folder: Path
) -> Iterator[dict[str, list[ServiceProcess]]]:
    """The server processes of each arm, their RAM empty."""
    env = {
        "MEMORY3_MEMORY_PORT": "0",
        "MEMORY3_MEMORY_STORE_URI": server.uri(BUCKET),
        "MEMORY3_MEMORY_S3_ACCESS_KEY": ACCESS_KEY,
        "MEMORY3_MEMORY_S3_SECRET_KEY": SECRET_KEY,
        "MEMORY3_MEMORY_RAM_BYTES": str(ram_bytes),
    }
    processes = {
        name: [
            ServiceProcess("services.memory", env, folder / f"{name.replace(' ', '-')}-{number}.log")
            for number in range(count)
        ]
        for name, count in arms.items()
    }
    every = [process for some in processes.values() for process in some]
    try:
        with ThreadPoolExecutor(len(every)) as starting:
            list(starting.map(lambda process: process.start(timeout_s=240), every))
        yield processes
    finally:
        for process in every:
            process.stop()


async def connect(name: str, processes: Sequence[ServiceProcess], stack: contextlib.AsyncExitStack) -> Client:
    """The client of an arm."""
    addresses = [process.address for process in processes]
    if ANY in name:
        return AnyReplica([await stack.enter_async_context(MemoryClient(address)) for address in addresses])

    async def resolve(_: str, __: int) -> Collection[str]:
        return addresses

    return await stack.enter_async_context(MemoryPool("replicas:7302", retry=False, resolve=resolve))


async def fill(address: str, size: Size) -> None:
    """Store all records."""
    numbers = iter(range(size.records))

    async def one_after_the_other(client: MemoryClient) -> None:
        for number in numbers:
            record = make_record(number, payload_bytes=size.payload_bytes)
            await client.put(BANK, reference_id(number), FINGERPRINT, record)

    async with MemoryClient(address) as client:
        await asyncio.gather(*(one_after_the_other(client) for _ in range(8)))


async def measure(
    running: Mapping[str, Sequence[ServiceProcess]], server: S3Server, size: Size, popularity: str
) -> dict[str, Sample]:
    """All rounds of one popularity, by arm."""
    samples = {name: Sample() for name in running}
    names = list(running)
    async with contextlib.AsyncExitStack() as stack:
        clients = {name: await connect(name, processes, stack) for name, processes in running.items()}
        sent_before = await settled(lambda: server.sent_bytes(BUCKET))
        for repeat in range(-size.warm_up, size.repeats):
            calls = draw(size, POPULARITIES[popularity], f"{popularity} {repeat}")
            turn = repeat % len(names)
            for name in names[turn:] + names[:turn]:
                pids = [process.pid for process in running[name]]
                cpu_before, began = cpu_s(pids, ()), time.perf_counter()
                fetched = await fetch(clients[name], calls, size.at_once)
                wall_s, cpu = time.perf_counter() - began, cpu_s(pids, ()) - cpu_before
                sent = await settled(lambda: server.sent_bytes(BUCKET))
                if repeat >= 0:
                    sample = samples[name]
                    sample.hit_ratio.append(fetched.from_ram / fetched.memories)
                    sample.s3_bytes.append(sent - sent_before)
                    sample.memories_s.append(fetched.memories / wall_s)
                    sample.bytes_s.append(fetched.num_bytes / wall_s)
                    sample.cpu_ms.append(cpu * 1000 / fetched.memories)
                    sample.calls_ms += fetched.calls_ms
                sent_before = sent
            said = f"repeat {repeat + 1} of {size.repeats}" if repeat >= 0 else "warm-up"
            print(f"{popularity}: {said}", file=sys.stderr, flush=True)
    return samples


def run(
    size: Size, arms: Mapping[str, int] = ARMS, popularities: Collection[str] = tuple(POPULARITIES)
) -> dict[str, dict[str, Sample]]:
    """Samples by popularity and arm."""
    results: dict[str, dict[str, Sample]] = {}
    with tempfile.TemporaryDirectory() as folder, s3_server() as server:
        for popularity in popularities:
            with replicas(server, arms, size.ram_bytes, Path(folder)) as running:
                if not results:
                    asyncio.run(fill(next(iter(running.values()))[0].address, size))
                results[popularity] = asyncio.run(measure(running, server, size, popularity))
    return results


def table(results: Mapping[str, Mapping[str, Sample]], size: Size, arms: Mapping[str, int]) -> str:
    """One line an arm."""
    lines = [
        "| popularity | replicas | hit ratio, % | at best, % | MB from S3 a round | memories/s | MB/s "
        "| call p50 / p95 ms | CPU ms a memory | n |"
    ]
    lines.append("|---" * 10 + "|")
    for popularity, samples in results.items():
        for name, sample in samples.items():
            # Replicas that are not shared out hold the same memories three times.
            best = size.at_best(1 if ANY in name else arms[name], POPULARITIES[popularity])
            p50, p95 = (statistics.quantiles(sample.calls_ms, n=20, method="inclusive")[place] for place in (9, 18))
            cells = [
                quartiles([100 * ratio for ratio in sample.hit_ratio]),
                f"{100 * best:.1f}",
                quartiles([count / 1e6 for count in sample.s3_bytes]),
                quartiles(sample.memories_s),
                quartiles([rate / 1e6 for rate in sample.bytes_s]),
                f"{p50:.1f} / {p95:.1f}",
                f"{statistics.median(sample.cpu_ms):.2f}",
                str(len(sample.hit_ratio)),
            ]
            lines.append(f"| {popularity} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count (5)")
    parser.add_argument("--warm-up", type=int, default=3, help="rounds before them (3)")
    parser.add_argument("--requests", type=int, default=400, help="calls of a round (400)")
    parser.add_argument("--at-once", type=int, default=4, help="calls at once (4)")
    parser.add_argument("--records", type=int, default=1200, help="memories in the bank (1200)")
    parser.add_argument("--payload-bytes", type=int, default=48_000, help="of one memory (48000)")
    parser.add_argument("--ram-share", type=float, default=0.3, help="of the bank, in one replica's RAM (0.3)")
    options = parser.parse_args()
    size = Size(**vars(options))
    results = run(size)
    print(heading())
    print(
        f"{size.records} memories of {size.record_bytes:,} bytes, RAM of a replica {size.ram_bytes:,} bytes; "
        f"{size.requests} calls of {PER_CALL} a round, {size.at_once} at once; n rounds after {size.warm_up}\n"
    )
    print(table(results, size, ARMS))


if __name__ == "__main__":
    main()
