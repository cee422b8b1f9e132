"""What ingest withstands: its own death at any point, and tiers that are down, restarted or refuse."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory3.client import Client
from model.identity import reference_id
from tests.helpers.decoder_stack import DecoderStack, decoder_stack
from tests.helpers.ingest_runs import Ingest, held
from tests.helpers.small_disk import remount, small_disk

NUM_DOCUMENTS = 120
TEXTS = [
    f"Number {n} of the hill stations lies at {n * 7} metres and keeps {n % 13} goats." for n in range(NUM_DOCUMENTS)
]
IDS = [reference_id(text) for text in TEXTS]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecoderStack]:
    folder = tmp_path_factory.mktemp("stack")
    lite = {"MEMORY3_RETRIEVAL_INDEX": "milvus", "MEMORY3_RETRIEVAL_MILVUS_URI": str(folder / "index.db")}
    with decoder_stack(folder, "local", retrieval_env=lite) as started:
        yield started


@pytest.fixture
def ingest(stack: DecoderStack, tmp_path: Path, request: pytest.FixtureRequest) -> Ingest:
    lines = [json.dumps({"id": f"d{n}", "text": text}) for n, text in enumerate(TEXTS)]
    (tmp_path / "stations.jsonl").write_text("\n".join(lines))
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower())
    return Ingest(stack, tmp_path, bank=name[:60])


async def check_all_is_there_once(ingest: Ingest) -> None:
    found = await held(ingest.stack, IDS, ingest.bank)
    assert found.num_references == {f"d{n}": 1 for n in range(NUM_DOCUMENTS)}
    assert found.num_rows == NUM_DOCUMENTS
    assert sorted(found.memories) == sorted(IDS), "each memory once, and no other"
    assert found.stored == dict.fromkeys(IDS, True)


@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_at_random_points_it_goes_on_where_it_was(ingest: Ingest, seed: int) -> None:
    rng = random.Random(seed)
    finished = 0
    for _ in range(4):
        process = ingest.start("stations.jsonl")
        if not ingest.wait_for_progress(process, finished + rng.randint(1, NUM_DOCUMENTS // 3)):
            break
        ingest.kill(process)
        finished = ingest.num_finished()
        assert finished > 0
    summary = ingest.run("stations.jsonl")
    assert summary["documents"] == NUM_DOCUMENTS
    assert summary["memories_written"] + summary["references_indexed"] <= 2 * NUM_DOCUMENTS - finished, (
        "none done twice"
    )
    await check_all_is_there_once(ingest)
    assert ingest.run("stations.jsonl")["documents_unchanged"] == NUM_DOCUMENTS


async def test_interrupted_it_says_so_and_goes_on(ingest: Ingest) -> None:
    process = ingest.start("stations.jsonl")
    assert ingest.wait_for_progress(process, 10)
    process.send_signal(signal.SIGINT)
    summary = ingest.end(process, code=130)
    assert summary["stopped"] == "interrupted; run the same command again to go on"
    ingest.run("stations.jsonl")
    await check_all_is_there_once(ingest)


@pytest.mark.parametrize("tier", ["retrieval", "memory", "decoder"])
async def test_a_tier_that_is_killed_and_restarted_is_waited_for(ingest: Ingest, tier: str) -> None:
    process = ingest.start("stations.jsonl")
    service = getattr(ingest.stack, tier)
    assert ingest.wait_for_progress(process, 20)
    service.kill()
    service.restart_on_same_port(f"MEMORY3_{tier.upper()}_PORT")
    summary = ingest.end(process)
    assert (summary["documents"], summary["failures"], summary["stopped"]) == (NUM_DOCUMENTS, [], "")
    await check_all_is_there_once(ingest)


@pytest.mark.parametrize(("tier", "named"), [("retrieval", "retrieval"), ("memory", "decoder")])
async def test_a_tier_that_stays_down_stops_the_run_and_the_next_one_ends_it(
    ingest: Ingest, tier: str, named: str
) -> None:
    """Memories are put by the decoder, so the memory tier's absence is seen in the decoder's answers."""
    ingest.env["MEMORY3_INGEST_PATIENCE_SECONDS"] = "0.5"
    process = ingest.start("stations.jsonl")
    service = getattr(ingest.stack, tier)
    assert ingest.wait_for_progress(process, 20)
    service.kill()
    summary = ingest.end(process, code=1)
    assert summary["stopped"].startswith(f"{named} at {getattr(ingest.stack, named).address} has failed for")
    assert service.address in summary["stopped"]
    assert summary["stopped"].endswith("run the same command again to go on")
    service.restart_on_same_port(f"MEMORY3_{tier.upper()}_PORT")
    ingest.run("stations.jsonl")
    await check_all_is_there_once(ingest)


async def test_a_full_disk_stops_the_run_and_the_next_one_ends_it(ingest: Ingest, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "300k"):
        ingest.env["MEMORY3_INGEST_DATA_DIR"] = str(disk)
        summary = ingest.run("stations.jsonl", code=1)
        assert "disk is full; make room" in summary["stopped"]
        assert 0 < summary["documents"] < NUM_DOCUMENTS
        remount(disk, "size=20m")
        assert ingest.run("stations.jsonl")["documents"] == NUM_DOCUMENTS
    await check_all_is_there_once(ingest)


async def test_tiers_that_are_down_at_the_start_are_named_with_the_remedy(ingest: Ingest) -> None:
    nobody = "127.0.0.1:1"
    ingest.env["MEMORY3_INGEST_CONNECT_SECONDS"] = "0.3"
    for name, arguments in (("retrieval", ["--memories", "cold"]), ("decoder", [])):
        answer = ingest.run("stations.jsonl", f"--{name}", nobody, *arguments, code=1)
        assert f"{name} at {nobody} does not answer. Start the services with `memory3 serve`" in answer["error"]
        assert f"MEMORY3_{name.upper()}=host:port" in answer["error"]


async def test_a_deleted_bank_is_built_again(ingest: Ingest) -> None:
    ingest.run("stations.jsonl")
    addresses = {name: getattr(ingest.stack, name).address for name in ("retrieval", "memory", "decoder")}
    async with Client(**addresses) as client:
        await client.delete_bank(ingest.bank)
    assert ingest.run("stations.jsonl")["memories_written"] == NUM_DOCUMENTS
    await check_all_is_there_once(ingest)


def test_a_progress_folder_that_cannot_be_used_is_named(ingest: Ingest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ingest.env["MEMORY3_INGEST_DATA_DIR"] = str(tmp_path / "file" / "below")
    answer = ingest.run("stations.jsonl", code=1)
    assert "cannot use the progress file" in answer["error"]
    assert "MEMORY3_INGEST_DATA_DIR" in answer["error"]
