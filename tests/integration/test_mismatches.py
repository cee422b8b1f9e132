"""Another model plan on the same store, another embedder on the same index: never mixed, always said."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from memory3.decoder import DecoderClient
from memory3.errors import ModelMismatchError
from memory3.memory import MemoryClient
from memory3.types import GenerationRequest, MemoryStatus, Mode, ReferenceText, WriteStatus
from model.identity import reference_id
from tests.helpers.decoder_stack import BANK, TEXTS, DecoderStack, decoder_stack, index, write
from tests.helpers.processes import ROOT, ServiceProcess, service_process
from tests.helpers.tiny_model import tiny_plan

REQUEST = GenerationRequest(Mode.MEMORY, prompt=TEXTS[1][:50], bank=BANK, max_tokens=4)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[DecoderStack]:
    """The tiers with a bank whose memories are written; the index survives a restart."""
    lite = {"MEMORY3_RETRIEVAL_INDEX": "milvus", "MEMORY3_RETRIEVAL_MILVUS_URI": str(tmp_path / "index.db")}
    quiet = {"MEMORY3_DECODER_COLD_START": "false", "MEMORY3_DECODER_CACHE_BYTES": "0"}
    with decoder_stack(tmp_path, "local", retrieval_env=lite, decoder_env=quiet) as started:
        asyncio.run(index(started))
        asyncio.run(write(started))
        yield started


async def statuses(client: DecoderClient) -> list[MemoryStatus]:
    once = await client.generate_once(REQUEST)
    assert once.final.usage.num_output_tokens == 4
    read = [memory.status for memory in once.recalls[0].memories].count(MemoryStatus.READ)
    assert (once.final.usage.num_memories_missing > 0) == (read < 5)
    return [memory.status for memory in once.recalls[0].memories]


async def test_a_decoder_of_another_plan_writes_its_own_memories_beside(stack: DecoderStack, tmp_path: Path) -> None:
    plan = tmp_path / "other.json"
    plan.write_text(tiny_plan(name="other", tokens_per_memory=4).to_json())
    env = {
        "OMP_NUM_THREADS": "1",
        "MEMORY3_DECODER_PORT": "0",
        "MEMORY3_DECODER_BACKEND": "local",
        "MEMORY3_DECODER_MODEL": str(tmp_path / "tiny-model"),
        "MEMORY3_DECODER_PLAN": str(plan),
        "MEMORY3_DECODER_COLD_START": "false",
        "MEMORY3_DECODER_CACHE_BYTES": "0",
        "MEMORY3_DECODER_RETRIEVAL_ADDRESS": stack.retrieval.address,
        "MEMORY3_DECODER_MEMORY_ADDRESS": stack.memory.address,
    }
    references = [ReferenceText(reference_id(text), text) for text in TEXTS]
    ids = sorted(reference.reference_id for reference in references)
    with service_process("services.decoder", env, tmp_path / "other.log") as process:
        async with (
            DecoderClient(stack.decoder.address) as first,
            DecoderClient(process.address) as other,
            MemoryClient(stack.memory.address) as memory,
        ):
            old, new = (await first.info()).model_fingerprint, (await other.info()).model_fingerprint
            assert old != new
            assert await statuses(other) == [MemoryStatus.MISSING] * 5
            assert {item.status for item in (await other.write(BANK, references)).items} == {WriteStatus.WRITTEN}
            assert await statuses(other) == await statuses(first) == [MemoryStatus.READ] * 5
            for fingerprint in (old, new):
                assert sorted([entry.reference_id async for entry in memory.list(BANK, fingerprint)]) == ids
            assert {item.status for item in (await first.write(BANK, references)).items} == {WriteStatus.EXISTED}


@asynccontextmanager
async def another_embedder(stack: DecoderStack) -> AsyncIterator[None]:
    """The index of the bank served with another embedder, at the same address."""
    port = stack.retrieval.address.rsplit(":", 1)[1]
    env = {
        "MEMORY3_RETRIEVAL_PORT": port,
        "MEMORY3_RETRIEVAL_EMBEDDER": "hash",
        "MEMORY3_RETRIEVAL_HASH_DIMENSION": "64",
        "MEMORY3_RETRIEVAL_INDEX": "milvus",
        "MEMORY3_RETRIEVAL_MILVUS_URI": str(stack.folder / "index.db"),
    }
    stack.retrieval.stop()
    process = ServiceProcess("services.retrieval", env, stack.folder / "other-retrieval.log")
    try:
        await asyncio.to_thread(process.start)
        yield
    finally:
        await asyncio.to_thread(process.stop)


async def test_a_bank_of_another_embedder_is_refused_and_not_searched(stack: DecoderStack, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("A new text.")
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MEMORY3_RETRIEVAL": stack.retrieval.address,
        "MEMORY3_MEMORY": stack.memory.address,
        "MEMORY3_DECODER": stack.decoder.address,
        "MEMORY3_INGEST_DATA_DIR": str(tmp_path / "ingest"),
        "MEMORY3_INGEST_TOKENIZER": str(tmp_path / "tiny-model"),
    }
    async with another_embedder(stack), DecoderClient(stack.decoder.address) as client:
        for mode in (Mode.MEMORY, Mode.RAG):
            with pytest.raises(ModelMismatchError, match="embedder"):
                await client.generate_once(replace(REQUEST, mode=mode))
        none = await client.generate_once(replace(REQUEST, mode=Mode.NONE))
        assert none.final.usage.num_output_tokens == 4
        for arguments in (
            ["generate", "hi", "--bank", BANK],
            ["retrieve", "hi", "--bank", BANK],
            ["ingest", "new.txt", "--bank", BANK, "--memories", "cold"],
        ):
            command = [sys.executable, "-m", "memory3.cli", *arguments]
            done = await asyncio.to_thread(
                subprocess.run, command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
            )
            assert done.returncode == 1
            assert "embedder" in done.stderr + done.stdout
            assert "Traceback" not in done.stderr + done.stdout
