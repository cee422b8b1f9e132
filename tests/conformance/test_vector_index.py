"""One suite for every VectorIndex: in process, on Milvus Lite, on a real Milvus server. And that they agree."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from memory3.errors import BackendUnavailableError, UnknownBankError
from memory3.types import Document
from services.retrieval import milvus_index
from services.retrieval.hash_embedder import HashEmbedder
from services.retrieval.local_index import LocalIndex
from services.retrieval.milvus_index import MilvusIndex
from services.retrieval.ports import BankIdentity, Row, StoredRow, VectorIndex, Vectors
from tests.helpers.milvus_server import MilvusProcess, milvus_server
from tests.helpers.references import reference_id_of, references_of

EMBEDDER = HashEmbedder(64)
IDENTITY = BankIdentity(EMBEDDER.embedder_id, EMBEDDER.dimension)
HOSTILE_IDS = [
    "plain",
    'quote"d',
    "it's",
    "back\\slash",
    'a"] or document_id != "',
    'b\\" or key > "',
    "100%_like",
    "päth/to/文件.md",
    "emoji 🧠",
    "{braces} and $dollar",
    "trailing\\",
]


@pytest.fixture(scope="module")
def server() -> Iterator[MilvusProcess]:
    with milvus_server() as process:
        yield process


def _on_server(process: MilvusProcess) -> MilvusIndex:
    return MilvusIndex(process.uri, index_type="FLAT")


@pytest.fixture(params=["local", "lite", pytest.param("server", marks=pytest.mark.milvus)])
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VectorIndex]:
    made: VectorIndex
    match request.param:
        case "local":
            made = LocalIndex()
        case "lite":
            made = MilvusIndex(str(tmp_path / "data" / "milvus.db"))
        case _:
            made = _on_server(request.getfixturevalue("server"))
    yield made
    await made.close()


@pytest.fixture
async def bank(index: VectorIndex) -> AsyncIterator[str]:
    """A bank of its own for the test."""
    name = f"t-{uuid4().hex[:8]}_x"
    assert await index.create(name, IDENTITY) == IDENTITY
    yield name
    await index.drop(name)


async def _write(index: VectorIndex, bank: str, document_id: str, texts: list[str], version: str = "v1") -> list[Row]:
    """Index a complete document."""
    references = references_of(document_id, texts)
    rows = [Row(reference, version) for reference in references[:-1]]
    rows.append(Row(references[-1], version, len(references)))
    await index.upsert(bank, rows, EMBEDDER.embed(texts))
    return rows


def _query(text: str) -> Vectors:
    return EMBEDDER.embed([text])


async def test_answers(index: VectorIndex) -> None:
    await index.check()


async def test_create_again_keeps_the_first_identity(index: VectorIndex, bank: str) -> None:
    assert await index.create(bank, BankIdentity("another", 8)) == IDENTITY
    assert await index.identity(bank) == IDENTITY


async def test_a_bank_that_many_create_at_once_is_created_once(index: VectorIndex) -> None:
    bank = f"race-{uuid4().hex[:8]}"
    made = await asyncio.gather(*(index.create(bank, BankIdentity(f"by-{n}", 8)) for n in range(5)))
    assert len(set(made)) == 1
    await index.drop(bank)


async def test_an_unknown_bank_is_named_by_every_method(index: VectorIndex) -> None:
    calls = [
        index.identity("nobank"),
        index.upsert("nobank", [Row(references_of("d", ["x"])[0], "v", 1)], _query("x")),
        index.search("nobank", _query("x"), 5, []),
        index.get("nobank", [reference_id_of("x")]),
        index.stored("nobank", ["d"]),
        index.held("nobank", [reference_id_of("x")]),
        index.delete("nobank", ["k"]),
        index.documents("nobank", "", 10),
        index.describe("nobank"),
        index.drop("nobank"),
    ]
    for call in calls:
        with pytest.raises(UnknownBankError, match="nobank"):
            await call


async def test_what_was_written_is_found_at_once_with_every_field(index: VectorIndex, bank: str) -> None:
    texts = ['the cat "sat" \\ on\nthe mat\0', "Müller kaufte 3 Äpfel 🍎", "the dog ran away"]
    rows = await _write(index, bank, "päth/to/文件.md", texts)
    [[first, *rest]] = await index.search(bank, _query("the cat sat on the mat"), 3, [])
    assert first.reference == rows[0].reference
    assert first.score == pytest.approx(1.0, abs=1e-5)
    assert [hit.score for hit in rest] == sorted((hit.score for hit in rest), reverse=True)
    assert {hit.reference for hit in (first, *rest)} == {row.reference for row in rows}


async def test_queries_are_answered_in_their_order(index: VectorIndex, bank: str) -> None:
    texts = ["red fox", "green frog", "blue whale"]
    await _write(index, bank, "d", texts)
    wanted = ["blue whale", "red fox", "green frog", "blue whale"]
    results = await index.search(bank, EMBEDDER.embed(wanted), 1, [])
    assert [hits[0].reference.text for hits in results] == wanted


async def test_an_empty_bank_has_no_hits(index: VectorIndex, bank: str) -> None:
    assert await index.search(bank, EMBEDDER.embed(["a", "b"]), 5, []) == [[], []]


async def test_the_limit_may_exceed_the_rows(index: VectorIndex, bank: str) -> None:
    await _write(index, bank, "d", ["one", "two"])
    [hits] = await index.search(bank, _query("one"), 500, [])
    assert len(hits) == 2


async def test_a_row_of_the_same_key_is_replaced(index: VectorIndex, bank: str) -> None:
    [row] = await _write(index, bank, "d", ["one"])
    await index.upsert(bank, [Row(row.reference, row.version, 0)], _query("one"))
    assert [stored.num_references for stored in await index.stored(bank, ["d"])] == [0]
    assert (await index.describe(bank)).num_references == 1


async def test_filters_take_any_document_id_literally(index: VectorIndex, bank: str) -> None:
    await asyncio.gather(*(_write(index, bank, document_id, ["same words"]) for document_id in HOSTILE_IDS))
    for document_id in HOSTILE_IDS:
        [hits] = await index.search(bank, _query("same words"), 50, [document_id])
        assert [hit.reference.document_id for hit in hits] == [document_id]
        assert [row.document_id for row in await index.stored(bank, [document_id])] == [document_id]
    [hits] = await index.search(bank, _query("same words"), 50, HOSTILE_IDS[:3])
    assert {hit.reference.document_id for hit in hits} == set(HOSTILE_IDS[:3])


async def test_documents_come_by_id_page_by_page(index: VectorIndex, bank: str) -> None:
    for document_id in reversed(HOSTILE_IDS):
        await _write(index, bank, document_id, ["one", "two"])
    await index.upsert(bank, [Row(references_of("unfinished", ["x"])[0], "v1")], _query("x"))
    listed: list[Document] = []
    while page := await index.documents(bank, listed[-1].document_id if listed else "", 3):
        assert len(page) <= 3
        listed += page
    assert [document.document_id for document in listed] == sorted(HOSTILE_IDS)
    assert listed[0] == Document(sorted(HOSTILE_IDS)[0], "Title", "file:Title", "v1", 2)


async def test_versions_lie_side_by_side_until_one_is_deleted(index: VectorIndex, bank: str) -> None:
    old = await _write(index, bank, "d", ["kept", "dropped"], "v1")
    new = await _write(index, bank, "d", ["kept", "added"], "v2")
    assert {row.key for row in await index.stored(bank, ["d"])} == {row.key for row in (*old, *new)}
    await index.delete(bank, [row.key for row in old])
    ids = [reference_id_of(text) for text in ("kept", "dropped", "added")]
    assert await index.held(bank, ids) == {ids[0], ids[2]}
    assert {row.key for row in await index.stored(bank, ["d"])} == {row.key for row in new}
    assert [document.version for document in await index.documents(bank, "", 10)] == ["v2"]


async def test_stored_says_what_maintenance_needs(index: VectorIndex, bank: str) -> None:
    rows = await _write(index, bank, "d", ["one", "two"])
    await _write(index, bank, "other", ["one"])
    assert sorted(await index.stored(bank, ["d"]), key=lambda row: row.num_references) == [
        StoredRow(row.key, row.reference.reference_id, "d", "v1", row.num_references) for row in rows
    ]
    assert await index.stored(bank, ["none"]) == []


async def test_a_delete_leaves_nothing_behind(index: VectorIndex, bank: str) -> None:
    rows = await _write(index, bank, 'odd"\\id', ["one", "two"])
    await index.delete(bank, [*(row.key for row in rows), "absent"])
    await index.delete(bank, [rows[0].key])
    assert await index.search(bank, _query("one"), 5, []) == [[]]
    assert await index.held(bank, [reference_id_of("one")]) == set()
    described = await index.describe(bank)
    assert (described.num_references, described.num_documents) == (0, 0)


async def test_get_brings_every_holder(index: VectorIndex, bank: str) -> None:
    first = await _write(index, bank, "a", ["shared", "own"])
    second = await _write(index, bank, "b", ["shared"])
    found = await index.get(bank, [reference_id_of("shared"), "0" * 32])
    assert sorted(found, key=lambda r: r.document_id) == [first[0].reference, second[0].reference]


async def test_banks_are_apart_and_listed_by_name(index: VectorIndex) -> None:
    stem = f"b{uuid4().hex[:6]}"
    names = [f"{stem}-x", f"{stem}_x", f"{stem}_dx", f"{stem}_u-x", f"{stem}x"]
    await asyncio.gather(*(index.create(name, IDENTITY) for name in names))
    await asyncio.gather(*(_write(index, name, name, [f"text of {name}"]) for name in names))
    for name in names:
        [hits] = await index.search(name, _query("text"), 10, [])
        assert [hit.reference.document_id for hit in hits] == [name]
    listed = [found for found in await index.banks() if found.bank.startswith(stem)]
    assert [found.bank for found in listed] == sorted(names)
    assert {(found.num_references, found.embedder_id, found.dimension) for found in listed} == {
        (1, IDENTITY.embedder_id, IDENTITY.dimension)
    }
    await index.drop(names[0])
    with pytest.raises(UnknownBankError):
        await index.identity(names[0])
    assert await index.identity(names[1]) == IDENTITY
    await asyncio.gather(*(index.drop(name) for name in names[1:]))


async def test_a_dropped_bank_starts_empty_with_a_new_identity(index: VectorIndex, bank: str) -> None:
    await _write(index, bank, "d", ["one"])
    await index.drop(bank)
    other = BankIdentity("other", 32)
    assert await index.create(bank, other) == other
    assert (await index.describe(bank)).num_references == 0


async def test_agrees_with_the_exact_twin(index: VectorIndex, bank: str) -> None:
    """Random vectors, more rows than Lite keeps unflushed: same hits, same scores."""
    generator = np.random.default_rng(3)
    references = [references_of(f"d{number % 40:02}", [f"text {number}"], first=number)[0] for number in range(700)]
    vectors = generator.normal(size=(len(references), IDENTITY.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [Row(reference, "v1") for reference in references]
    twin = LocalIndex()
    await twin.create(bank, IDENTITY)
    for target in (index, twin):
        for first in range(0, len(rows), 100):
            await target.upsert(bank, rows[first : first + 100], vectors[first : first + 100])
        await target.delete(bank, [row.key for row in rows[50:150]])
    queries = vectors[:8] + generator.normal(size=(8, IDENTITY.dimension)).astype(np.float32) * 0.1
    for documents in ([], ["d03", "d17"]):
        found = await index.search(bank, queries, 10, documents)
        exact = await twin.search(bank, queries, 10, documents)
        for hits, wanted in zip(found, exact, strict=True):
            assert [hit.reference for hit in hits] == [hit.reference for hit in wanted]
            # Exact Milvus scores a query of any length by cosine; the twin is given unit vectors by every embedder.
            norm = hits[0].score / wanted[0].score
            np.testing.assert_allclose([h.score for h in hits], [h.score * norm for h in wanted], atol=1e-4)
    assert len(await index.stored(bank, [f"d{number:02}" for number in range(40)])) == 600


async def test_lite_keeps_its_rows_over_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "milvus.db")
    index = MilvusIndex(path)
    await index.create("kept", IDENTITY)
    rows = await _write(index, "kept", "d", ["one", "two"])
    await index.close()
    again = MilvusIndex(path)
    assert [document.document_id for document in await again.documents("kept", "", 10)] == ["d"]
    assert await again.identity("kept") == IDENTITY
    assert {row.key for row in await again.stored("kept", ["d"])} == {row.key for row in rows}
    [hits] = await again.search("kept", _query("two"), 1, [])
    assert hits[0].reference.text == "two"
    await again.close()


async def test_a_bank_whose_rows_lack_what_precedes_them_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As banks of before were made: they match no embedder, and can be read by id, listed and dropped."""
    index = MilvusIndex(str(tmp_path / "milvus.db"))
    [reference] = references_of("d", ["one"])
    row = Row(reference, "v1", 1)
    held = {name: value for name, value in reference.__dict__.items() if name != "preceding"}
    data = {**held, "key": row.key, "version": "v1", "num_references": 1, "vector": _query("one")[0]}
    with monkeypatch.context() as before:
        fields = {name: size for name, size in milvus_index._TEXTS.items() if name != "preceding"}
        before.setattr(milvus_index, "_TEXTS", fields)
        before.setattr(milvus_index, "_ROWS_NOW", "1")
        await index.create("old", IDENTITY)
        await index._milvus.run(lambda client: client.upsert(milvus_index.collection_of("old"), [data]))
    index._identities.clear()
    identity = await index.create("old", IDENTITY)
    assert identity.embedder_id == f"{IDENTITY.embedder_id} (rows of an earlier version)"
    assert await index.get("old", [reference.reference_id]) == [reference]
    assert [(bank.bank, bank.num_references) for bank in await index.banks()] == [("old", 1)]
    assert await index.held("old", [reference.reference_id]) == {reference.reference_id}
    await index.drop("old")
    assert await index.create("old", IDENTITY) == IDENTITY
    await index.close()


async def test_lite_in_an_impossible_place_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    index = MilvusIndex(str(tmp_path / "file" / "milvus.db"))
    with pytest.raises(BackendUnavailableError, match="is the folder writable"):
        await index.check()
    await index.close()


async def test_a_server_that_is_not_there_is_named_without_its_credentials() -> None:
    index = MilvusIndex("http://root:secret@127.0.0.1:9", token="root:secret", timeout_s=0.5)
    with pytest.raises(BackendUnavailableError, match=r"Milvus at http://127\.0\.0\.1:9 ") as raised:
        await index.banks()
    assert "secret" not in str(raised.value)
    assert raised.value.retry_after_ms
    await index.close()


@pytest.mark.milvus
async def test_hnsw_on_a_server_finds_what_was_written(server: MilvusProcess) -> None:
    index = MilvusIndex(server.uri)
    bank = f"hnsw-{uuid4().hex[:8]}"
    await index.create(bank, IDENTITY)
    texts = [f"word{number} thing{number}" for number in range(50)]
    await _write(index, bank, "d", texts)
    results = await index.search(bank, EMBEDDER.embed(texts[:10]), 1, [])
    assert [hits[0].reference.text for hits in results] == texts[:10]
    await index.drop(bank)
    await index.close()


@pytest.mark.milvus
@pytest.mark.slow
async def test_a_server_that_was_killed_is_found_again_with_its_rows(server: MilvusProcess) -> None:
    """Last in this file: after it the server is busy loading."""
    index = MilvusIndex(server.uri, index_type="FLAT", timeout_s=2.0)
    bank = f"killed-{uuid4().hex[:8]}"
    await index.create(bank, IDENTITY)
    rows = await _write(index, bank, "d", ["one", "two"])
    server.kill()
    with pytest.raises(BackendUnavailableError, match=re.escape(server.uri)):
        await index.search(bank, _query("one"), 1, [])
    with pytest.raises(BackendUnavailableError):
        await index.check()
    server.start()
    deadline = time.monotonic() + 90
    while True:
        try:
            assert {row.key for row in await index.stored(bank, ["d"])} == {row.key for row in rows}
            break
        except BackendUnavailableError:
            assert time.monotonic() < deadline
    await index.check()
    [hits] = await index.search(bank, _query("two"), 1, [])
    assert hits[0].reference.text == "two"
    await index.close()
