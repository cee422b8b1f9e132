"""Client's deletes over two tiers: index first, then the memories that nothing holds any more."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from memory3.api.memory.v1 import memory_pb2
from memory3.api.retrieval.v1 import retrieval_pb2
from memory3.client import Client
from memory3.errors import BackendUnavailableError, StorageDeniedError, UnknownBankError
from tests.helpers.recording_servicer import RecordingServer, recording_server


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    async with recording_server() as recording:
        yield recording


@pytest.fixture
async def client(server: RecordingServer) -> AsyncIterator[Client]:
    async with Client(retrieval=server.address, memory=server.address, decoder=server.address) as client:
        yield client


async def test_documents_leave_the_index_before_their_memories_go(server: RecordingServer, client: Client) -> None:
    orphans = [f"{number:032x}" for number in range(5000)]
    server.reply(
        "RetrievalService/Delete",
        retrieval_pb2.DeleteResponse(num_documents=1, num_references=6000, orphaned_reference_ids=orphans),
    )
    server.reply("MemoryService/Delete", memory_pb2.DeleteResponse(num_memories=4096))
    server.reply("MemoryService/Delete", memory_pb2.DeleteResponse(num_memories=900))
    removed, num_memories = await client.delete_documents("bank", ["d"])
    assert (removed.num_references, num_memories) == (6000, 4996)
    assert [call.method for call in server.calls] == ["RetrievalService/Delete"] + ["MemoryService/Delete"] * 2
    assert [*server.calls[1].request.reference_ids, *server.calls[2].request.reference_ids] == orphans


async def test_documents_without_orphans_touch_no_memory(server: RecordingServer, client: Client) -> None:
    server.reply("RetrievalService/Delete", retrieval_pb2.DeleteResponse(num_documents=1, num_references=3))
    _, num_memories = await client.delete_documents("bank", ["d"])
    assert num_memories == 0


async def test_memories_stay_when_the_index_cannot_be_changed(server: RecordingServer, client: Client) -> None:
    for _ in range(3):
        server.reply("RetrievalService/Delete", BackendUnavailableError("no answer from the index; try again"))
    with pytest.raises(BackendUnavailableError):
        await client.delete_bank("bank")
    assert [call.method for call in server.calls] == ["RetrievalService/Delete"] * 3


async def test_a_bank_delete_cut_short_can_be_run_again(server: RecordingServer, client: Client) -> None:
    server.reply("RetrievalService/Delete", retrieval_pb2.DeleteResponse(num_documents=2, num_references=7))
    server.reply("MemoryService/Delete", StorageDeniedError("the folder is read-only; mount it writable"))
    with pytest.raises(StorageDeniedError):
        await client.delete_bank("bank")
    server.reply("RetrievalService/Delete", UnknownBankError("no bank 'bank'"))
    server.reply("MemoryService/Delete", memory_pb2.DeleteResponse(num_memories=7))
    assert (await client.delete_bank("bank"))[1] == 7


async def test_a_bank_that_neither_tier_has_is_unknown(server: RecordingServer, client: Client) -> None:
    server.reply("RetrievalService/Delete", UnknownBankError("no bank 'bank'"))
    server.reply("MemoryService/Delete", memory_pb2.DeleteResponse(num_memories=0))
    with pytest.raises(UnknownBankError):
        await client.delete_bank("bank")
