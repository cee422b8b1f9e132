"""Ingest against three real tiers (Milvus Lite, a folder of records, the tiny model)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory3.decoder import DecoderClient
from memory3.retrieval import RetrievalClient
from memory3.types import GenerationRequest, MemoryStatus, Mode, ReferenceText, Tier
from model.identity import reference_id
from model.tokenizer import Tokenizer
from services.ingest.chunk import Cutter
from services.ingest.documents import Selection, SourceDocument, read
from services.ingest.tokenizer import ModelTokenizer
from tests.helpers.decoder_stack import DecoderStack, decoder_stack
from tests.helpers.ingest_runs import Ingest, held


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecoderStack]:
    folder = tmp_path_factory.mktemp("stack")
    lite = {"MEMORY3_RETRIEVAL_INDEX": "milvus", "MEMORY3_RETRIEVAL_MILVUS_URI": str(folder / "index.db")}
    with decoder_stack(folder, "local", retrieval_env=lite) as started:
        yield started


@pytest.fixture
def ingest(stack: DecoderStack, tmp_path: Path, request: pytest.FixtureRequest) -> Ingest:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.lower())
    return Ingest(stack, tmp_path, bank=name[:60])


def ids_of(folder: Path, stack: DecoderStack) -> list[str]:
    """Reference ids that the folder's documents must have, in order."""
    tokenizer = ModelTokenizer(Tokenizer.load(stack.folder / "tiny-model"))
    cutter = Cutter(tokenizer, tokenizer.digest, 128)
    documents = [item for item in read(Selection([str(folder)])) if isinstance(item, SourceDocument)]
    return [reference.reference_id for document in documents for reference in cutter.cut(document).references]


def make_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.txt").write_text("The lighthouse of Orva was built in 1852. " * 3 + "It burns whale oil to this day.")
    (folder / "b.md").write_text("# Salt\n\nThe *salt* road begins in Mirren.\n\n- It ends in Tolk.\n")
    (folder / "c.html").write_text("<title>Bees</title><p>Bees of the north sleep in winter.</p>")
    lines = [{"id": "x", "title": "X", "text": "Xanthe painted the hall."}, {"text": "A nameless line."}]
    (folder / "d.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


async def test_a_folder_becomes_a_bank_that_is_recalled(ingest: Ingest, stack: DecoderStack, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "docs")
    summary = ingest.run("docs")
    ids = ids_of(folder, stack)
    found = await held(stack, ids, ingest.bank)
    assert set(found.num_references) == {"docs/a.txt", "docs/b.md", "docs/c.html", "x", "docs/d.jsonl:2"}
    assert found.num_rows == len(ids) == summary["references"] == sum(found.num_references.values())
    assert sorted(found.memories) == sorted(set(ids))
    assert all(found.stored.values())
    assert (summary["documents"], summary["failures"], summary["stopped"]) == (5, [], "")
    async with RetrievalClient(stack.retrieval.address) as index, DecoderClient(stack.decoder.address) as decoder:
        hits = (await index.retrieve(ingest.bank, ["Who painted the hall?"], 1)).results[0]
        assert [(hit.reference.document_id, hit.reference.title) for hit in hits] == [("x", "X")]
        request = GenerationRequest(Mode.MEMORY, prompt="Who painted the hall?", bank=ingest.bank, max_tokens=4)
        answer = await decoder.generate_once(request)
        assert [memory.status for memory in answer.recalls[0].memories] == [MemoryStatus.READ] * 5
        assert Tier.COLD not in [memory.tier for memory in answer.recalls[0].memories]


async def test_again_it_does_nothing_and_a_change_replaces(ingest: Ingest, stack: DecoderStack, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "docs")
    before = set(ids_of(folder, stack)) if ingest.run("docs") else set()
    again = ingest.run("docs")
    assert (again["documents_unchanged"], again["memories_written"], again["references_indexed"]) == (5, 0, 0)
    (folder / "c.html").write_text("<title>Bees</title><p>Bees of the south never sleep.</p>")
    changed = ingest.run("docs")
    after = ids_of(folder, stack)
    assert (changed["documents_unchanged"], changed["memories_written"]) == (4, 1)
    assert (changed["references_removed"], changed["memories_deleted"]) == (1, 1)
    found = await held(stack, sorted(before | set(after)), ingest.bank)
    assert sorted(found.stored) == sorted(found.memories) == sorted(set(after))


async def test_cold_then_warm_writes_what_is_missing(ingest: Ingest, stack: DecoderStack, tmp_path: Path) -> None:
    ids = ids_of(make_folder(tmp_path / "docs"), stack)
    cold = ingest.run("docs", "--memories", "cold")
    assert cold["references_indexed"] == len(ids)
    assert (await held(stack, ids, ingest.bank)).memories == []
    async with DecoderClient(stack.decoder.address) as decoder:
        text = "Bees of the north sleep in winter."
        await decoder.write(ingest.bank, [ReferenceText(reference_id(text), text)])
    warm = ingest.run("docs", "--memories", "warm")
    assert (warm["references_indexed"], warm["memories_written"], warm["memories_existed"]) == (0, len(ids) - 1, 1)
    assert sorted((await held(stack, ids, ingest.bank)).memories) == sorted(ids)


async def test_a_dry_run_says_what_a_run_then_does(ingest: Ingest, stack: DecoderStack, tmp_path: Path) -> None:
    make_folder(tmp_path / "docs")
    expected = ingest.run("docs", "--dry-run")
    async with RetrievalClient(stack.retrieval.address) as index:
        assert ingest.bank not in [bank.bank for bank in await index.list_banks()]
    done = ingest.run("docs")
    assert (expected["documents"], expected["references_ahead"]) == (done["documents"], done["references"])
    assert done["bytes_written"] <= expected["bytes_expected"] < 10 * done["bytes_written"]
    again = ingest.run("docs", "--dry-run")
    assert (again["references_ahead"], again["documents_finished"]) == (0, 5)


async def test_every_kind_of_bad_input_is_named_and_the_rest_goes_on(ingest: Ingest, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "docs")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    (folder / "bad.jsonl").write_bytes(b'{"text": "A good line."}\n{oops\n\xff\n')
    with (folder / "huge.txt").open("wb") as file:
        file.truncate(1 << 34)
    summary = ingest.run("docs", "missing.txt", "package:unknown", code=1)
    assert sorted(failure["source"] for failure in summary["failures"]) == [
        "docs/bad.jsonl:2",
        "docs/bad.jsonl:3",
        "docs/huge.txt",
        "docs/latin.txt",
        "docs/picture.txt",
        "missing.txt",
        "package:unknown",
    ]
    assert (summary["documents"], summary["documents_empty"], summary["stopped"]) == (6, 1, "")


def test_wrong_usage_is_said_before_anything_starts(ingest: Ingest) -> None:
    process = Ingest(ingest.stack, ingest.data_dir, bank="No Bank").start("x.txt")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert "a bank's name has 1 to 63 characters" in err
