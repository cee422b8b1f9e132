"""The three services as processes for a benchmark, with real weights and a slice of real text."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.processes import ServiceProcess

BANK = "bench"


@dataclass(frozen=True)
class Stack:
    """Running services; `restart_decoder` starts it again with other settings, its caches empty."""

    folder: Path
    retrieval: ServiceProcess
    memory: ServiceProcess
    decoder: ServiceProcess

    def environment(self) -> dict[str, str]:
        """Addresses for the command line tools."""
        return {
            "MEMORY3_RETRIEVAL": self.retrieval.address,
            "MEMORY3_MEMORY": self.memory.address,
            "MEMORY3_DECODER": self.decoder.address,
        }

    def ingest(self, documents: int, memories: str) -> dict[str, object]:
        """Ingest the first Wikipedia leads; returns the run's summary."""
        command = [sys.executable, "-m", "services.ingest", "package:wikipedia-leads", "--bank", BANK, "--json"]
        command += ["--limit", str(documents), "--memories", memories]
        env = {**os.environ, **self.environment(), "MEMORY3_INGEST_DATA_DIR": str(self.folder / "ingest")}
        done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))


@contextlib.contextmanager
def stack(
    folder: Path,
    decoder_env: Mapping[str, str] | None = None,
    memory_env: Mapping[str, str] | None = None,
) -> Iterator[Stack]:
    """Start retrieval (Milvus Lite, sentence encoder), memory (a folder) and decoder (in process backend)."""
    folder.mkdir(parents=True, exist_ok=True)
    retrieval = ServiceProcess(
        "services.retrieval",
        {"MEMORY3_RETRIEVAL_PORT": "0", "MEMORY3_RETRIEVAL_MILVUS_URI": str(folder / "index.db")},
        folder / "retrieval.log",
    )
    memory = ServiceProcess(
        "services.memory",
        {"MEMORY3_MEMORY_PORT": "0", "MEMORY3_MEMORY_STORE_URI": str(folder / "memories"), **(memory_env or {})},
        folder / "memory.log",
    )
    started: list[ServiceProcess] = []
    try:
        for process in (retrieval, memory):
            started.append(process)
            process.start(timeout_s=240)
        decoder = ServiceProcess(
            "services.decoder",
            {
                "MEMORY3_DECODER_PORT": "0",
                "MEMORY3_DECODER_BACKEND": "local",
                "MEMORY3_DECODER_RETRIEVAL_ADDRESS": retrieval.address,
                "MEMORY3_DECODER_MEMORY_ADDRESS": memory.address,
                **(decoder_env or {}),
            },
            folder / "decoder.log",
        )
        started.append(decoder)
        decoder.start(timeout_s=240)
        yield Stack(folder, retrieval, memory, decoder)
    finally:
        for process in reversed(started):
            process.stop()
