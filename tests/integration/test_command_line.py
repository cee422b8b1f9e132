"""The command line against real retrieval and memory services: searching, looking, deleting, being refused."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from memory3.client import Client
from memory3.types import Reference
from model.identity import reference_id
from tests.helpers.processes import ServiceProcess, service_process

TEXTS = {"etna": "Mount Etna is a volcano on Sicily.", "fuji": "Mount Fuji is a volcano in Japan."}

BEFORE = "There are two of them."
USES = {
    "inspect": ("retrieval", "memory", "decoder"),
    "info": ("retrieval", "memory", "decoder"),
    "delete": ("retrieval", "memory"),
}
"""The tiers that a command takes addresses of; the others take retrieval's only."""


@pytest.fixture(scope="module")
def tiers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    folder = tmp_path_factory.mktemp("tiers")
    retrieval = {
        "MEMORY3_RETRIEVAL_PORT": "0",
        "MEMORY3_RETRIEVAL_INDEX": "local",
        "MEMORY3_RETRIEVAL_EMBEDDER": "hash",
    }
    memory = {"MEMORY3_MEMORY_PORT": "0", "MEMORY3_MEMORY_STORE_URI": str(folder / "memories")}
    with (
        service_process("services.retrieval", retrieval, folder / "retrieval.log") as first,
        service_process("services.memory", memory, folder / "memory.log") as second,
    ):
        asyncio.run(fill(first.address))
        yield first, second


async def fill(address: str) -> None:
    async with Client(retrieval=address) as client:
        for name, text in TEXTS.items():
            own = reference_id(text, BEFORE)
            reference = Reference(own, text, name, name.title(), num_tokens=9, end_char=len(text), preceding=BEFORE)
            await client.retrieval.upsert("mountains", name, "v1", [reference])


def memory3(tiers: tuple[ServiceProcess, ServiceProcess], *arguments: str) -> subprocess.CompletedProcess[str]:
    addresses = {"retrieval": tiers[0].address, "memory": tiers[1].address, "decoder": tiers[1].address}
    options = [
        f"--{name}={address}" for name, address in addresses.items() if name in USES.get(arguments[0], ("retrieval",))
    ]
    return subprocess.run(
        [sys.executable, "-m", "memory3.cli", *arguments, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def answer(tiers: tuple[ServiceProcess, ServiceProcess], *arguments: str) -> Any:
    done = memory3(tiers, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_from_a_search_to_a_delete(tiers: tuple[ServiceProcess, ServiceProcess]) -> None:
    assert [bank["num_documents"] for bank in answer(tiers, "banks")["banks"]] == [2]
    hits = answer(tiers, "retrieve", "Mount Etna, a volcano on Sicily", "--bank", "mountains")["hits"]
    assert [hit["reference"]["document_id"] for hit in hits] == ["etna", "fuji"]
    found = answer(tiers, "inspect", hits[0]["reference"]["reference_id"], "--bank", "mountains", "--all-models")
    assert (found["places"][0]["text"], found["memories"]) == (TEXTS["etna"], [])
    shown = memory3(tiers, "inspect", hits[0]["reference"]["reference_id"], "--bank", "mountains").stdout
    assert shown.startswith(f"behind: {BEFORE}\n\n{TEXTS['etna']}")
    listed = answer(tiers, "documents", "--bank", "mountains")
    assert [document["document_id"] for document in listed["documents"]] == ["etna", "fuji"]
    gone = answer(tiers, "delete", "--bank", "mountains", "--document", "etna", "--yes")
    assert (gone["num_documents"], gone["num_references"], gone["num_memories"]) == (1, 1, 0)
    assert answer(tiers, "documents", "--bank", "mountains")["num_documents"] == 1
    answer(tiers, "delete", "--bank", "mountains", "--all", "--yes")
    done = memory3(tiers, "documents", "--bank", "mountains")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("memory3: unknown bank: ")
    assert done.stderr.count("\n") == 1


def test_what_a_service_refuses_is_one_line(tiers: tuple[ServiceProcess, ServiceProcess]) -> None:
    done = memory3(tiers, "retrieve", "x", "--bank", "No Such Name!")
    assert done.returncode == 1
    assert done.stderr.startswith("memory3: malformed request: ")


def test_info_sees_real_health(tiers: tuple[ServiceProcess, ServiceProcess]) -> None:
    found = answer(tiers, "info")
    assert [tier["state"] for tier in found["tiers"]] == ["serving"] * 3
    assert found["decoder"] is None  # the memory tier stands at the decoder's address and knows no such call
