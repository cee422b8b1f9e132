"""Ingest as a real process against real tiers, for tests: started, killed, and its last word read."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memory3.decoder import DecoderClient
from memory3.memory import MemoryClient
from memory3.retrieval import RetrievalClient
from tests.helpers.decoder_stack import DecoderStack
from tests.helpers.processes import ROOT

BANK = "ingested"


@dataclass
class Ingest:
    """Runs `python -m services.ingest` with its own progress file."""

    stack: DecoderStack
    data_dir: Path
    bank: str = BANK
    env: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A started run; stdout and stderr are pipes."""
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MEMORY3_RETRIEVAL": self.stack.retrieval.address,
            "MEMORY3_MEMORY": self.stack.memory.address,
            "MEMORY3_DECODER": self.stack.decoder.address,
            "MEMORY3_INGEST_DATA_DIR": str(self.data_dir),
            "MEMORY3_INGEST_TOKENIZER": str(self.stack.folder / "tiny-model"),
            "PYTHONPATH": str(ROOT),
            **self.env,
        }
        command = [sys.executable, "-m", "services.ingest", *arguments, "--bank", self.bank, "--json"]
        return subprocess.Popen(
            command, env=env, cwd=self.data_dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """The summary of a whole run that must end with `code`."""
        return self.end(self.start(*arguments), code)

    def end(self, process: subprocess.Popen[str], code: int = 0) -> dict[str, Any]:
        """The summary of a started run that must end with `code`, without a traceback."""
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in out + err
        return dict(json.loads(out))

    def wait_for_progress(self, process: subprocess.Popen[str], num_finished: int, timeout_s: float = 60.0) -> bool:
        """Return True when so many stages are noted as finished, False if the run ended before."""
        deadline = time.monotonic() + timeout_s
        while self.num_finished() < num_finished:
            if process.poll() is not None:
                return False
            assert time.monotonic() < deadline, f"only {self.num_finished()} stages finished in {timeout_s} s"
            time.sleep(0.002)
        return True

    def num_finished(self) -> int:
        """Stages noted in the progress file."""
        path = self.data_dir / "progress.sqlite"
        if not path.exists():
            return 0
        try:
            with sqlite3.connect(path, timeout=5) as db:
                return int(db.execute("SELECT count(*) FROM finished").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # the file is being made

    @staticmethod
    def kill(process: subprocess.Popen[str]) -> None:
        """kill -9."""
        process.send_signal(signal.SIGKILL)
        process.communicate()


@dataclass(frozen=True)
class Held:
    """What the tiers hold of a bank."""

    num_references: dict[str, int]
    """Document id -> references of its listing."""
    num_rows: int
    """Rows in the index."""
    memories: list[str]
    """Reference id of each stored record."""
    stored: dict[str, bool]
    """Reference id in the index -> whether its memory is stored."""


async def held(stack: DecoderStack, reference_ids: list[str], bank: str = BANK) -> Held:
    """Ask all three tiers."""
    async with (
        RetrievalClient(stack.retrieval.address) as index,
        MemoryClient(stack.memory.address) as memory,
        DecoderClient(stack.decoder.address) as decoder,
    ):
        fingerprint = (await decoder.info()).model_fingerprint
        documents = [document async for document in index.list_documents(bank)]
        found = []
        for start in range(0, len(reference_ids), 256):
            found += await index.get_references(bank, reference_ids[start : start + 256])
        memories = [entry.reference_id async for entry in memory.list(bank, fingerprint)]
        stat = await memory.stat(bank, fingerprint, [reference.reference_id for reference in found])
        return Held(
            {document.document_id: document.num_references for document in documents},
            (await index.describe_bank(bank)).num_references,
            memories,
            {item.reference_id: item.exists for item in stat},
        )
