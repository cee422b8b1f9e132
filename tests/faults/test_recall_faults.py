"""Tiers that are down, slow, restarted or hold bad records while a generation runs: it goes on, says so, and recovers.

Real processes; the decoder is never restarted.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from memory3.decoder import DecoderClient
from memory3.memory import MemoryClient
from memory3.types import Generation, GenerationRequest, MemoryStatus, Mode, RecallEvent, Tier, TokenEvent
from model.codec.record import pack_record, parse_record
from model.identity import reference_id
from tests.helpers.decoder_stack import BANK, TEXTS, DecoderStack, decoder_stack, index, write

pytestmark = pytest.mark.slow

DEADLINE_MS = 800
SETTINGS = {
    "MEMORY3_DECODER_CACHE_BYTES": "0",  # every recall asks the memory tier
    "MEMORY3_DECODER_COLD_START": "false",
    "MEMORY3_DECODER_RECALL_DEADLINE_MS": str(DEADLINE_MS),
    "MEMORY3_DECODER_TIER_SLOW_MS": "500",
}
SHORT = GenerationRequest(Mode.MEMORY, prompt=TEXTS[1][:50], bank=BANK, max_tokens=4)
LONG = replace(SHORT, max_tokens=1500)
READ, LATE = MemoryStatus.READ, MemoryStatus.LATE


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecoderStack]:
    """The tiers with a bank whose memories are written; the index survives a restart, and the model is slow."""
    folder = tmp_path_factory.mktemp("faults")
    kept = {"MEMORY3_RETRIEVAL_INDEX": "milvus", "MEMORY3_RETRIEVAL_MILVUS_URI": str(folder / "milvus.db")}
    env = {"MEMORY3_MEMORY_RAM_BYTES": "0"}
    with decoder_stack(folder, "local", env=env, decoder_env=SETTINGS, retrieval_env=kept, num_layers=40) as stack:
        asyncio.run(index(stack))
        asyncio.run(write(stack))
        yield stack


@pytest.fixture
async def client(stack: DecoderStack) -> AsyncIterator[DecoderClient]:
    async with DecoderClient(stack.decoder.address, retry=False) as client:
        yield client


def statuses(recall: RecallEvent) -> list[MemoryStatus]:
    return [memory.status for memory in recall.memories]


async def until_all_read(client: DecoderClient, timeout_s: float = 20) -> Generation:
    """The tiers are found again, without anybody's help."""
    deadline = time.monotonic() + timeout_s
    while True:
        once = await client.generate_once(SHORT)
        if statuses(once.recalls[0]) == [READ] * 5:
            return once
        assert time.monotonic() < deadline, f"still degraded after {timeout_s:g} s: {once.recalls[0]}"
        await asyncio.sleep(0.05)


async def restart(stack: DecoderStack, tier: str) -> None:
    """Start a killed tier again where it was; what is being generated stands still, so that it is there to see it."""
    stack.decoder.pause()
    try:
        await asyncio.to_thread(getattr(stack, tier).restart_on_same_port, f"MEMORY3_{tier.upper()}_PORT")
    finally:
        stack.decoder.resume()


class LongGeneration:
    """A generation under way, whose recalls are watched."""

    def __init__(self, client: DecoderClient) -> None:
        self._events = client.generate(LONG)
        self.num_tokens = 0
        self.stalled_ns = 0

    async def next_recall(self) -> RecallEvent:
        async for event in self._events:
            if isinstance(event, TokenEvent):
                self.num_tokens += len(event.token_ids)
            elif isinstance(event, RecallEvent):
                self.stalled_ns += event.stalled_ns
                return event
        raise AssertionError(f"the generation ended after {self.num_tokens} tokens")

    async def until(self, status: MemoryStatus) -> RecallEvent:
        """The next recall of which some memory fared so."""
        while True:
            recall = await self.next_recall()
            if status in statuses(recall):
                return recall

    async def until_retrieval(self, *, failed: bool) -> RecallEvent:
        while True:
            recall = await self.next_recall()
            if recall.retrieval_failed is failed:
                return recall

    async def close(self) -> None:
        await self._events.aclose()


async def test_memory_tier_killed_during_a_generation_and_restarted(stack: DecoderStack, client: DecoderClient) -> None:
    generation = LongGeneration(client)
    await generation.until(READ)
    stack.memory.kill()
    degraded = await generation.until(LATE)
    assert statuses(degraded) == [LATE] * 5
    assert not degraded.retrieval_failed
    assert {memory.tier for memory in degraded.memories} == {Tier.NONE}
    before = generation.num_tokens
    await generation.until(LATE)
    assert generation.num_tokens > before, "the answer goes on"
    await restart(stack, "memory")
    await generation.until(READ)
    await generation.close()
    await until_all_read(client)


async def test_memory_tier_down_is_counted_in_the_answer(stack: DecoderStack, client: DecoderClient) -> None:
    stack.memory.kill()
    try:
        once = await client.generate_once(SHORT)
        assert once.final.usage.num_output_tokens == 4
        assert once.final.usage.num_memories_late == 5
        assert once.final.usage.num_memories_read == 0
    finally:
        await asyncio.to_thread(stack.memory.restart_on_same_port, "MEMORY3_MEMORY_PORT")
    await until_all_read(client)


async def test_memory_tier_that_hangs_costs_its_deadline_once(stack: DecoderStack, client: DecoderClient) -> None:
    generation = LongGeneration(client)
    await generation.until(READ)
    stack.memory.pause()
    try:
        generation.stalled_ns = 0
        for _ in range(5):
            await generation.until(LATE)
        assert generation.stalled_ns < 2 * DEADLINE_MS * 1_000_000
    finally:
        stack.memory.resume()
    await generation.until(READ)
    await generation.close()


async def test_retrieval_tier_killed_during_a_generation_and_restarted(
    stack: DecoderStack, client: DecoderClient
) -> None:
    generation = LongGeneration(client)
    await generation.until(READ)
    stack.retrieval.kill()
    try:
        degraded = await generation.until_retrieval(failed=True)
        assert list(degraded.memories) == []
        for mode in (Mode.MEMORY, Mode.RAG):
            once = await client.generate_once(replace(SHORT, mode=mode))
            assert once.recalls[0].retrieval_failed
            assert once.final.usage.num_recalls_failed == 1
            assert once.final.usage.num_output_tokens == 4
    finally:
        await restart(stack, "retrieval")
    await generation.until_retrieval(failed=False)
    await generation.close()
    await until_all_read(client)


async def test_retrieval_tier_that_hangs_costs_its_deadline_once(stack: DecoderStack, client: DecoderClient) -> None:
    generation = LongGeneration(client)
    await generation.until(READ)
    stack.retrieval.pause()
    try:
        await generation.until_retrieval(failed=True)
        generation.stalled_ns = 0
        for _ in range(3):
            await generation.until_retrieval(failed=True)
        assert generation.stalled_ns < DEADLINE_MS * 1_000_000 / 2, "nobody waits for a tier that is known to hang"
    finally:
        stack.retrieval.resume()
    await generation.until_retrieval(failed=False)
    await generation.close()


async def test_both_tiers_down_and_the_model_still_answers(stack: DecoderStack, client: DecoderClient) -> None:
    stack.memory.kill()
    stack.retrieval.kill()
    try:
        for mode in Mode:
            assert (await client.generate_once(replace(SHORT, mode=mode))).final.usage.num_output_tokens == 4
    finally:
        await asyncio.to_thread(stack.memory.restart_on_same_port, "MEMORY3_MEMORY_PORT")
        await asyncio.to_thread(stack.retrieval.restart_on_same_port, "MEMORY3_RETRIEVAL_PORT")
    await until_all_read(client)


async def test_memories_of_another_model_are_missing(stack: DecoderStack, client: DecoderClient) -> None:
    bank, own = "foreign", (await client.info()).model_fingerprint
    await index(stack, TEXTS[:1], bank)
    async with MemoryClient(stack.memory.address) as memory:
        (item,) = [item async for item in memory.batch_get(BANK, own, [reference_id(TEXTS[0])])]
        header, payload = parse_record(item.record)
        foreign = pack_record(replace(header, model_fingerprint="f" * 32), bytes(payload))
        assert await memory.put(bank, header.reference_id, "f" * 32, foreign)
    once = await client.generate_once(replace(SHORT, bank=bank))
    assert statuses(once.recalls[0]) == [MemoryStatus.MISSING]
    assert once.final.usage.num_memories_missing == 1


async def test_a_flipped_byte_and_a_misplaced_record_are_refused(stack: DecoderStack, client: DecoderClient) -> None:
    bank = "damaged"
    await index(stack, TEXTS[:3], bank)
    await write(stack, TEXTS[:3], bank)
    flipped, swapped, sound = (record_file(stack.folder, bank, text) for text in TEXTS[:3])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.chmod(0o644)
    flipped.write_bytes(data)
    swapped.chmod(0o644)
    shutil.copyfile(sound, swapped)
    once = await client.generate_once(replace(SHORT, bank=bank))
    fared = {memory.text: memory.status for memory in once.recalls[0].memories}
    refused = MemoryStatus.REFUSED
    assert fared == {TEXTS[0]: refused, TEXTS[1]: refused, TEXTS[2]: READ}
    assert once.final.usage.num_memories_missing == 2
    assert list(once.final.spans[0].reference_ids) == [reference_id(TEXTS[2])]


def record_file(folder: Path, bank: str, text: str) -> Path:
    """The one file in which the memory of a text lies."""
    (found,) = (folder / "records").rglob(f"*{bank}*/**/{reference_id(text)}*/*")
    return found
