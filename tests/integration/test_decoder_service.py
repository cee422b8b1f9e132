"""The decoder as a process between real tiers: cold start into the store, start-up errors, a clean end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from memory3.decoder import DecoderClient
from memory3.memory import MemoryClient
from memory3.types import GenerationRequest, MemoryStatus, Mode, Tier
from model.identity import reference_id
from tests.helpers.decoder_stack import BANK, TEXTS, DecoderStack, decoder_stack, index
from tests.helpers.processes import ROOT
from tests.helpers.tiny_model import tiny_model_directory, tiny_plan

REQUEST = GenerationRequest(Mode.MEMORY, prompt=TEXTS[3][:50], bank=BANK, max_tokens=100)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecoderStack]:
    """The tiers with a bank that is indexed and not written."""
    with decoder_stack(tmp_path_factory.mktemp("cold"), "local") as stack:
        asyncio.run(index(stack))
        yield stack


async def test_a_bank_without_memories_is_written_as_it_is_recalled(stack: DecoderStack) -> None:
    async with DecoderClient(stack.decoder.address) as decoder, MemoryClient(stack.memory.address) as memory:
        info = await decoder.info()
        cold = await decoder.generate_once(REQUEST)
        first = cold.recalls[0].memories
        assert {(item.status, item.tier) for item in first} == {(MemoryStatus.READ, Tier.COLD)}
        ids = [item.reference_id for item in first]
        for _ in range(100):
            stats = await memory.stat(BANK, info.model_fingerprint, ids)
            if all(stat.exists for stat in stats):
                break
            await asyncio.sleep(0.05)
        assert [stat.exists for stat in stats] == [True] * 5
        warm = await decoder.generate_once(REQUEST)
        assert {item.tier for item in warm.recalls[0].memories} == {Tier.WORKER}
        assert warm.text == cold.text, "what is read cold equals what is read warm"


async def test_a_restarted_decoder_reads_the_same_from_the_store(stack: DecoderStack) -> None:
    async with DecoderClient(stack.decoder.address) as decoder:
        before = await decoder.generate_once(REQUEST)
    assert await asyncio.to_thread(stack.decoder.stop) == 0, "SIGTERM ends it cleanly"
    await asyncio.to_thread(stack.decoder.restart_on_same_port, "MEMORY3_DECODER_PORT")
    async with DecoderClient(stack.decoder.address) as decoder:
        after = await decoder.generate_once(REQUEST)
    assert after.text == before.text
    assert {item.tier for item in after.recalls[0].memories} <= {Tier.RAM, Tier.OBJECT}


async def test_a_long_answer_reads_new_memories_every_64_tokens(stack: DecoderStack) -> None:
    async with DecoderClient(stack.decoder.address) as decoder:
        once = await decoder.generate_once(replace(REQUEST, max_tokens=200))
    assert [recall.span for recall in once.recalls] == [0, 2, 3, 4]
    reads = {span.span: list(span.reference_ids) for span in once.final.spans}
    assert reads[0] == reads[1]
    for recall in once.recalls:
        assert [item.reference_id for item in recall.memories] == reads[recall.span]


async def test_the_named_reference_is_the_one_that_is_read(stack: DecoderStack) -> None:
    async with DecoderClient(stack.decoder.address) as decoder:
        once = await decoder.generate_once(replace(REQUEST, prompt=TEXTS[6], memories_per_chunk=1))
    assert [item.reference_id for item in once.recalls[0].memories] == [reference_id(TEXTS[6])] * len(
        once.recalls[0].memories
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"MEMORY3_DECODER_MODEL": "no/such/folder"}, "no/such/folder"),
        ({"MEMORY3_DECODER_PREFILL_TOKENS_PER_STEP": "100"}, "multiple of the query chunk"),
        ({"MEMORY3_DECODER_NUM_SLOTS": "0"}, "MEMORY3_DECODER_NUM_SLOTS"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(tiny_plan().to_json())
    env = {
        "MEMORY3_DECODER_PORT": "0",
        "MEMORY3_DECODER_BACKEND": "local",
        "MEMORY3_DECODER_MODEL": str(tiny_model_directory(tmp_path / "model")),
        "MEMORY3_DECODER_PLAN": str(plan),
        "MEMORY3_DECODER_LOG_LEVEL": "ERROR",
    }
    done = subprocess.run(
        [sys.executable, "-m", "services.decoder"],
        cwd=ROOT,
        env={"PATH": "/usr/bin", "OMP_NUM_THREADS": "1", **env, **changes},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
