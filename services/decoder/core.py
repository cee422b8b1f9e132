"""The front: checks requests, admits them, and passes events on from the backend with the front's own times.

Knows no model, no Ray and no gRPC.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from opentelemetry import trace

from memory3 import semconv
from memory3.errors import DeadlineExceededError
from memory3.telemetry import histogram, inject, records_content, tracer
from memory3.types import (
    DecoderInfo,
    FinalEvent,
    Generation,
    GenerationEvent,
    GenerationRequest,
    RecallEvent,
    ReferenceText,
    TimelineEntry,
    TokenEvent,
    WriteResult,
)
from services.decoder import content
from services.decoder.admission import Admission
from services.decoder.event_queue import EventQueue
from services.decoder.ports import Carrier, GenerationBackend
from services.decoder.span_failure import tell_failure
from services.decoder.stages import under
from services.decoder.validation import check_generation, check_write

_ttft = histogram(semconv.METRIC_TTFT)
_tpot = histogram(semconv.METRIC_TPOT)
_request = histogram(semconv.METRIC_REQUEST)


class DecoderCore:
    """Generations and writes for callers of the service."""

    def __init__(self, backend: GenerationBackend, *, max_generations: int) -> None:
        self._backend = backend
        self._admission = Admission(max_generations, "this server")
        self._info: DecoderInfo | None = None

    async def info(self) -> DecoderInfo:
        """What decodes here; asked of the backend once, it does not change. Raises BackendUnavailableError."""
        if self._info is None:
            self._info = await self._backend.info()
        return self._info

    async def generate(
        self, request: GenerationRequest, timeout_s: float | None
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Events of one generation; see decoder.proto, Generate. Closing the iterator cancels it in the backend.

        `timeout_s`: what is left of the caller's deadline. Text that waits for a slow caller is merged.
        """
        arrival_ns = time.monotonic_ns()
        info = await self.info()
        plan = json.loads(info.memory_plan_json)
        check_generation(request, plan["memories_per_chunk"])
        request = _with_seed(request)
        with self._admission.permit():
            attributes = {
                semconv.ATTR_GENAI_OPERATION: "chat" if request.messages else "text_completion",
                semconv.ATTR_GENAI_MODEL: info.model,
                semconv.ATTR_MODE: request.mode.name.lower(),
            }
            if records_content():
                attributes[semconv.ATTR_GENAI_INPUT] = content.input_messages(request)
            span = tracer.start_span(semconv.SPAN_GENERATE, attributes=attributes)
            with trace.use_span(span, end_on_exit=False):
                carrier = inject()
            clock = _Clock(arrival_ns, span)
            queue = EventQueue()
            pump = asyncio.create_task(self._pump(request, carrier, timeout_s, queue))
            try:
                async for event in queue.read():
                    yield clock.seen(event, request)
            except Exception as error:
                tell_failure(span, error)
                raise
            finally:
                pump.cancel()
                span.end()

    async def generate_once(self, request: GenerationRequest, timeout_s: float | None) -> Generation:
        """All events of one generation, put together."""
        text: list[str] = []
        recalls: list[RecallEvent] = []
        final: FinalEvent | None = None
        async with contextlib.aclosing(self.generate(request, timeout_s)) as events:
            async for event in events:
                match event:
                    case TokenEvent():
                        text.append(event.text)
                    case RecallEvent():
                        recalls.append(event)
                    case FinalEvent():
                        final = event
        assert final is not None, "a generation without error ends with a final event"
        return Generation("".join(text), recalls, final)

    async def write(self, bank: str, references: Sequence[ReferenceText]) -> WriteResult:
        """Write (reference_id, text) pairs; see decoder.proto, Write."""
        check_write(bank, references)
        return await self._backend.write(bank, references, inject())

    async def _pump(
        self, request: GenerationRequest, carrier: Carrier, timeout_s: float | None, queue: EventQueue
    ) -> None:
        """From the backend into the queue, at the backend's pace."""
        try:
            async with (
                asyncio.timeout(timeout_s),
                contextlib.aclosing(self._backend.generate(request, carrier, timeout_s)) as events,
            ):
                async for event in events:
                    queue.put(event)
        except TimeoutError:
            queue.close(DeadlineExceededError(f"the generation did not end within {timeout_s:.3g} s"))
        except Exception as error:
            queue.close(error)
        finally:
            queue.close()


class _Clock:
    """The front's times of one generation."""

    def __init__(self, arrival_ns: int, span: trace.Span) -> None:
        self._arrival_ns = arrival_ns
        self._sent_ns = time.monotonic_ns()
        self._first_token_ns: int | None = None
        self._span = span
        # What is measured is linked to the trace it was measured in.
        self._context = trace.set_span_in_context(span)
        self._text: list[str] | None = [] if records_content() else None

    def seen(self, event: GenerationEvent, request: GenerationRequest) -> GenerationEvent:
        """The event as the caller gets it."""
        now_ns = time.monotonic_ns()
        if isinstance(event, TokenEvent) and self._first_token_ns is None:
            self._first_token_ns = now_ns
            mode = {semconv.ATTR_MODE: request.mode.name.lower()}
            _ttft.record((now_ns - self._arrival_ns) / 1e9, mode, self._context)
        if isinstance(event, TokenEvent) and self._text is not None:
            self._text.append(event.text)
        if not isinstance(event, FinalEvent):
            return event
        return self._final(event, request, now_ns)

    def _final(self, event: FinalEvent, request: GenerationRequest, now_ns: int) -> FinalEvent:
        total_ns = now_ns - self._arrival_ns
        first_ns = self._first_token_ns or now_ns
        mode = {semconv.ATTR_MODE: request.mode.name.lower()}
        _request.record(total_ns / 1e9, mode, self._context)
        num_tokens = event.usage.num_output_tokens
        if num_tokens > 1:
            _tpot.record(event.timing.decode_ns / 1e9 / (num_tokens - 1), mode, self._context)
        self._span.set_attributes(
            {
                semconv.ATTR_GENAI_INPUT_TOKENS: event.usage.num_prompt_tokens,
                semconv.ATTR_GENAI_OUTPUT_TOKENS: num_tokens,
                semconv.ATTR_GENAI_FINISH_REASONS: (event.finish_reason.name.lower(),),
                semconv.ATTR_TTFT: (first_ns - self._arrival_ns) / 1e6,
                semconv.ATTR_NUM_LATE: event.usage.num_memories_late,
                semconv.ATTR_NUM_MISSING: event.usage.num_memories_missing,
            }
        )
        if self._text is not None:
            output = content.output_messages("".join(self._text), event.finish_reason)
            self._span.set_attribute(semconv.ATTR_GENAI_OUTPUT, output)
        # The worker's clock may be another machine's, so its timeline is laid from when the request was sent to it.
        root = TimelineEntry(semconv.SPAN_GENERATE, semconv.SERVICE_DECODER, None, 0, total_ns)
        return replace(
            event,
            timing=replace(event.timing, total_ns=total_ns, ttft_ns=first_ns - self._arrival_ns),
            timeline=under(root, self._sent_ns - self._arrival_ns, event.timeline) if request.report_timeline else (),
            trace_id=_trace_id(self._span),
        )


def _with_seed(request: GenerationRequest) -> GenerationRequest:
    """A seed is always reported, so one is drawn where none is given."""
    if request.sampling.seed is not None:
        return request
    return replace(request, sampling=replace(request.sampling, seed=secrets.randbits(63)))


def _trace_id(span: trace.Span) -> str:
    context = span.get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""
