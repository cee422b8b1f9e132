"""TLS and tokens on against off: one small call and one stream of five memories, through the memory tier.

    python -m bench.tls [--repeats 300]

Four services on one machine, each with the same records in RAM: plain text, TLS, mutual TLS, and that with a token.
Arms are interleaved; every repeat runs each arm once, over a connection that stands. The time of a new connection,
handshake and first call included, is measured apart.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.machine import heading
from memory3.memory import MemoryClient
from memory3.rights import Right
from memory3.security import PLAIN, ChannelSecurity
from memory3.tokens import new_token
from memory3.types import FetchStatus, Tier
from tests.helpers.certificates import Authority
from tests.helpers.memory_records import FINGERPRINT, make_record, reference_id
from tests.helpers.processes import service_process

BANK = "bench"
NUM_RECORDS, AT_ONCE, RECORD_BYTES = 50, 5, 190_000
IDS = [reference_id(number) for number in range(NUM_RECORDS)]
Work = Callable[[MemoryClient, int], Awaitable[None]]


def prepare(folder: Path) -> dict[str, tuple[dict[str, str], ChannelSecurity]]:
    """Arm -> settings of its service, and how it is called."""
    authority = Authority(folder)
    server, client = authority.issue("server"), authority.issue("client")
    token, entry = new_token("bench", [Right.READ, Right.WRITE])
    access = folder / "access.jsonl"
    access.write_text(entry.to_json())
    tls = {"MEMORY3_MEMORY_TLS_CERT": str(server.cert), "MEMORY3_MEMORY_TLS_KEY": str(server.key)}
    mutual = {**tls, "MEMORY3_MEMORY_TLS_CLIENT_CA": str(authority.cert)}
    files = (str(authority.cert), str(client.cert), str(client.key))
    return {
        "plain text": ({}, PLAIN),
        "TLS": (tls, ChannelSecurity(str(authority.cert))),
        "mutual TLS": (mutual, ChannelSecurity(*files)),
        "mutual TLS, token": (
            {**mutual, "MEMORY3_MEMORY_ACCESS_FILE": str(access)},
            ChannelSecurity(*files, token=token),
        ),
    }


async def stat(client: MemoryClient, _: int) -> None:
    """One small call: is one memory there?"""
    found = await client.stat(BANK, FINGERPRINT, IDS[:1])
    assert found[0].exists


async def fetch(client: MemoryClient, repeat: int) -> None:
    """One stream: five memories out of RAM."""
    ids = [IDS[(repeat * AT_ONCE + offset) % NUM_RECORDS] for offset in range(AT_ONCE)]
    items = [item async for item in client.batch_get(BANK, FINGERPRINT, ids)]
    assert [(item.status, item.tier) for item in items] == [(FetchStatus.FOUND, Tier.RAM)] * AT_ONCE


async def measure(clients: dict[str, MemoryClient], work: Work, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each repeat, by arm; a tenth before them is warm-up."""
    times: dict[str, list[float]] = {name: [] for name in clients}
    for repeat in range(-(repeats // 10), repeats):
        for name, client in clients.items():
            started = time.perf_counter()
            await work(client, repeat)
            if repeat >= 0:
                times[name].append((time.perf_counter() - started) * 1000)
    return times


async def connect(targets: dict[str, tuple[str, ChannelSecurity]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds from a client that is not connected to its first answer, by arm."""
    times: dict[str, list[float]] = {name: [] for name in targets}
    for _ in range(repeats):
        for name, (address, security) in targets.items():
            started = time.perf_counter()
            async with MemoryClient(address, security=security) as client:
                await stat(client, 0)
                times[name].append((time.perf_counter() - started) * 1000)
    return times


async def run(targets: dict[str, tuple[str, ChannelSecurity]], repeats: int) -> dict[str, dict[str, list[float]]]:
    """Fill the RAM of every service, then measure."""
    async with contextlib.AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(MemoryClient(address, security=security))
            for name, (address, security) in targets.items()
        }
        for client in clients.values():
            for number, identity in enumerate(IDS):
                await client.put(BANK, identity, FINGERPRINT, make_record(number, payload_bytes=RECORD_BYTES))
            async for _ in client.batch_get(BANK, FINGERPRINT, IDS):
                pass
        return {
            "small call": await measure(clients, stat, repeats),
            f"{AT_ONCE} memories": await measure(clients, fetch, repeats),
            "new connection": await connect(targets, max(10, repeats // 10)),
        }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=300, help="of each arm")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        targets = {}
        for number, (arm, (settings, security)) in enumerate(prepare(folder).items()):
            own = {
                "MEMORY3_MEMORY_PORT": "0",
                "MEMORY3_MEMORY_HEALTH_PORT": "0",
                "MEMORY3_MEMORY_STORE_URI": str(folder / f"memories-{number}"),
            }
            process = service_process("services.memory", {**own, **settings}, folder / f"{number}.log")
            targets[arm] = (stack.enter_context(process).address, security)
        results = asyncio.run(run(targets, options.repeats))
    print(heading())
    print(f"{RECORD_BYTES:,} bytes a memory, {options.repeats} repeats of each arm, interleaved\n")
    print("| what | arm | p50 ms | p95 ms | least-greatest ms | n |")
    print("|---|---|---|---|---|---|")
    for what, arms in results.items():
        for arm, times in arms.items():
            p95 = statistics.quantiles(times, n=20, method="inclusive")[-1]
            spread = f"{min(times):.2f}-{max(times):.2f}"
            print(f"| {what} | {arm} | {statistics.median(times):.2f} | {p95:.2f} | {spread} | {len(times)} |")


if __name__ == "__main__":
    main()
