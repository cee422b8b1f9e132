"""Why was this one slow? The spans say so, exemplars lead to them, and no text of a caller is in them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from memory3 import semconv as names
from memory3.decoder import DecoderClient
from memory3.types import FinalEvent
from tests.helpers.observed_tiers import SECRET, Observed, generate
from tests.helpers.otlp_receiver import ReceivedSpan, is_rpc
from tests.helpers.processes import ServiceProcess

pytestmark = [pytest.mark.s3, pytest.mark.slow]

DECODER, RETRIEVAL, MEMORY = names.SERVICE_DECODER, names.SERVICE_RETRIEVAL, names.SERVICE_MEMORY

EDGES = {
    (DECODER, names.SPAN_GENERATE, DECODER, names.SPAN_RECALL),
    (DECODER, names.SPAN_RECALL, DECODER, names.SPAN_RETRIEVE),
    (DECODER, names.SPAN_RETRIEVE, RETRIEVAL, names.SPAN_EMBED),
    (DECODER, names.SPAN_RETRIEVE, RETRIEVAL, names.SPAN_SEARCH),
    (RETRIEVAL, names.SPAN_SEARCH, RETRIEVAL, names.SPAN_MILVUS),
    (DECODER, names.SPAN_RECALL, DECODER, names.SPAN_FETCH),
    (DECODER, names.SPAN_FETCH, MEMORY, names.SPAN_TIER_RAM),
    (DECODER, names.SPAN_FETCH, MEMORY, names.SPAN_TIER_OBJECT),
    (MEMORY, names.SPAN_TIER_OBJECT, MEMORY, names.SPAN_S3),
    (DECODER, names.SPAN_RECALL, DECODER, names.SPAN_LOAD),
    (DECODER, names.SPAN_GENERATE, DECODER, names.SPAN_PREFILL),
    (DECODER, names.SPAN_GENERATE, DECODER, names.SPAN_DECODE),
}

TIERS = {names.ATTR_NUM_WORKER, names.ATTR_NUM_RAM, names.ATTR_NUM_OBJECT, names.ATTR_NUM_COLD}
COUNTS = {names.ATTR_NUM_MEMORIES, names.ATTR_NUM_LATE, names.ATTR_NUM_MISSING} | TIERS

ATTRIBUTES = {
    names.SPAN_QUEUE: {names.ATTR_QUEUE_LENGTH},
    names.SPAN_RECALL: COUNTS | {names.ATTR_BANK, names.ATTR_DEADLINE, names.ATTR_NUM_RECALLS_FAILED},
    names.SPAN_RETRIEVE: {names.ATTR_NUM_QUERIES, names.ATTR_NUM_HITS},
    names.SPAN_EMBED: {names.ATTR_BATCH_SIZE, names.ATTR_QUEUE_LENGTH, names.ATTR_WAITED},
    names.SPAN_SEARCH: {names.ATTR_NUM_HITS},
    names.SPAN_MILVUS: {names.ATTR_DB_SYSTEM, names.ATTR_DB_OPERATION, names.ATTR_WAITED},
    names.SPAN_FETCH: {names.ATTR_BYTES, names.ATTR_NUM_RAM, names.ATTR_NUM_OBJECT, names.ATTR_NUM_LATE},
    names.SPAN_TIER_RAM: {names.ATTR_NUM_HITS, names.ATTR_BYTES},
    names.SPAN_TIER_OBJECT: {names.ATTR_STATUS, names.ATTR_BYTES, names.ATTR_WAITED, names.ATTR_REFERENCE_ID},
    names.SPAN_S3: {names.ATTR_RPC_SYSTEM, names.ATTR_RPC_METHOD, names.ATTR_S3_BUCKET, names.ATTR_S3_KEY},
    names.SPAN_LOAD: {names.ATTR_NUM_MEMORIES},
    names.SPAN_PREFILL: {names.ATTR_GENAI_INPUT_TOKENS},
    names.SPAN_DECODE: {names.ATTR_GENAI_OUTPUT_TOKENS, names.ATTR_BATCH_SIZE},
}


def spans_of(observed: Observed, what: str) -> list[ReceivedSpan]:
    """All spans of a generation of the load, gRPC's left out; the front's own comes last."""
    trace_id = observed.traces[what]

    def found() -> list[ReceivedSpan]:
        return [span for span in observed.receiver.spans(trace_id) if not is_rpc(span)]

    def is_whole() -> bool:
        spans = {span.span_id: span for span in observed.receiver.spans(trace_id)}
        return Counter(span.name for span in spans.values())[names.SPAN_GENERATE] == 2 and all(
            span.parent_id in spans for span in spans.values() if span.parent_id
        )

    assert observed.receiver.wait(is_whole, timeout_s=20)
    return found()


def worker_sum(spans: list[ReceivedSpan]) -> ReceivedSpan:
    """The worker's span of the generation."""
    return next(s for s in spans if s.name == names.SPAN_GENERATE and names.ATTR_NUM_RECALLS in s.attributes)


def test_a_trace_reaches_milvus_and_s3(observed: Observed) -> None:
    trace_id = observed.traces["first"]
    missing = lambda: EDGES - observed.receiver.edges(trace_id)  # noqa: E731
    observed.receiver.wait(lambda: not missing(), timeout_s=20)
    assert missing() == set()
    outside = [s for s in spans_of(observed, "first") if s.name in (names.SPAN_MILVUS, names.SPAN_S3)]
    assert {span.kind for span in outside} == {"client"}
    assert {span.attributes.get(names.ATTR_DB_OPERATION) for span in outside} >= {"search"}
    assert {span.attributes.get(names.ATTR_RPC_METHOD) for span in outside} >= {"S3/GetObject"}


@pytest.mark.parametrize("name", sorted(ATTRIBUTES))
def test_a_span_says_what_it_was_about(observed: Observed, name: str) -> None:
    trace_id = observed.traces["first"]

    def told() -> list[set[str]]:
        return [set(span.attributes) for span in observed.receiver.spans(trace_id) if span.name == name]

    # One is enough: on a busy machine another may have been given up before it had all to say.
    assert observed.receiver.wait(lambda: any(ATTRIBUTES[name] <= said for said in told()), timeout_s=20), told()


def test_memories_are_counted_by_tier(observed: Observed) -> None:
    first = worker_sum(spans_of(observed, "first")).attributes
    again = worker_sum(spans_of(observed, "again")).attributes
    assert first[names.ATTR_NUM_OBJECT]
    assert not first[names.ATTR_NUM_RAM]
    assert again[names.ATTR_NUM_RAM]
    for attributes in (first, again):
        assert sum(int(str(attributes[tier])) for tier in TIERS) == attributes[names.ATTR_NUM_MEMORIES]
    fetched = [span for span in spans_of(observed, "first") if span.name == names.SPAN_FETCH]
    assert sum(int(str(span.attributes[names.ATTR_BYTES])) for span in fetched) > 0


def test_a_recall_tells_of_each_memory(observed: Observed) -> None:
    recalls = [span for span in spans_of(observed, "first") if span.name == names.SPAN_RECALL]
    each = {names.ATTR_REFERENCE_ID, names.ATTR_DOCUMENT_ID, names.ATTR_STATUS, names.ATTR_TIER, names.ATTR_BYTES}
    for recall in recalls:
        assert {frozenset(event) for event in recall.events} <= {frozenset(each)}
        statuses = [event[names.ATTR_STATUS] for event in recall.events]
        assert statuses == sorted(statuses, key=lambda status: status != "read")
    told = {(event[names.ATTR_STATUS], event[names.ATTR_TIER]) for recall in recalls for event in recall.events}
    assert ("read", "object") in told


def test_every_span_says_its_service_and_calls_are_named_shortly(observed: Observed) -> None:
    spans = observed.receiver.spans(observed.traces["first"])
    assert [span.name for span in spans if span.attributes.get(names.ATTR_SERVICE) != span.service] == []
    calls = {span.name for span in spans if is_rpc(span)}
    assert {"RetrievalService/Retrieve", "MemoryService/BatchGet"} <= calls
    assert [name for name in calls if name.startswith("/")] == []


def test_late_memories_are_told(observed: Observed) -> None:
    spans = spans_of(observed, "late")
    late = worker_sum(spans).attributes
    # With no time at all not even retrieval answers, so there is nothing to be late but the recall itself.
    assert late[names.ATTR_NUM_RECALLS_FAILED] or late[names.ATTR_NUM_LATE]
    recall = next(span for span in spans if span.name == names.SPAN_RECALL)
    assert recall.attributes[names.ATTR_DEADLINE] == 0


def test_waiting_is_told(observed: Observed) -> None:
    queue = next(span for span in spans_of(observed, "waited") if span.name == names.SPAN_QUEUE)
    assert queue.end_ns > queue.start_ns
    assert names.ATTR_QUEUE_LENGTH in queue.attributes


@pytest.mark.parametrize(
    "metric",
    [names.METRIC_TTFT, names.METRIC_REQUEST, names.METRIC_TPOT, names.METRIC_RECALL, names.METRIC_STALLED,
     names.METRIC_SEARCH],
    ids=lambda metric: metric[0],
)  # fmt: skip
def test_exemplars_lead_to_the_traces(observed: Observed, metric: tuple[str, str, str]) -> None:
    def linked() -> set[str]:
        points = observed.receiver.points(metric[0])
        return {trace_id for point in points for trace_id, _ in point.exemplars}

    wanted = set(observed.traces.values())
    assert observed.receiver.wait(lambda: bool(linked() & wanted), timeout_s=20)

    def at() -> set[str | None]:
        spans = {span.span_id: span.name for span in observed.receiver.spans()}
        exemplars = [pair for point in observed.receiver.points(metric[0]) for pair in point.exemplars]
        return {spans.get(span_id) for trace_id, span_id in exemplars if trace_id in wanted}

    ours = {names.SPAN_GENERATE, names.SPAN_RECALL, names.SPAN_SEARCH}
    assert observed.receiver.wait(lambda: at() <= ours, timeout_s=20), at()


def test_seconds_have_buckets_of_seconds(observed: Observed) -> None:
    points = [point for point in observed.receiver.points() if point.kind == "histogram" and point.unit == "s"]
    assert points
    assert {point.bounds[0] for point in points} == {0.001}
    assert all(len([bound for bound in point.bounds if bound < 1]) > 10 for point in points)


def test_each_process_is_told_apart(observed: Observed) -> None:
    points = [point for point in observed.receiver.points() if point.service in (DECODER, RETRIEVAL, MEMORY)]
    instances = {(point.service, point.instance) for point in points}
    assert all(instance for _, instance in instances)
    assert len({instance for _, instance in instances}) == len(instances)


def test_probes_make_no_traces(observed: Observed) -> None:
    spans_of(observed, "first")
    probes = [span.name for span in observed.receiver.spans() if "health" in span.name.lower()]
    alone = [
        s.name for s in observed.receiver.spans() if s.name in (names.SPAN_MILVUS, names.SPAN_S3) and not s.parent_id
    ]
    assert (probes, alone) == ([], [])


def texts_in(spans: list[ReceivedSpan]) -> list[str]:
    """Every value that a span carries."""
    values = [value for span in spans for value in (*span.attributes.values(), span.status_message)]
    values += [value for span in spans for event in span.events for value in event.values()]
    return [str(value) for value in values]


def test_no_text_of_a_caller_is_in_a_span(observed: Observed) -> None:
    spans_of(observed, "waited")
    everything = texts_in(observed.receiver.spans())
    assert len(everything) > 100
    words = (SECRET, "lies", "miles from the sea", "Aldmoor")
    assert [text for text in everything if any(word in text for word in words)] == []
    assert [text for text in everything if "Traceback" in text] == []


def test_a_refusal_keeps_its_own_words(observed: Observed) -> None:
    def refusals() -> list[dict[str, object]]:
        return [
            event for span in observed.receiver.spans() for event in span.events if "no bank 'nowhere'" in str(event)
        ]

    assert observed.receiver.wait(lambda: bool(refusals()), timeout_s=20)


def test_one_setting_puts_prompts_and_answers_into_spans(observed: Observed) -> None:
    environment = {
        **observed.stack.decoder_env,
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true",
    }
    decoder = ServiceProcess("services.decoder", environment, observed.stack.folder / "talkative.log")
    try:
        decoder.start()
        final = asyncio.run(_ask(decoder.address))
    finally:
        decoder.stop()
    spans = observed.receiver.spans(final.trace_id)
    front = next(span for span in spans if names.ATTR_GENAI_INPUT in span.attributes)
    assert SECRET in str(front.attributes[names.ATTR_GENAI_INPUT])
    assert '"finish_reason"' in str(front.attributes[names.ATTR_GENAI_OUTPUT])
    assert any(SECRET in str(span.attributes.get(names.ATTR_QUERIES)) for span in spans)


async def _ask(address: str) -> FinalEvent:
    async with DecoderClient(address) as client:
        return (await generate(client)).final


def test_the_load_is_what_it_should_be(observed: Observed) -> None:
    """The other tests mean little unless each kind of memory was met."""
    first = worker_sum(spans_of(observed, "first")).attributes
    statuses = {str(p.attributes.get(names.ATTR_STATUS)) for p in observed.receiver.points(names.METRIC_FETCH[0])}
    assert {"found", "corrupt"} <= statuses
    assert first[names.ATTR_NUM_COLD] or first[names.ATTR_NUM_MISSING]
