"""Runs inside the ingest image on the stack's network: asks in memory mode without pause until SIGTERM.

One JSON line an answer: when it ended, how long it took, how many memories it read, or the error.
"""

import asyncio
import json
import os
import signal
import time

from memory3.decoder import DecoderClient
from memory3.errors import Memory3Error
from memory3.types import GenerationRequest, MemoryStatus, Message, Mode

ASKERS = 2
TIMEOUT_S = 60.0
REQUEST = GenerationRequest(
    mode=Mode.MEMORY,
    messages=[Message("user", os.environ["QUESTION"])],
    bank=os.environ["BANK"],
    max_tokens=4,
    recall_deadline_ms=5_000,
)


async def ask(client: DecoderClient) -> dict[str, object]:
    """One question."""
    try:
        answer = await client.generate_once(REQUEST, timeout=TIMEOUT_S)
    except Memory3Error as error:
        await asyncio.sleep((error.retry_after_ms or 200) / 1000)  # as a caller should
        return {"error": error.reason.name, "retriable": error.retriable, "message": str(error)[:200]}
    memories = [memory for recall in answer.recalls for memory in recall.memories]
    return {"read": sum(memory.status is MemoryStatus.READ for memory in memories), "of": len(memories)}


async def asker(client: DecoderClient) -> None:
    """Questions one after the other."""
    while True:
        began = time.time()
        seen = await ask(client)
        print(json.dumps({"at": time.time(), "s": round(time.time() - began, 2), **seen}), flush=True)  # noqa: T201 - the run reads it


async def main() -> None:
    async with DecoderClient(os.environ["MEMORY3_DECODER"]) as client:
        askers = [asyncio.create_task(asker(client)) for _ in range(ASKERS)]
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: [task.cancel() for task in askers])
        await asyncio.gather(*askers, return_exceptions=True)


asyncio.run(main())
