"""The typed clients against a real server: what they send, what they make of the answers, how they fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest
from opentelemetry import trace

from memory3.api.decoder.v1 import decoder_pb2
from memory3.api.memory.v1 import memory_pb2
from memory3.api.retrieval.v1 import retrieval_pb2
from memory3.channel import MAX_MESSAGE_BYTES
from memory3.client import Client
from memory3.errors import (
    BackendUnavailableError,
    DeadlineExceededError,
    MalformedRequestError,
    MessageTooLargeError,
    OverloadedError,
    UnknownBankError,
)
from memory3.types import (
    FetchStatus,
    FinalEvent,
    GenerationRequest,
    Message,
    Mode,
    RecallEvent,
    Reference,
    ReferenceText,
    Tier,
    TokenEvent,
    WriteStatus,
)
from tests.helpers.recording_servicer import Hold, RecordingServer, recording_server

REQUEST = GenerationRequest(mode=Mode.NONE, prompt="Once")


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    async with recording_server() as recording:
        yield recording


@pytest.fixture
async def client(server: RecordingServer) -> AsyncIterator[Client]:
    async with Client(retrieval=server.address, memory=server.address, decoder=server.address) as client:
        yield client


async def test_retrieve_sends_every_field_and_reads_hits(server: RecordingServer, client: Client) -> None:
    reference = Reference(
        "ab" * 16, "text", "d1", title="T", source="s", ordinal=3, start_char=5, end_char=9, num_tokens=2
    )
    hits = [retrieval_pb2.Hit(reference=reference.to_pb(), score=0.5)]
    server.reply(
        "RetrievalService/Retrieve",
        retrieval_pb2.RetrieveResponse(
            results=[retrieval_pb2.QueryResult(hits=hits), retrieval_pb2.QueryResult()],
            timing=retrieval_pb2.Timing(embed_ns=7),
        ),
    )
    result = await client.retrieval.retrieve("bank", ["a", "b"], 5, ["d1"], timeout=3.0)
    assert [[(hit.reference, hit.score) for hit in found] for found in result.results] == [[(reference, 0.5)], []]
    assert result.timing.embed_ns == 7
    (call,) = server.calls
    assert call.request == retrieval_pb2.RetrieveRequest(bank="bank", queries=["a", "b"], top_k=5, document_ids=["d1"])
    assert call.timeout_s is not None
    assert 0 < call.timeout_s < 3.5


async def test_every_call_has_a_deadline_of_its_own(server: RecordingServer, client: Client) -> None:
    server.reply("EmbeddingService/Embed", retrieval_pb2.EmbedResponse())
    server.reply("RetrievalService/Upsert", retrieval_pb2.UpsertResponse())
    server.reply("RetrievalService/Delete", retrieval_pb2.DeleteResponse())
    server.reply("RetrievalService/GetReferences", retrieval_pb2.GetReferencesResponse())
    server.reply("RetrievalService/ListDocuments", retrieval_pb2.ListDocumentsResponse())
    server.reply("RetrievalService/ListBanks", retrieval_pb2.ListBanksResponse())
    server.reply("RetrievalService/DescribeBank", retrieval_pb2.DescribeBankResponse())
    server.reply("MemoryService/Put", memory_pb2.PutResponse(created=True))
    server.reply("MemoryService/Stat", memory_pb2.StatResponse())
    server.reply("MemoryService/Delete", memory_pb2.DeleteResponse(num_memories=4))
    server.reply("MemoryService/List", memory_pb2.ListResponse())
    server.reply("MemoryService/BatchGet")
    server.reply("DecoderService/Generate")
    server.reply("DecoderService/GenerateOnce", decoder_pb2.GenerateOnceResponse(text="x"))
    server.reply("DecoderService/Info", decoder_pb2.InfoResponse(model="m"))
    server.reply("MemoryWriterService/Write", decoder_pb2.WriteResponse())
    await client.retrieval.embed(["a"])
    await client.retrieval.upsert("b", "d", "v", [])
    await client.retrieval.delete("b", ["d"])
    await client.retrieval.get_references("b", ["r"])
    assert [document async for document in client.retrieval.list_documents("b")] == []
    await client.retrieval.list_banks()
    await client.retrieval.describe_bank("b")
    assert await client.memory.put("b", "r", "f", b"x") is True
    await client.memory.stat("b", "f", ["r"])
    assert await client.memory.delete("b", ["r"], model_fingerprint="f") == 4
    assert [entry async for entry in client.memory.list("b")] == []
    assert [item async for item in client.memory.batch_get("b", "f", ["r"])] == []
    assert [event async for event in client.decoder.generate(REQUEST)] == []
    assert (await client.decoder.generate_once(REQUEST)).text == "x"
    assert (await client.decoder.info()).model == "m"
    await client.decoder.write("b", [ReferenceText("r", "text", "before")])
    assert len(server.calls) == 16
    assert [call.method for call in server.calls if call.timeout_s is None] == []


async def test_lists_follow_the_page_tokens(server: RecordingServer, client: Client) -> None:
    pages = [["a", "b"], ["c"]]
    for number, page in enumerate(pages):
        token = "next" if number == 0 else ""
        documents = [retrieval_pb2.Document(document_id=name) for name in page]
        entries = [memory_pb2.MemoryEntry(size_bytes=len(name), identity={"reference_id": name}) for name in page]
        server.reply(
            "RetrievalService/ListDocuments",
            retrieval_pb2.ListDocumentsResponse(documents=documents, next_page_token=token),
        )
        server.reply("MemoryService/List", memory_pb2.ListResponse(memories=entries, next_page_token=token))
    assert [d.document_id async for d in client.retrieval.list_documents("bank", page_size=2)] == ["a", "b", "c"]
    assert [m.reference_id async for m in client.memory.list("bank", "f")] == ["a", "b", "c"]
    assert [call.request.page_token for call in server.calls] == ["", "next", "", "next"]
    assert server.calls[2].request.model_fingerprint == "f"


async def test_batch_get_maps_the_memory_services_own_tier_numbers(server: RecordingServer, client: Client) -> None:
    server.reply(
        "MemoryService/BatchGet",
        memory_pb2.BatchGetResponse(
            reference_id="a", status=memory_pb2.FETCH_STATUS_FOUND, tier=memory_pb2.TIER_RAM, record=b"r"
        ),
        memory_pb2.BatchGetResponse(
            reference_id="b", status=memory_pb2.FETCH_STATUS_FOUND, tier=memory_pb2.TIER_OBJECT, record=b"s"
        ),
        memory_pb2.BatchGetResponse(reference_id="c", status=memory_pb2.FETCH_STATUS_CORRUPT),
    )
    items = [item async for item in client.memory.batch_get("bank", "f", ["a", "b", "c"])]
    assert [(item.status, item.tier) for item in items] == [
        (FetchStatus.FOUND, Tier.RAM),
        (FetchStatus.FOUND, Tier.OBJECT),
        (FetchStatus.CORRUPT, Tier.NONE),
    ]


async def test_generate_yields_typed_events_and_skips_kinds_it_does_not_know(
    server: RecordingServer, client: Client
) -> None:
    server.reply(
        "DecoderService/Generate",
        decoder_pb2.GenerateResponse(recall=decoder_pb2.RecallEvent(span=0)),
        decoder_pb2.GenerateResponse(),
        decoder_pb2.GenerateResponse(token=decoder_pb2.TokenEvent(text="Hi", token_ids=[5])),
        decoder_pb2.GenerateResponse(final=decoder_pb2.FinalEvent(seed=9)),
    )
    request = GenerationRequest(mode=Mode.MEMORY, messages=[Message("user", "Hello")], bank="b", recall_deadline_ms=0)
    events = [event async for event in client.decoder.generate(request)]
    assert [type(event) for event in events] == [RecallEvent, TokenEvent, FinalEvent]
    sent = server.calls[0].request
    assert sent.chat.messages[0].role == decoder_pb2.ROLE_USER
    assert sent.HasField("recall_deadline_ms")
    assert not sent.sampling.HasField("seed")


async def test_closing_the_stream_cancels_the_call(server: RecordingServer, client: Client) -> None:
    token = decoder_pb2.GenerateResponse(token=decoder_pb2.TokenEvent(text="Hi"))
    server.reply("DecoderService/Generate", token, Hold())
    async with contextlib.aclosing(client.decoder.generate(REQUEST)) as events:
        assert isinstance(await anext(events), TokenEvent)
    await asyncio.wait_for(server.calls[0].cancelled.wait(), timeout=5)


@pytest.mark.parametrize("method", ["DecoderService/Generate", "DecoderService/GenerateOnce"])
async def test_cancelling_the_task_cancels_the_call(server: RecordingServer, client: Client, method: str) -> None:
    server.reply(method, Hold())

    async def consume() -> None:
        if method.endswith("Once"):
            await client.decoder.generate_once(REQUEST)
        else:
            async for _ in client.decoder.generate(REQUEST):
                pass

    task = asyncio.create_task(consume())
    async with asyncio.timeout(5):
        while not server.calls:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.calls[0].cancelled.wait()


async def test_a_passed_deadline_is_an_error_of_ours(server: RecordingServer, client: Client) -> None:
    server.reply("RetrievalService/ListBanks", Hold())
    with pytest.raises(DeadlineExceededError, match="more time") as caught:
        await client.retrieval.list_banks(timeout=0.2)
    assert caught.value.retriable


async def test_errors_come_back_typed_with_their_retry_hint(server: RecordingServer, client: Client) -> None:
    server.reply("RetrievalService/DescribeBank", UnknownBankError("no bank 'x'; ingest into it first"))
    server.reply("RetrievalService/DescribeBank", OverloadedError("8 calls wait; try again", retry_after_ms=250))
    with pytest.raises(UnknownBankError, match="no bank 'x'; ingest into it first"):
        await client.retrieval.describe_bank("x")
    with pytest.raises(OverloadedError) as caught:
        await client.retrieval.describe_bank("x")
    assert caught.value.retry_after_ms == 250


async def test_an_error_in_the_middle_of_a_stream_keeps_what_came(server: RecordingServer, client: Client) -> None:
    token = decoder_pb2.GenerateResponse(token=decoder_pb2.TokenEvent(text="Hi"))
    server.reply("DecoderService/Generate", token, BackendUnavailableError("the worker died; try again"))
    events = client.decoder.generate(REQUEST)
    assert await anext(events) == TokenEvent("Hi", [])
    with pytest.raises(BackendUnavailableError, match="the worker died"):
        await anext(events)


async def test_unavailable_is_tried_three_times(server: RecordingServer, client: Client) -> None:
    for _ in range(2):
        server.reply("RetrievalService/ListBanks", grpc.StatusCode.UNAVAILABLE)
    server.reply("RetrievalService/ListBanks", retrieval_pb2.ListBanksResponse(banks=[{"bank": "b"}]))
    assert [bank.bank for bank in await client.retrieval.list_banks()] == ["b"]
    assert len(server.calls) == 3


async def test_without_retry_unavailable_is_tried_once(server: RecordingServer) -> None:
    server.reply("RetrievalService/ListBanks", grpc.StatusCode.UNAVAILABLE)
    async with Client(retrieval=server.address, retry=False) as client:
        with pytest.raises(BackendUnavailableError, match="is the service running there"):
            await client.retrieval.list_banks()
    assert len(server.calls) == 1


async def test_a_tier_that_is_down_is_named(unused_address: str) -> None:
    async with Client(decoder=unused_address) as client:
        with pytest.raises(BackendUnavailableError, match=unused_address):
            await client.decoder.info(timeout=5)


async def test_a_tier_that_comes_back_is_found_again() -> None:
    async with recording_server() as first:
        port = first.address
        async with Client(retrieval=port) as client:
            first.reply("RetrievalService/ListBanks", retrieval_pb2.ListBanksResponse())
            await client.retrieval.list_banks()
            await first.stop()
            with pytest.raises(BackendUnavailableError):
                await client.retrieval.list_banks(timeout=2)
            first.reply("RetrievalService/ListBanks", retrieval_pb2.ListBanksResponse())
            await first.start(port)
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(BackendUnavailableError):
                        await client.retrieval.list_banks(timeout=2)
                        break


async def test_an_answer_over_the_message_limit_is_refused(server: RecordingServer, client: Client) -> None:
    huge = retrieval_pb2.EmbedResponse(vectors=[bytes(MAX_MESSAGE_BYTES)])
    server.reply("EmbeddingService/Embed", huge)
    with pytest.raises(MessageTooLargeError):
        await client.retrieval.embed(["a"])


async def test_a_record_just_below_the_message_limit_passes(server: RecordingServer, client: Client) -> None:
    server.reply("MemoryService/Put", memory_pb2.PutResponse(created=True))
    record = bytes(3 * 1024 * 1024)
    assert await client.memory.put("bank", "r", "f", record)
    assert server.calls[0].request.record == record


async def test_a_value_that_fits_no_field_is_malformed(client: Client) -> None:
    with pytest.raises(MalformedRequestError, match="-1"):
        await client.retrieval.retrieve("bank", ["a"], -1)
    with pytest.raises(MalformedRequestError, match="'robot'"):
        await client.decoder.generate_once(GenerationRequest(mode=Mode.NONE, messages=[Message("robot", "x")]))
    with pytest.raises(MalformedRequestError, match="both"):
        await client.decoder.generate_once(
            GenerationRequest(mode=Mode.NONE, prompt="x", messages=[Message("user", "x")])
        )


async def test_trace_context_travels_in_the_metadata(server: RecordingServer, client: Client) -> None:
    server.reply("DecoderService/Info", decoder_pb2.InfoResponse())
    parent = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(parent)):
        await client.decoder.info()
    assert server.calls[0].metadata["traceparent"].startswith(f"00-{0xABC:032x}-")


async def test_write_reports_each_item(server: RecordingServer, client: Client) -> None:
    server.reply(
        "MemoryWriterService/Write",
        decoder_pb2.WriteResponse(
            results=[
                decoder_pb2.WriteResult(reference_id="a", status=decoder_pb2.WRITE_STATUS_WRITTEN, size_bytes=9),
                decoder_pb2.WriteResult(reference_id="b", status=decoder_pb2.WRITE_STATUS_FAILED, error="too long"),
            ],
            encode_ns=5,
        ),
    )
    wanted = [ReferenceText("a", "x"), ReferenceText("b", "y", "x")]
    result = await client.decoder.write("bank", wanted)
    assert [(item.status, item.error) for item in result.items] == [
        (WriteStatus.WRITTEN, ""),
        (WriteStatus.FAILED, "too long"),
    ]
    assert result.encode_ns == 5
    assert [ReferenceText.from_pb(item) for item in server.calls[0].request.references] == wanted
