"""What the decoder service promises, whatever runs its workers: one suite on the local and on the Ray backend.

Each backend is a real process behind real gRPC, between real retrieval and memory services.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from memory3 import semconv
from memory3.api.decoder.v1 import decoder_pb2, decoder_pb2_grpc
from memory3.decoder import DecoderClient
from memory3.errors import (
    BackendUnavailableError,
    ContextTooLongError,
    DeadlineExceededError,
    MalformedRequestError,
    Memory3Error,
    OverloadedError,
    UnknownBankError,
)
from memory3.types import (
    FinalEvent,
    FinishReason,
    GenerationRequest,
    MemoryStatus,
    Message,
    Mode,
    RecallEvent,
    ReferenceText,
    Sampling,
    Tier,
    TokenEvent,
    WriteStatus,
)
from model.identity import reference_id
from tests.helpers.decoder_stack import BANK, TEXTS, DecoderStack, decoder_stack
from tests.helpers.generations import (
    ABOUT_A_TOWN,
    CAPACITY,
    LIMITS,
    LONG,
    SHORT,
    SLOW_LAYERS,
    break_connection,
    cancel_calls,
    cancel_unread,
    events_of,
    fill,
    held,
    replica_pids,
    text_of,
    until_overloaded,
    until_served,
)
from tests.helpers.otlp_receiver import OtlpReceiver, otlp_receiver


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])])
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, receiver: OtlpReceiver
) -> Iterator[DecoderStack]:
    """The tiers with a bank whose memories are written."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    folder = tmp_path_factory.mktemp(request.param)
    with decoder_stack(folder, request.param, env=env, decoder_env=LIMITS, num_layers=SLOW_LAYERS) as stack:
        asyncio.run(fill(stack))
        yield stack


@pytest.fixture
async def client(stack: DecoderStack) -> AsyncIterator[DecoderClient]:
    async with DecoderClient(stack.decoder.address, retry=False) as client:
        yield client


class TestStream:
    async def test_events_come_in_order_and_add_up(self, client: DecoderClient) -> None:
        request = replace(ABOUT_A_TOWN, max_tokens=140, report_timeline=True)
        events = await events_of(client, request)
        kinds = [type(event) for event in events]
        assert kinds.index(RecallEvent) < kinds.index(TokenEvent), "what is read is said before it is read"
        assert kinds.count(FinalEvent) == 1
        final = events[-1]
        assert isinstance(final, FinalEvent)
        tokens = [token for event in events if isinstance(event, TokenEvent) for token in event.token_ids]
        assert len(tokens) == final.usage.num_output_tokens == 140
        assert final.finish_reason is FinishReason.LENGTH
        recalls = [event for event in events if isinstance(event, RecallEvent)]
        assert [recall.span for recall in recalls] == [0, 2, 3], "span 1, the first generated one, inherits"
        assert [span.span for span in final.spans] == [0, 1, 2, 3]
        assert [span.start_token for span in final.spans[1:]] == [span.end_token for span in final.spans[:-1]]
        assert final.usage.num_recalls == len(recalls)

    async def test_a_recall_is_told_before_the_tokens_that_read_it(self, client: DecoderClient) -> None:
        num_tokens = 0
        starts = []
        async for event in client.generate(replace(ABOUT_A_TOWN, max_tokens=140)):
            if isinstance(event, TokenEvent):
                num_tokens += len(event.token_ids)
            elif isinstance(event, RecallEvent):
                starts.append((event.start_token, num_tokens))
        # The token drawn last has not run: it is the first one to read the new memories.
        prompt = starts[1][0] - 64
        assert starts == [(0, 0), (prompt + 64, 65), (prompt + 128, 129)]

    async def test_once_gives_what_the_stream_gives(self, client: DecoderClient) -> None:
        events = await events_of(client, ABOUT_A_TOWN)
        once = await client.generate_once(ABOUT_A_TOWN)
        assert once.text == "".join(event.text for event in events if isinstance(event, TokenEvent))
        assert [recall.span for recall in once.recalls] == [e.span for e in events if isinstance(e, RecallEvent)]

    async def test_a_stop_sequence_ends_it_and_is_not_part_of_it(self, client: DecoderClient) -> None:
        text = await text_of(client, replace(SHORT, max_tokens=40))
        stop = text[20:23]
        once = await client.generate_once(replace(SHORT, max_tokens=40, stop=[stop]))
        assert once.text == text[: text.index(stop)]
        assert once.final.finish_reason is FinishReason.STOP

    async def test_times_by_stage_fit_into_each_other(self, client: DecoderClient) -> None:
        final = (await client.generate_once(replace(ABOUT_A_TOWN, max_tokens=80, report_timeline=True))).final
        times = final.timing
        assert 0 < times.prefill_ns < times.ttft_ns < times.total_ns
        assert 0 < times.decode_ns < times.total_ns
        assert 0 < times.retrieve_ns < times.recall_ns
        names = [(entry.name, entry.service) for entry in final.timeline]
        assert names[:2] == [("generate", "decoder"), ("generate", "decoder-worker")]
        told = {entry.name for entry in final.timeline}
        assert {"queue", "recall", "retrieve", "embed", "search", "prefill", "decode"} <= told
        for entry in final.timeline[1:]:
            assert entry.parent is not None
            parent = final.timeline[entry.parent]
            assert parent.start_ns <= entry.start_ns

    async def test_a_chat_is_answered(self, client: DecoderClient) -> None:
        once = await client.generate_once(GenerationRequest(Mode.NONE, messages=[Message("user", "Hi")], max_tokens=4))
        assert once.final.usage.num_prompt_tokens > len("Hi")


class TestModes:
    async def test_memory_reads_what_is_stored(self, client: DecoderClient) -> None:
        once = await client.generate_once(replace(ABOUT_A_TOWN, report_attention=True))
        (recall,) = once.recalls
        assert len(recall.memories) == 5
        assert {memory.status for memory in recall.memories} == {MemoryStatus.READ}
        assert {memory.tier for memory in recall.memories} <= {Tier.WORKER, Tier.RAM, Tier.OBJECT}
        assert recall.memories[0].text == TEXTS[2]
        assert recall.memories[0].title == "A title"
        scores = [memory.score for memory in recall.memories]
        assert scores == sorted(scores, reverse=True)
        spans = once.final.spans
        assert list(spans[0].reference_ids) == [memory.reference_id for memory in recall.memories]
        assert len(spans[0].attention_mass) == 5
        assert 0 < sum(spans[0].attention_mass) < 1
        assert once.final.usage.num_memories_read == 5 * len(spans)

    async def test_rag_puts_the_references_into_the_prompt(self, client: DecoderClient) -> None:
        request = replace(ABOUT_A_TOWN, mode=Mode.RAG, memories_per_chunk=2)
        once = await client.generate_once(request)
        none = await client.generate_once(replace(request, mode=Mode.NONE))
        (recall,) = once.recalls
        assert len(recall.memories) == 2
        usage = once.final.usage
        assert usage.num_reference_tokens == sum(len(memory.text) + 1 for memory in recall.memories) + 1
        assert usage.num_prompt_tokens == none.final.usage.num_prompt_tokens + usage.num_reference_tokens
        assert not none.recalls

    async def test_only_the_named_documents_are_recalled(self, client: DecoderClient) -> None:
        document = f"doc-{reference_id(TEXTS[5])[:8]}"
        once = await client.generate_once(replace(ABOUT_A_TOWN, document_ids=[document]))
        assert [memory.text for memory in once.recalls[0].memories] == [TEXTS[5]]

    async def test_a_recall_deadline_of_nothing_reads_nothing_and_answers(self, client: DecoderClient) -> None:
        once = await client.generate_once(replace(ABOUT_A_TOWN, recall_deadline_ms=0))
        assert once.final.usage.num_output_tokens == 6
        assert once.final.usage.num_memories_read == 0
        assert once.recalls[0].retrieval_failed
        assert once.final.usage.num_recalls_failed == 1


class TestSeeds:
    DRAWN = replace(SHORT, max_tokens=40, sampling=Sampling(temperature=1.0, top_k=50, top_p=0.95, seed=7))

    async def test_equal_seeds_give_equal_text_alone_and_in_company(self, client: DecoderClient) -> None:
        alone = await text_of(client, self.DRAWN)
        others = [replace(self.DRAWN, sampling=Sampling(temperature=1.0, seed=seed)) for seed in (1, 2, 3)]
        together = await asyncio.gather(*(text_of(client, request) for request in (self.DRAWN, *others)))
        assert together[0] == alone
        assert len(set(together)) == 4

    async def test_a_seed_that_was_drawn_is_told_and_gives_the_same_again(self, client: DecoderClient) -> None:
        first = await client.generate_once(replace(self.DRAWN, sampling=Sampling(temperature=1.0)))
        assert first.final.seed
        again = replace(self.DRAWN, sampling=Sampling(temperature=1.0, seed=first.final.seed))
        assert await text_of(client, again) == first.text


class TestErrors:
    @pytest.mark.parametrize(
        ("changes", "error", "code"),
        [
            ({"prompt": ""}, MalformedRequestError, grpc.StatusCode.INVALID_ARGUMENT),
            ({"stop": ["x"] * 9}, MalformedRequestError, grpc.StatusCode.INVALID_ARGUMENT),
            ({"prompt": "x" * 4000}, ContextTooLongError, grpc.StatusCode.INVALID_ARGUMENT),
            ({"max_tokens": 5000}, ContextTooLongError, grpc.StatusCode.INVALID_ARGUMENT),
            ({"bank": "nowhere"}, UnknownBankError, grpc.StatusCode.NOT_FOUND),
            ({"bank": "nowhere", "mode": Mode.RAG}, UnknownBankError, grpc.StatusCode.NOT_FOUND),
            ({"bank": "Not A Name!"}, MalformedRequestError, grpc.StatusCode.INVALID_ARGUMENT),
        ],
    )
    async def test_errors_keep_class_code_and_words(
        self,
        client: DecoderClient,
        stack: DecoderStack,
        changes: dict[str, object],
        error: type[Memory3Error],
        code: grpc.StatusCode,
    ) -> None:
        request = replace(ABOUT_A_TOWN, **changes)  # type: ignore[arg-type]
        for call in (events_of(client, request), client.generate_once(request)):
            with pytest.raises(error) as caught:
                await call
            assert type(caught.value) is error
        assert "Traceback" not in str(caught.value)
        async with grpc.aio.insecure_channel(stack.decoder.address) as channel:
            stub = decoder_pb2_grpc.DecoderServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as raw:
                await stub.GenerateOnce(decoder_pb2.GenerateOnceRequest(request=request.to_pb()))
            assert raw.value.code() is code

    async def test_an_unset_mode_is_refused(self, stack: DecoderStack) -> None:
        async with grpc.aio.insecure_channel(stack.decoder.address) as channel:
            stub = decoder_pb2_grpc.DecoderServiceStub(channel)
            request = decoder_pb2.GenerateOnceRequest(request=decoder_pb2.GenerateRequest(prompt="Hi"))
            with pytest.raises(grpc.aio.AioRpcError) as raw:
                await stub.GenerateOnce(request)
            assert raw.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    async def test_overload_is_refused_at_once_with_a_hint(self, client: DecoderClient) -> None:
        async with held(client, CAPACITY):
            await until_overloaded(client)
            began = time.monotonic()
            with pytest.raises(OverloadedError) as refused:
                await text_of(client, SHORT)
            assert time.monotonic() - began < 1
            assert refused.value.retriable
            assert refused.value.retry_after_ms
        await until_served(client, SHORT, 5)

    async def test_a_deadline_ends_it_and_frees_the_slot(self, client: DecoderClient) -> None:
        async def impatient() -> None:
            async for _ in client.generate(LONG, timeout=0.5):
                pass

        results = await asyncio.gather(*(impatient() for _ in range(CAPACITY)), return_exceptions=True)
        assert [type(result) for result in results] == [DeadlineExceededError] * CAPACITY
        await until_served(client, SHORT, 2)


class TestCancel:
    @pytest.mark.parametrize("leave", [cancel_calls, break_connection, cancel_unread])
    async def test_callers_that_go_away_free_their_slots(
        self,
        client: DecoderClient,
        stack: DecoderStack,
        leave: Callable[[DecoderStack, DecoderClient], Awaitable[None]],
    ) -> None:
        began = time.monotonic()
        await text_of(client, LONG)
        whole_s = time.monotonic() - began
        await leave(stack, client)
        began = time.monotonic()
        await until_served(client, SHORT, 30)
        assert time.monotonic() - began < whole_s / 2, "slots were not free before the generations would have ended"


class TestWrite:
    async def test_written_existing_and_failed_references(self, client: DecoderClient) -> None:
        new, long = "A new reference about nothing.", "x" * 129
        result = await client.write(
            BANK,
            [
                ReferenceText(reference_id(new), new),
                ReferenceText(reference_id(TEXTS[0]), TEXTS[0]),
                ReferenceText("0" * 32, "not its hash"),
                ReferenceText(reference_id(long), long),
                ReferenceText(reference_id(new), new),
            ],
        )
        statuses = [item.status for item in result.items]
        written = WriteStatus.WRITTEN
        assert statuses == [written, WriteStatus.EXISTED, WriteStatus.FAILED, WriteStatus.FAILED, written]
        assert "the hash of the text and of what precedes it" in result.items[2].error
        assert "129 tokens; a reference has 1 to 128" in result.items[3].error
        info = await client.info()
        # A header tells the reference's number of tokens in two or three digits.
        assert info.memory_bytes - 2 <= result.items[0].size_bytes <= info.memory_bytes
        assert 0 < result.encode_ns < result.total_ns
        again = await client.write(BANK, [ReferenceText(reference_id(new), new)])
        assert again.items[0].status is WriteStatus.EXISTED
        assert again.encode_ns == 0

    async def test_a_write_goes_on_beside_generations(self, client: DecoderClient) -> None:
        texts = [f"Reference number {number} of the batch." for number in range(64)]
        writing = asyncio.create_task(client.write(BANK, [ReferenceText(reference_id(text), text) for text in texts]))
        text = await text_of(client, replace(SHORT, max_tokens=60))
        assert text == await text_of(client, replace(SHORT, max_tokens=60))
        assert {item.status for item in (await writing).items} == {WriteStatus.WRITTEN}

    @pytest.mark.parametrize(("bank", "count"), [("", 1), (BANK, 0), (BANK, 65), ("Not A Name!", 1)])
    async def test_malformed_writes(self, client: DecoderClient, bank: str, count: int) -> None:
        with pytest.raises(MalformedRequestError):
            await client.write(bank, [ReferenceText(reference_id(str(n)), str(n)) for n in range(count)])


class TestServer:
    async def test_info_describes_model_plan_and_limits(self, client: DecoderClient) -> None:
        info = await client.info()
        assert info.model == "tiny-model"
        assert len(info.model_fingerprint) == 32
        assert info.max_batch_size == 2
        assert '"name":"tiny"' in info.memory_plan_json
        assert info.dtype == "float32"
        assert info.dense_reference_bytes == 2 * SLOW_LAYERS * 2 * 128 * 16 * 4

    async def test_health_names_both_services(self, stack: DecoderStack) -> None:
        async with grpc.aio.insecure_channel(stack.decoder.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for name in ("", "memory3.api.decoder.v1.DecoderService", "memory3.api.decoder.v1.MemoryWriterService"):
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING

    async def test_reflection_lists_both_services(self, stack: DecoderStack) -> None:
        async with grpc.aio.insecure_channel(stack.decoder.address) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
            answers = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
        names = {service.name for service in answers[0].list_services_response.service}
        assert {"memory3.api.decoder.v1.DecoderService", "memory3.api.decoder.v1.MemoryWriterService"} <= names

    async def test_one_trace_runs_through_all_tiers(self, stack: DecoderStack, receiver: OtlpReceiver) -> None:
        trace_id = os.urandom(16).hex()
        header = ("traceparent", f"00-{trace_id}-{os.urandom(8).hex()}-01")
        async with grpc.aio.insecure_channel(stack.decoder.address) as channel:
            stub = decoder_pb2_grpc.DecoderServiceStub(channel)
            request = replace(ABOUT_A_TOWN, prompt=TEXTS[6][:30])
            answer = await stub.GenerateOnce(
                decoder_pb2.GenerateOnceRequest(request=request.to_pb()), metadata=[header]
            )
        assert answer.final.trace_id == trace_id
        front = semconv.SERVICE_DECODER
        worker = semconv.SERVICE_WORKER if replica_pids(stack.folder) else front  # one process, one name
        edges = {
            (front, semconv.SPAN_GENERATE, worker, semconv.SPAN_GENERATE),
            (worker, semconv.SPAN_GENERATE, worker, semconv.SPAN_QUEUE),
            (worker, semconv.SPAN_GENERATE, worker, semconv.SPAN_RECALL),
            (worker, semconv.SPAN_GENERATE, worker, semconv.SPAN_PREFILL),
            (worker, semconv.SPAN_GENERATE, worker, semconv.SPAN_DECODE),
            (worker, semconv.SPAN_RECALL, worker, semconv.SPAN_RETRIEVE),
            (worker, semconv.SPAN_RETRIEVE, semconv.SERVICE_RETRIEVAL, semconv.SPAN_SEARCH),
        }
        arrived = receiver.wait(lambda: edges <= receiver.edges(trace_id), 10)
        assert arrived, f"missing: {edges - receiver.edges(trace_id)}"


class TestLostWorker:
    """Last in the file: it kills the worker of the module's backend."""

    async def test_a_worker_that_dies_is_unavailable_and_comes_back(
        self, stack: DecoderStack, client: DecoderClient
    ) -> None:
        stream = client.generate(LONG)
        await anext(stream)
        replicas = replica_pids(stack.folder)
        if replicas:
            os.kill(replicas[0], signal.SIGKILL)
        else:  # the local backend's worker is the server itself
            stack.decoder.kill()
        with pytest.raises(BackendUnavailableError):
            async for _ in stream:
                pass
        if not replicas:
            await asyncio.to_thread(stack.decoder.restart_on_same_port, "MEMORY3_DECODER_PORT")
        await until_served(client, SHORT, 60)
