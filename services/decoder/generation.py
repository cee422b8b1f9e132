"""One generation under way in a worker: what the engine says of it becomes the events its caller gets.

Knows no device and no recall: it is told what was recalled, and what the engine said.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Span as TraceSpan
from opentelemetry.util.types import AnyValue

from memory3 import semconv
from memory3.errors import InternalError
from memory3.telemetry import histogram, meter, tracer
from memory3.types import (
    FinalEvent,
    FinishReason,
    GenerationRequest,
    MemoryStatus,
    RecalledMemory,
    RecallEvent,
    Span,
    Timing,
    TokenEvent,
    Usage,
)
from model.engine import events
from services.decoder.event_queue import EventQueue
from services.decoder.prompt import Prompt
from services.decoder.recall import Recalled, Retrieved, memory_counts
from services.decoder.span_failure import tell_failure
from services.decoder.stages import Stage, timeline, total_ns, wall_ns

_tokens = meter.create_counter(*semconv.METRIC_TOKENS)
_stalled = histogram(semconv.METRIC_STALLED)

_REASONS = {
    events.FinishReason.END: FinishReason.END,
    events.FinishReason.STOP: FinishReason.STOP,
    events.FinishReason.LENGTH: FinishReason.LENGTH,
}


class Generation:
    """State of one request. Times are nanoseconds of the monotonic clock, the engine's as well."""

    def __init__(self, sequence_id: str, request: GenerationRequest, span: TraceSpan, context: Context) -> None:
        """`span` is the worker's span of the generation, `context` the trace context under it."""
        self.sequence_id = sequence_id
        self.request = request
        self.context = context
        self.queue = EventQueue()
        self.is_finished = False
        self._span = span
        self._arrival_ns = time.monotonic_ns()
        self._prompt: Prompt | None = None
        self._recalled: dict[int, tuple[Recalled, int]] = {}
        self._stages: list[Stage] = []
        self._reports: list[RecallEvent] = []
        self._prompt_recalled_ns = 0
        self._queue_length = 0
        self._batch_size = 0

    def retrieved_as_text(self, retrieved: Retrieved, memories: Sequence[RecalledMemory]) -> None:
        """Mode rag: the references that will stand in the prompt."""
        self._stages.append(retrieved.stage)
        self._report(RecallEvent(0, 0, memories, retrieved.failed, retrieved.stage.duration_ns, 0))

    def prepared(self, prompt: Prompt, queue_length: int = 0) -> None:
        """The prompt is rendered and goes to the engine, where `queue_length` others wait for a slot."""
        self._prompt = prompt
        self._queue_length = queue_length

    def recalled(self, spans: Sequence[int], recalled: Recalled) -> None:
        """What was recalled for these spans, one chunk each."""
        self._stages.append(recalled.stage)
        for chunk, span in enumerate(spans):
            self._recalled[span] = (recalled, chunk)
        self._prompt_recalled_ns = self._prompt_recalled_ns or time.monotonic_ns()

    def take(self, event: events.Event, batch_size: int = 1) -> None:
        """What the engine said, in order, and how many sequences it runs; its recalls are answered elsewhere."""
        match event:
            case events.TokenReady():
                self._batch_size = max(self._batch_size, batch_size)
                _tokens.add(len(event.token_ids))
                self.queue.put(TokenEvent(event.text, list(event.token_ids)))
            case events.SpanStarted() if event.inherited_from is None:
                self._span_started(event)
            case events.Finished():
                self._finished(event)

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        self.is_finished = True
        tell_failure(self._span, error)
        self.queue.close(error)

    def _span_started(self, event: events.SpanStarted) -> None:
        recalled, chunk = self._recalled.pop(event.span, (None, 0))
        recall_ns = event.started_ns - event.requested_ns if event.requested_ns is not None else 0
        memories = recalled.chunks[chunk].memories if recalled is not None else ()
        _stalled.record(event.stalled_ns / 1e9, context=self.context)
        failed = recalled is None or recalled.retrieval_failed
        self._report(RecallEvent(event.span, event.start_token, memories, failed, recall_ns, event.stalled_ns))

    def _report(self, event: RecallEvent) -> None:
        self._reports.append(event)
        self.queue.put(event)

    def _finished(self, event: events.Finished) -> None:
        if event.reason not in _REASONS:
            if not self.is_finished:
                self.fail(InternalError(f"the generation ended in the worker ({event.reason.value}): {event.error}"))
            return
        self.is_finished = True
        stages = [*self._stages, *self._engine_stages(event)]
        final = self._final(event, stages)
        self._trace(stages, final)
        self.queue.put(final)
        self.queue.close()

    def _engine_stages(self, event: events.Finished) -> list[Stage]:
        """queue, prefill and decode, as far as they were reached; waiting for the prompt's memories is no queueing."""
        stamps = event.timings
        ready_ns = max(stamps.queued_ns, self._prompt_recalled_ns)
        borders = (
            (semconv.SPAN_QUEUE, ready_ns, stamps.first_scheduled_ns),
            (semconv.SPAN_PREFILL, stamps.first_scheduled_ns, stamps.first_token_ns or stamps.finished_ns),
            (semconv.SPAN_DECODE, stamps.first_token_ns, stamps.last_token_ns),
        )
        return [
            Stage(name, semconv.SERVICE_WORKER, start, max(start, end))
            for name, start, end in borders
            if start is not None and end is not None
        ]

    def _trace(self, stages: Sequence[Stage], final: FinalEvent) -> None:
        """Spans of the engine's stages, told afterwards, for recalls have made their own; and the sum of it all."""
        usage, timing = final.usage, final.timing
        told: dict[str, dict[str, AnyValue]] = {
            semconv.SPAN_QUEUE: {semconv.ATTR_QUEUE_LENGTH: self._queue_length},
            semconv.SPAN_PREFILL: {semconv.ATTR_GENAI_INPUT_TOKENS: usage.num_prompt_tokens},
            semconv.SPAN_DECODE: {
                semconv.ATTR_GENAI_OUTPUT_TOKENS: usage.num_output_tokens,
                semconv.ATTR_BATCH_SIZE: self._batch_size,
            },
        }
        for stage in stages:
            if stage.name in told:
                start_ns, attributes = wall_ns(stage.start_ns), told[stage.name]
                span = tracer.start_span(stage.name, self.context, attributes=attributes, start_time=start_ns)
                span.end(wall_ns(stage.end_ns))
        self._span.set_attributes(
            {
                semconv.ATTR_GENAI_INPUT_TOKENS: usage.num_prompt_tokens,
                semconv.ATTR_GENAI_OUTPUT_TOKENS: usage.num_output_tokens,
                semconv.ATTR_NUM_RECALLS: usage.num_recalls,
                semconv.ATTR_NUM_RECALLS_FAILED: usage.num_recalls_failed,
                semconv.ATTR_STALLED: timing.stalled_ns / 1e6,
                semconv.ATTR_TTFT: timing.ttft_ns / 1e6,
                **memory_counts(memory for report in self._reports for memory in report.memories),
            }
        )

    def _final(self, event: events.Finished, stages: Sequence[Stage]) -> FinalEvent:
        finished_ns = time.monotonic_ns()
        root = Stage(semconv.SPAN_GENERATE, semconv.SERVICE_WORKER, self._arrival_ns, finished_ns, tuple(stages))
        stamps = event.timings
        return FinalEvent(
            finish_reason=_REASONS[event.reason],
            usage=self._usage(event),
            timing=Timing(
                total_ns=root.duration_ns,
                queue_ns=total_ns(stages, semconv.SPAN_QUEUE),
                ttft_ns=max(0, (stamps.first_token_ns or finished_ns) - self._arrival_ns),
                recall_ns=total_ns(self._stages, semconv.SPAN_RECALL) or total_ns(self._stages, semconv.SPAN_RETRIEVE),
                retrieve_ns=total_ns(self._stages, semconv.SPAN_RETRIEVE),
                fetch_ns=total_ns(self._stages, semconv.SPAN_FETCH),
                load_ns=total_ns(self._stages, semconv.SPAN_LOAD),
                stalled_ns=stamps.stalled_ns,
                prefill_ns=stamps.prefill_ns,
                decode_ns=total_ns(stages, semconv.SPAN_DECODE),
            ),
            spans=[
                Span(span.span, span.start_token, span.end_token, span.reference_ids, span.attention_mass)
                for span in event.spans
            ],
            seed=self.request.sampling.seed or 0,
            timeline=timeline(root, self._arrival_ns) if self.request.report_timeline else (),
        )

    def _usage(self, event: events.Finished) -> Usage:
        statuses = [memory.status for report in self._reports for memory in report.memories]
        return Usage(
            num_prompt_tokens=event.num_prompt_tokens,
            num_output_tokens=event.num_output_tokens,
            num_reference_tokens=self._prompt.num_reference_tokens if self._prompt is not None else 0,
            num_memories_read=sum(len(span.reference_ids) for span in event.spans),
            num_memories_late=statuses.count(MemoryStatus.LATE),
            num_memories_missing=statuses.count(MemoryStatus.MISSING) + statuses.count(MemoryStatus.REFUSED),
            num_recalls=len(self._reports),
            num_recalls_failed=sum(report.retrieval_failed for report in self._reports),
        )
