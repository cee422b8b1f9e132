"""`memory3 serve` for real: three tiers started, ingested into, asked, and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.processes import ROOT
from tests.helpers.tiny_model import tiny_model_directory, tiny_plan


def wait_for(log: Path, text: str, process: subprocess.Popen[bytes], timeout_s: float = 90.0) -> str:
    deadline = time.monotonic() + timeout_s
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return log.read_text()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "plan.json").write_text(tiny_plan().to_json())
    model = tiny_model_directory(tmp_path / "model")
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MEMORY3_RETRIEVAL_EMBEDDER": "hash",
        "MEMORY3_DECODER_MODEL": str(model),
        "MEMORY3_INGEST_TOKENIZER": str(model),
        "MEMORY3_INGEST_DATA_DIR": str(tmp_path / "ingest"),
        "NO_COLOR": "1",
    }


def command_line(environment: dict[str, str], cwd: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "memory3.cli", *arguments],
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_serve_ingest_generate_and_stop(environment: dict[str, str], tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "serve.log"
    arguments = [
        "--data-dir",
        str(data),
        "--port-base",
        "0",
        "--backend",
        "local",
        "--plan",
        str(tmp_path / "plan.json"),
    ]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.launch", *arguments],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    try:
        said = wait_for(log, "ctrl-C stops all three.", process)
        exports = [line.split()[1] for line in said.splitlines() if line.strip().startswith("export ")]
        environment |= dict(export.split("=") for export in exports)
        (tmp_path / "a.txt").write_text("Orva has a lighthouse. " * 20)
        assert "size of their memories" in command_line(
            environment, tmp_path, "ingest", "a.txt", "--bank", "b", "--dry-run"
        )
        told = command_line(environment, tmp_path, "ingest", "a.txt", "--bank", "b")
        assert "bank b: 1 document with 4 references" in told
        # The first stands behind nothing, the others behind equal ones.
        assert "wrote 2 memories" in told
        assert "equal references not sent again: 2" in told
        assert "Orva" in command_line(environment, tmp_path, "generate", "Orva?", "--bank", "b", "--max-tokens", "2")
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    finally:
        process.kill()
        process.wait()
    assert "stopping" in log.read_text()
    assert {path.name for path in (data / "logs").iterdir()} == {"retrieval.log", "memory.log", "decoder.log"}


def test_a_tier_that_cannot_start_is_shown_with_its_reason(environment: dict[str, str], tmp_path: Path) -> None:
    environment["MEMORY3_DECODER_MODEL"] = str(tmp_path / "no model here")
    arguments = ["--data-dir", str(tmp_path / "data"), "--port-base", "0", "--backend", "local"]
    done = subprocess.run(
        [sys.executable, "-m", "services.launch", *arguments],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: decoder ended with exit code" in done.stderr
    assert "no model here" in done.stderr
