"""The core on the in-process index: versions, parts, orphans, repeated references, pages, mismatch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory3.errors import MalformedRequestError, ModelMismatchError, UnknownBankError
from memory3.types import Document
from services.retrieval.batcher import Batcher
from services.retrieval.core import RetrievalCore
from services.retrieval.hash_embedder import HashEmbedder
from services.retrieval.local_index import LocalIndex
from services.retrieval.ports import Row, Vectors
from tests.helpers.references import reference_id_of, references_of


class CountingIndex(LocalIndex):
    """Remembers how many rows were written, and what was searched for."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        self.limits: list[int] = []

    async def upsert(self, bank: str, rows: Sequence[Row], vectors: Vectors) -> None:
        self.written += len(rows)
        await asyncio.sleep(0)
        await super().upsert(bank, rows, vectors)

    async def search(self, bank: str, vectors: Vectors, limit: int, document_ids: Sequence[str]):  # type: ignore[no-untyped-def]
        self.limits.append(limit)
        return await super().search(bank, vectors, limit, document_ids)


@pytest.fixture
def index() -> CountingIndex:
    return CountingIndex()


@pytest.fixture
async def core(index: CountingIndex) -> AsyncIterator[RetrievalCore]:
    batcher = Batcher(HashEmbedder(), max_batch_texts=4, max_queue_texts=256)
    yield RetrievalCore(index, batcher)
    await batcher.close()


async def _add(
    core: RetrievalCore, document_id: str, texts: list[str], version: str = "v1", *, first: int = 0, last: bool = True
):  # type: ignore[no-untyped-def]
    references = references_of(document_id, texts, first=first)
    return await core.upsert("bank", document_id, version, references, last_part=last)


async def _texts(core: RetrievalCore, query: str, top_k: int = 100) -> list[str]:
    result = await core.retrieve("bank", [query], top_k, [])
    return [hit.reference.text for hit in result.results[0]]


async def test_embed_gives_unit_vectors_as_bytes(core: RetrievalCore) -> None:
    result = await core.embed(["one", "two words"])
    vectors = np.frombuffer(b"".join(result.vectors), dtype="<f4").reshape(2, result.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert result.embedder_id == "hash-1-256"
    assert result.timing.total_ns >= result.timing.embed_ns > 0


async def test_hits_fall_by_score_and_say_their_times(core: RetrievalCore) -> None:
    await _add(core, "d", ["red fox", "red dog", "blue whale"])
    result = await core.retrieve("bank", ["red fox", "whale"], 2, [])
    assert [hits[0].reference.text for hits in result.results] == ["red fox", "blue whale"]
    assert result.results[0][0].score == pytest.approx(1)
    timing = result.timing
    assert timing.total_ns >= timing.queue_ns + timing.embed_ns + timing.search_ns
    assert min(timing.embed_ns, timing.search_ns) > 0


async def test_a_reference_held_by_many_documents_comes_once(core: RetrievalCore, index: CountingIndex) -> None:
    for number in range(30):
        await _add(core, f"d{number:02}", ["shared words", f"own {number}"])
    texts = await _texts(core, "shared words", top_k=5)
    assert texts[0] == "shared words"
    assert len(set(texts)) == 5
    assert index.limits == [10, 40]


async def test_a_text_behind_others_is_found_once(core: RetrievalCore) -> None:
    for number in range(8):
        before, shared = references_of(f"d{number}", [f"own {number}", "shared words"])
        other = replace(shared, reference_id=reference_id_of(f"behind {number}"), preceding=before.text)
        await core.upsert("bank", f"d{number}", "v1", [before, other], last_part=True)
    texts = await _texts(core, "shared words", top_k=5)
    assert texts[0] == "shared words"
    assert len(set(texts)) == 5


async def test_the_same_version_again_changes_nothing(core: RetrievalCore, index: CountingIndex) -> None:
    await _add(core, "d", ["one", "two", "three"])
    written = index.written
    again = await _add(core, "d", ["one", "two", "three"])
    assert index.written == written
    assert (again.num_references, again.num_removed, list(again.orphaned_reference_ids)) == (3, 0, [])
    assert again.timing.embed_ns == 0


async def test_a_new_version_replaces_the_old_and_names_orphans(core: RetrievalCore) -> None:
    await _add(core, "d", ["kept", "dropped", "shared"])
    await _add(core, "other", ["shared"])
    result = await _add(core, "d", ["kept", "added"], "v2")
    assert (result.num_references, result.num_removed) == (2, 3)
    assert result.orphaned_reference_ids == [reference_id_of("dropped")]
    assert set(await _texts(core, "kept")) == {"kept", "added", "shared"}


async def test_both_versions_are_found_until_the_last_part(core: RetrievalCore) -> None:
    await _add(core, "d", ["old one", "old two"])
    first = await _add(core, "d", ["new one"], "v2", last=False)
    assert first.num_removed == 0
    assert set(await _texts(core, "one")) == {"old one", "old two", "new one"}
    page = await core.list_documents("bank", 0, "")
    assert [(d.version, d.num_references) for d in page.documents] == [("v1", 2)]
    last = await _add(core, "d", ["new two"], "v2", first=1)
    assert last.num_removed == 2
    assert set(await _texts(core, "one")) == {"new one", "new two"}
    page = await core.list_documents("bank", 0, "")
    assert page.documents == [Document("d", "Title", "file:Title", "v2", 2)]


async def test_a_part_sent_again_keeps_the_count(core: RetrievalCore) -> None:
    await _add(core, "d", ["one"], last=False)
    await _add(core, "d", ["two"], first=1)
    await _add(core, "d", ["two"], first=1, last=False)
    await _add(core, "d", ["one"], last=False)
    assert [d.num_references for d in (await core.list_documents("bank", 0, "")).documents] == [2]


async def test_rival_versions_leave_one_whole_document(core: RetrievalCore) -> None:
    await asyncio.gather(*(_add(core, "d", [f"a {v}", f"b {v}", f"c {v}"], v) for v in ("v1", "v2", "v3")))
    described = await core.describe_bank("bank")
    assert (described.num_references, described.num_documents) == (3, 1)


async def test_delete_names_orphans_and_is_idempotent(core: RetrievalCore) -> None:
    await _add(core, "a", ["shared", "only a"])
    await _add(core, "b", ["shared", "only b"])
    first = await core.delete("bank", ["a", "a", "absent"], whole_bank=False)
    assert (first.num_documents, first.num_references) == (1, 2)
    assert first.orphaned_reference_ids == [reference_id_of("only a")]
    again = await core.delete("bank", ["a"], whole_bank=False)
    assert (again.num_documents, again.num_references, again.orphaned_reference_ids) == (0, 0, [])
    rest = await core.delete("bank", ["b"], whole_bank=False)
    assert set(rest.orphaned_reference_ids) == {reference_id_of("shared"), reference_id_of("only b")}


async def test_a_reference_lost_by_two_documents_at_once_is_an_orphan_once(core: RetrievalCore) -> None:
    for number in range(150):  # more than one look-up takes
        await _add(core, f"d{number:03}", ["shared"])
    result = await core.delete("bank", [f"d{number:03}" for number in range(150)], whole_bank=False)
    assert result.num_documents == 150
    assert result.orphaned_reference_ids == [reference_id_of("shared")]


async def test_a_whole_bank_goes_with_its_counts(core: RetrievalCore) -> None:
    await _add(core, "a", ["one", "two"])
    result = await core.delete("bank", [], whole_bank=True)
    assert (result.num_documents, result.num_references, result.orphaned_reference_ids) == (1, 2, [])
    assert await core.list_banks() == []
    with pytest.raises(UnknownBankError):
        await core.retrieve("bank", ["x"], 1, [])


async def test_references_come_in_the_order_of_the_ids(core: RetrievalCore) -> None:
    await _add(core, "b", ["shared", "own"])
    await _add(core, "a", ["shared", "shared"])
    ids = [reference_id_of(text) for text in ("own", "unknown", "shared", "own")]
    found = await core.get_references("bank", ids)
    assert [(r.text, r.document_id) for r in found] == [("own", "b"), ("shared", "a"), ("shared", "b")]


async def test_pages_end_with_an_empty_token(core: RetrievalCore) -> None:
    for number in range(5):
        await _add(core, f"d{number}", ["one"])
    seen: list[str] = []
    token = ""
    for _ in range(3):
        page = await core.list_documents("bank", 2, token)
        seen += [document.document_id for document in page.documents]
        token = page.next_token
    assert seen == [f"d{number}" for number in range(5)]
    assert token == ""


@pytest.mark.parametrize("token", ["%%%", "abc", "/w==", "AA=="])
async def test_a_foreign_page_token_is_refused(core: RetrievalCore, token: str) -> None:
    await _add(core, "d", ["one"])
    with pytest.raises(MalformedRequestError, match="page_token"):
        await core.list_documents("bank", 2, token)


async def test_a_bank_of_another_embedder_is_refused(core: RetrievalCore, index: CountingIndex) -> None:
    await _add(core, "d", ["one"])
    batcher = Batcher(HashEmbedder(32), max_batch_texts=4, max_queue_texts=256)
    other = RetrievalCore(index, batcher)
    with pytest.raises(ModelMismatchError, match=r"hash-1-256.*hash-1-32"):
        await other.retrieve("bank", ["x"], 1, [])
    with pytest.raises(ModelMismatchError):
        await other.upsert("bank", "d", "v1", references_of("d", ["x"]), last_part=True)
    assert (await other.delete("bank", ["d"], whole_bank=False)).num_documents == 1
    await batcher.close()


async def test_bad_requests_name_value_limit_and_remedy(core: RetrievalCore) -> None:
    await _add(core, "d", ["one"])
    calls = [
        (core.embed([]), "texts: 0 given, 1 to 256 allowed"),
        (core.embed(["x"] * 257), "texts: 257 given"),
        (core.retrieve("Bank", ["x"], 1, []), "'Bank' is not a bank's name"),
        (core.retrieve("bank", [], 1, []), "queries: 0 given"),
        (core.retrieve("bank", ["x"], 0, []), "top_k: 0 given"),
        (core.retrieve("bank", ["x"], 101, []), "top_k: 101 given"),
        (core.retrieve("bank", ["x"], 1, ["d"] * 101), "document_ids: 101 given"),
        (core.retrieve("bank", ["x"], 1, [""]), "document_id is empty"),
        (core.delete("bank", [], whole_bank=False), "give either"),
        (core.delete("bank", ["d"], whole_bank=True), "give either"),
        (core.get_references("bank", []), "reference_ids: 0 given"),
        (core.get_references("bank", ["xyz"]), "32 lower-case hex digits"),
        (core.list_documents("bank", 1001, ""), "page_size: 1001 given"),
        (core.describe_bank(""), "is not a bank's name"),
    ]
    for call, message in calls:
        with pytest.raises(MalformedRequestError, match=message):
            await call


documents = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]), st.lists(st.sampled_from("pqrst"), min_size=1, max_size=4, unique=True)
    ),
    max_size=10,
)


@given(documents)
def test_the_bank_always_holds_the_last_version_of_each_document(writes: list[tuple[str, list[str]]]) -> None:
    async def run() -> None:
        batcher = Batcher(HashEmbedder(), max_batch_texts=4, max_queue_texts=256)
        core = RetrievalCore(LocalIndex(), batcher)
        now: dict[str, list[str]] = {}
        for document_id, texts in writes:
            before = {text for held in now.values() for text in held}
            now[document_id] = texts
            result = await _add(core, document_id, texts, version="".join(texts))
            held = {text for held in now.values() for text in held}
            assert set(result.orphaned_reference_ids) == {reference_id_of(text) for text in before - held}
        if now:
            described = await core.describe_bank("bank")
            assert described.num_documents == len(now)
            assert described.num_references == sum(map(len, now.values()))
            assert set(await _texts(core, "p")) == {text for held in now.values() for text in held}
        await batcher.close()

    asyncio.run(run())
