"""The decoder as a process, a plan with pages and the codec trellis: writes, stores, loads and reads by a codebook."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from memory3.decoder import DecoderClient
from memory3.types import GenerationRequest, MemoryStatus, Mode, Tier
from model.codec.chain import CodecChain
from model.codec.codebook import CODEBOOK_FILE, Codebook
from tests.helpers.codebooks import a_codebook, codebook_for
from tests.helpers.decoder_stack import BANK, TEXTS, DecoderStack, decoder_stack, index, write
from tests.helpers.processes import ROOT
from tests.helpers.tiny_model import PREFIX_TOKENS, tiny_model_directory, tiny_plan

PLAN = tiny_plan(codec=("trellis",), pages_per_head=((1, 5), (4, 2)))
REQUEST = GenerationRequest(Mode.MEMORY, prompt=TEXTS[3][:50], bank=BANK, max_tokens=60)


def put_files(folder: Path) -> tuple[Path, Path, Path]:
    """The tiny model, a plan and their codebook."""
    model, plan, codebook = folder / "model", folder / "trellis.json", folder / CODEBOOK_FILE
    plan.write_text(PLAN.to_json())
    codebook_for(tiny_model_directory(model), PLAN, len(PREFIX_TOKENS)).save(codebook)
    return model, plan, codebook


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecoderStack]:
    """The tiers with a bank whose memories are written."""
    folder = tmp_path_factory.mktemp("trellis")
    _, plan, codebook = put_files(folder)
    chosen = {"MEMORY3_DECODER_PLAN": str(plan), "MEMORY3_DECODER_CODEBOOK": str(codebook)}
    with decoder_stack(folder, "local", decoder_env=chosen) as stack:
        asyncio.run(index(stack))
        asyncio.run(write(stack))
        yield stack


async def test_records_of_the_codebooks_size_are_stored_and_read_back_alike(stack: DecoderStack) -> None:
    codebook = Codebook.load(stack.folder / CODEBOOK_FILE)
    num_layers, num_pages, head_dim = codebook.shape
    shape = (num_layers, num_pages, PLAN.tokens_per_page, head_dim)
    async with DecoderClient(stack.decoder.address) as decoder:
        info = await decoder.info()
        before = await decoder.generate_once(REQUEST)
    assert json.loads(info.memory_plan_json)["codec"] == ["trellis"]
    assert info.memory_bytes == CodecChain.from_plan(PLAN, codebook).record_bytes(shape, PLAN.max_reference_tokens)
    read = before.recalls[0].memories
    assert {item.status for item in read} == {MemoryStatus.READ}
    assert Tier.COLD not in {item.tier for item in read}

    assert await asyncio.to_thread(stack.decoder.stop) == 0
    await asyncio.to_thread(stack.decoder.restart_on_same_port, "MEMORY3_DECODER_PORT")
    async with DecoderClient(stack.decoder.address) as decoder:
        after = await decoder.generate_once(REQUEST)
        without = await decoder.generate_once(replace(REQUEST, mode=Mode.NONE, bank=""))
    assert {item.tier for item in after.recalls[0].memories} <= {Tier.RAM, Tier.OBJECT}
    assert after.text == before.text
    assert without.text != after.text, "the memories are read"


def test_a_codebook_of_another_shape_ends_the_start_in_one_line(tmp_path: Path) -> None:
    model, plan, codebook = put_files(tmp_path)
    a_codebook().save(codebook)
    env = {
        "MEMORY3_DECODER_PORT": "0",
        "MEMORY3_DECODER_BACKEND": "local",
        "MEMORY3_DECODER_MODEL": str(model),
        "MEMORY3_DECODER_PLAN": str(plan),
        "MEMORY3_DECODER_CODEBOOK": str(codebook),
        "MEMORY3_DECODER_LOG_LEVEL": "ERROR",
    }
    done = subprocess.run(
        [sys.executable, "-m", "services.decoder"],
        cwd=ROOT,
        env={"PATH": "/usr/bin", "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 1
    assert "(layers, KV heads or pages, head dim) (3, 2, 16), the model and plan have (2, 6, 16)" in done.stderr
    assert "train one for them (memory3 quantise)" in done.stderr
    assert len(done.stderr.splitlines()) == 1
