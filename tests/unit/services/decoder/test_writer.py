"""Writing on request: what is stored is left, the rest is encoded and put, each item for itself."""

from __future__ import annotations

import pytest

from memory3.errors import BackendUnavailableError, ConflictingRecordError, StorageFullError
from memory3.types import ReferenceText, WriteStatus
from model.identity import reference_id
from services.decoder.encoding import Encoding
from services.decoder.model_bundle import ModelBundle
from services.decoder.writer import Writer
from tests.helpers.tiers import FakeMemory

WRITTEN, EXISTED, FAILED = WriteStatus.WRITTEN, WriteStatus.EXISTED, WriteStatus.FAILED


@pytest.fixture
def memory() -> FakeMemory:
    return FakeMemory()


@pytest.fixture
def writer(encoding: Encoding, memory: FakeMemory, model: ModelBundle) -> Writer:
    return Writer(encoding, memory, model.fingerprint, put_parallelism=2, timeout_s=1)


def wanted(*texts: str) -> list[ReferenceText]:
    return [ReferenceText(reference_id(text), text) for text in texts]


async def test_only_what_is_missing_is_encoded_and_put(writer: Writer, memory: FakeMemory) -> None:
    first = await writer.write("bank", wanted("a", "b"))
    second = await writer.write("bank", wanted("b", "c", "a"))
    assert [item.status for item in first.items] == [WRITTEN, WRITTEN]
    assert [item.status for item in second.items] == [EXISTED, WRITTEN, EXISTED]
    assert sorted(memory.puts) == sorted(map(reference_id, "abc"))
    assert [item.size_bytes for item in second.items] == [len(memory.records[reference_id(t)]) for t in "bca"]
    assert memory.num_stats == 2


async def test_records_are_what_the_model_reads(writer: Writer, memory: FakeMemory, model: ModelBundle) -> None:
    await writer.write("bank", wanted("some text"))
    record = memory.records[reference_id("some text")]
    assert model.unpack(record, reference_id("some text")).num_reference_tokens == len("some text")


async def test_an_id_given_twice_is_written_once(writer: Writer, memory: FakeMemory) -> None:
    result = await writer.write("bank", wanted("a", "a"))
    assert [item.status for item in result.items] == [WRITTEN, WRITTEN]
    assert memory.puts == [reference_id("a")]


async def test_an_id_that_is_not_the_texts_fails_its_item_even_beside_the_right_one(writer: Writer) -> None:
    result = await writer.write(
        "bank",
        [
            ReferenceText(reference_id("a"), "not a"),
            *wanted("a"),
            ReferenceText("nonsense", "b"),
            ReferenceText("", "\ud800"),
        ],
    )
    assert [item.status for item in result.items] == [FAILED, WRITTEN, FAILED, FAILED]
    assert "send that" in result.items[0].error


@pytest.mark.parametrize(("text", "words"), [("", "0 tokens"), ("x" * 129, "129 tokens; a reference has 1 to 128")])
async def test_a_reference_of_the_wrong_length_fails_its_item(writer: Writer, text: str, words: str) -> None:
    result = await writer.write("bank", wanted(text, "a"))
    assert [item.status for item in result.items] == [FAILED, WRITTEN]
    assert words in result.items[0].error


async def test_what_precedes_a_reference_is_in_view_when_it_is_written(
    writer: Writer, memory: FakeMemory, model: ModelBundle
) -> None:
    alone, behind = ReferenceText(reference_id("bc"), "bc"), ReferenceText(reference_id("bc", "xa"), "bc", "xa")
    result = await writer.write("bank", [alone, behind, ReferenceText(alone.reference_id, "bc", "xa")])
    assert [item.status for item in result.items] == [WRITTEN, WRITTEN, FAILED]
    assert "of what precedes it" in result.items[2].error
    first, second = (model.unpack(memory.records[one.reference_id], one.reference_id) for one in (alone, behind))
    assert first.num_reference_tokens == second.num_reference_tokens == 2
    assert first.payload != second.payload


async def test_a_put_that_is_refused_fails_its_item(writer: Writer, memory: FakeMemory) -> None:
    memory.put_error = StorageFullError("no room; free some")
    result = await writer.write("bank", wanted("a"))
    assert (result.items[0].status, result.items[0].error) == (FAILED, "no room; free some")


async def test_a_memory_that_another_writer_put_meanwhile_existed(writer: Writer, memory: FakeMemory) -> None:
    memory.put_error = ConflictingRecordError("there is another record; it is kept")
    result = await writer.write("bank", wanted("a"))
    assert (result.items[0].status, result.items[0].error) == (EXISTED, "")
    assert result.items[0].size_bytes > 0


async def test_a_memory_tier_that_is_down_fails_the_call(writer: Writer, memory: FakeMemory) -> None:
    memory.put_error = BackendUnavailableError("down")
    with pytest.raises(BackendUnavailableError):
        await writer.write("bank", wanted("a"))
    memory.error = BackendUnavailableError("down")
    with pytest.raises(BackendUnavailableError):
        await writer.write("bank", wanted("b"))
