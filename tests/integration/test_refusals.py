"""What the tiers refuse, as the person at the command line sees it: one line that names the reason, exit code 1."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memory3.types import Mode
from tests.helpers.decoder_stack import BANK, TEXTS, DecoderStack, decoder_stack, index, write
from tests.helpers.processes import ROOT

CONTEXT_TOKENS = 2048
"""Of the tiny model, whose tokens are bytes."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecoderStack]:
    """The tiers with a bank whose memories are written."""
    with decoder_stack(tmp_path_factory.mktemp("stack"), "local") as started:
        asyncio.run(index(started))
        asyncio.run(write(started))
        yield started


@pytest.fixture
def memory3(stack: DecoderStack, tmp_path: Path) -> Any:
    """Runs one real command against the tiers."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "MEMORY3_RETRIEVAL": stack.retrieval.address,
            "MEMORY3_MEMORY": stack.memory.address,
            "MEMORY3_DECODER": stack.decoder.address,
            "MEMORY3_INGEST_DATA_DIR": str(tmp_path / "ingest"),
            "MEMORY3_INGEST_TOKENIZER": str(stack.folder / "tiny-model"),
            "COLUMNS": "400",
        }
        command = [sys.executable, "-m", "memory3.cli", *arguments]
        return subprocess.run(
            command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )  # fmt: skip

    return run


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """What a refused command says."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("mode", ["memory", "rag", "none"])
def test_a_prompt_longer_than_the_context(memory3: Any, mode: str) -> None:
    said = refusal(memory3("generate", "x" * (CONTEXT_TOKENS + 1), "--mode", mode, "--bank", BANK))
    assert "context too long" in said
    assert re.search(
        r"the prompt has \d+ tokens.*; the context holds \d+: shorten the prompt or lower max_tokens", said
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "hi", "--mode", "memory", "--bank", "nowhere"),
        ("generate", "hi", "--mode", "rag", "--bank", "nowhere"),
        ("retrieve", "hi", "--bank", "nowhere"),
        ("documents", "--bank", "nowhere"),
        ("inspect", "0" * 32, "--bank", "nowhere"),
        ("delete", "--bank", "nowhere", "--document", "x", "--yes"),
    ],
    ids=lambda arguments: " ".join(arguments[:4]),
)
def test_an_unknown_bank(memory3: Any, arguments: tuple[str, ...]) -> None:
    said = refusal(memory3(*arguments))
    assert said.startswith("memory3: unknown bank: ")
    assert "nowhere" in said


def test_mode_none_asks_no_bank(memory3: Any) -> None:
    done = memory3("generate", "hi", "--mode", "none", "--bank", "nowhere", "--max-tokens", "2")
    assert done.returncode == 0, done.stderr


def test_a_mode_that_is_none(memory3: Any) -> None:
    done = memory3("generate", "hi", "--mode", "telepathy")
    assert done.returncode == 2
    assert "'telepathy' is not one of" in done.stderr
    assert all(mode.name.lower() in done.stderr for mode in Mode)


def test_input_files_of_every_kind(memory3: Any, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "good.txt").write_text(TEXTS[0])
    (folder / "empty.txt").write_bytes(b"")
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    (folder / "binary.txt").write_bytes(bytes(range(256)))
    with (folder / "huge.txt").open("wb") as file:
        file.truncate(1 << 34)
    # One sentence, and many, both beyond any context.
    (folder / "long.txt").write_text("a" * 3 * CONTEXT_TOKENS)
    (folder / "book.txt").write_text("".join(f"Sentence {n} stands here. " for n in range(200)))
    done = memory3("ingest", "docs", "--bank", "mixed")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    for name, reason in {
        "docs/latin.txt": "UTF-8",
        "docs/binary.txt": "binary",
        "docs/huge.txt": "more than the limit of",
    }.items():
        (line,) = {line for line in (done.stdout + done.stderr).splitlines() if name in line}
        assert reason in line
    listed = json.loads(memory3("documents", "--bank", "mixed", "--json").stdout)["documents"]
    found = {document["document_id"]: document["num_references"] for document in listed}
    assert set(found) == {"docs/good.txt", "docs/long.txt", "docs/book.txt"}
    assert found["docs/long.txt"] == 3 * CONTEXT_TOKENS // 128
    assert found["docs/book.txt"] > 2 * CONTEXT_TOKENS // 128
