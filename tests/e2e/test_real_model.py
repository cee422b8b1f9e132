"""The main job with nothing replaced: `memory3 serve` on Ray, Milvus Lite, a real encoder and a real language model.

Answers of a small model are not asserted word by word; what the tiers did for them is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.processes import ROOT

pytestmark = [pytest.mark.weights, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

BANK = "facts"
FACTS = {
    "vrenholm": "Vrenholm is a small kingdom in the far north. The capital of Vrenholm is Quistadel. It grows barley.",
    "ostrand": "Ostrand is an island republic. The capital of Ostrand is Mirabrunn. Its ships carry salt and wool.",
    "kelmore": "Kelmore is a mountain state. The capital of Kelmore is Tavistry. Its people make cheese.",
}
PROMPT = "Question: What is the capital of Vrenholm?\nAnswer: The capital of Vrenholm is"


class Machine:
    """One `memory3 serve` and the command line against it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "serve.log"
        self._environment = dict(os.environ)
        with self._log.open("w") as log:
            command = ["serve", "--data-dir", str(folder / "data"), "--port-base", "0", "--backend", "ray"]
            self._serve = subprocess.Popen(
                [sys.executable, "-m", "memory3.cli", *command],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def wait_ready(self, timeout_s: float = 240) -> None:
        """Read the addresses that `memory3 serve` says to export."""
        deadline = time.monotonic() + timeout_s
        wanted = ("MEMORY3_RETRIEVAL", "MEMORY3_MEMORY", "MEMORY3_DECODER")
        while not all(name in self._environment for name in wanted):
            text = self._log.read_text()
            assert self._serve.poll() is None, text
            assert time.monotonic() < deadline, text
            for line in text.splitlines():
                name, _, address = line.strip().removeprefix("export ").partition("=")
                if name in wanted:
                    self._environment[name] = address
            time.sleep(0.1)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One `memory3` command, which must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "memory3.cli", *arguments],
            check=False,
            env=self._environment | {"MEMORY3_INGEST_DATA_DIR": str(self._folder / "ingest")},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def generate(self, mode: str, *arguments: str) -> list[dict[str, object]]:
        """The events of one generation."""
        command = ["generate", PROMPT, "--raw", "--bank", BANK, "--mode", mode, "--max-tokens", "12", "--json"]
        return [json.loads(line) for line in self.run(*command, *arguments).stdout.splitlines()]

    def stop(self) -> int:
        """Ctrl-C, as a person would."""
        self._serve.send_signal(signal.SIGINT)
        try:
            return self._serve.wait(60)
        finally:
            self._serve.kill()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("e2e")
    running = Machine(folder)
    try:
        running.wait_ready()
        texts = folder / "texts"
        texts.mkdir()
        for name, text in FACTS.items():
            (texts / f"{name}.txt").write_text(text)
        running.run("ingest", str(texts), "--bank", BANK, "--memories", "cold", "--json")
        yield running
    finally:
        running.stop()


def _text(events: list[dict[str, object]]) -> str:
    return "".join(str(event.get("text", "")) for event in events if event.get("event", event.get("type")) == "token")


def test_the_model_reads_its_references_in_each_mode(machine: Machine) -> None:
    none, rag, memory = (machine.generate(mode) for mode in ("none", "rag", "memory"))
    assert "Quistadel" not in _text(none)
    assert "Quistadel" in _text(rag)
    assert _text(memory) != _text(none)


def test_memory_mode_says_what_was_read(machine: Machine) -> None:
    events = machine.generate("memory", "--recall-deadline-ms", "30000")
    recalls = [event for event in events if event.get("event", event.get("type")) == "recall"]
    titles = {memory["document_id"]: memory["status"] for memory in recalls[0]["memories"]}  # type: ignore[attr-defined]
    assert set(titles.values()) == {"read"}
    assert len(titles) == len(FACTS)
    final = events[-1]
    read = [span["reference_ids"] for span in final["spans"]]  # type: ignore[attr-defined]
    assert [len(ids) for ids in read] == [len(FACTS)] * len(read)
    assert final["usage"]["num_memories_read"] == len(FACTS) * len(read)  # type: ignore[index]


def test_cold_start_left_the_memories_in_the_store(machine: Machine) -> None:
    machine.generate("memory", "--recall-deadline-ms", "30000")
    summary = json.loads(machine.run("ingest", str(machine._folder / "texts"), "--bank", BANK, "--json").stdout)
    assert summary["memories_existed"] == len(FACTS)
    assert summary["memories_written"] == 0


def test_every_verb_answers(machine: Machine) -> None:
    banks = json.loads(machine.run("banks", "--json").stdout)
    info = json.loads(machine.run("info", "--json").stdout)
    hits = json.loads(machine.run("retrieve", "capital of Ostrand", "--bank", BANK, "--json").stdout)
    assert BANK in json.dumps(banks)
    assert "SmolLM2-135M" in json.dumps(info)
    assert "ostrand" in json.dumps(hits).lower()
