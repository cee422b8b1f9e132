"""Runs inside one of our images on the stack's network: records through all replicas of `memory`, each in one RAM."""

import asyncio
import hashlib
import json
import os
from collections import Counter

from memory3.memory_pool import open_memory
from model.codec.record import RecordHeader, pack_record

FINGERPRINT = hashlib.sha256(b"a model").hexdigest()[:32]
IDS = [hashlib.sha256(f"{number}".encode()).hexdigest()[:32] for number in range(60)]


async def main() -> None:
    async with open_memory(os.environ.get("MEMORY3_MEMORY", "rendezvous:memory:7302")) as pool:
        for identifier in IDS:
            header = RecordHeader(identifier, FINGERPRINT, ({"name": "test"},), (1, 1, 1, 1), 1)
            await pool.put("check", identifier, FINGERPRINT, pack_record(header, bytes(2_000)))
        fetched = []
        for _ in range(2):
            items = [item async for item in pool.batch_get("check", FINGERPRINT, IDS)]
            fetched.append(Counter(f"{item.status.name} {item.tier.name}" for item in items))
        shares = Counter([(await pool.order(identifier))[0].address for identifier in IDS])
        print(json.dumps({"shares": sorted(shares.values()), "first": fetched[0], "second": fetched[1]}))  # noqa: T201 - the run reads it


asyncio.run(main())
