"""A worker: takes requests, runs them on its device, answers their recalls, streams their events.

Plain asyncio beside the device's thread; knows neither gRPC nor Ray nor where it runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Observation

from memory3 import semconv
from memory3.errors import BackendUnavailableError, DeadlineExceededError, InternalError, Memory3Error
from memory3.telemetry import extract, meter, tracer
from memory3.types import DecoderInfo, GenerationEvent, GenerationRequest, Mode, ReferenceText, WriteResult
from model.codec.packed_memory import PackedMemory
from model.engine import task
from model.engine.engine import Engine
from model.engine.events import Event, RecallNeeded
from model.expansion.expander import Expander
from services.decoder.admission import Admission
from services.decoder.device import Device
from services.decoder.generation import Generation
from services.decoder.model_bundle import ModelBundle
from services.decoder.ports import Carrier
from services.decoder.prompt import Prompt, PromptBuilder, content_text
from services.decoder.recall import Recaller, RecallRequest, recalled_memory
from services.decoder.writer import Writer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerParts:
    """What a worker is made of (services/decoder/assembly.py makes them)."""

    model: ModelBundle
    engine: Engine
    device: Device
    prompts: PromptBuilder
    recaller: Recaller
    writer: Writer
    close: Callable[[], Awaitable[None]]
    """Closes what the parts share: clients, loads and probes."""


class Worker:
    """Generations and writes on one device, within one event loop."""

    def __init__(
        self, parts: WorkerParts, *, max_generations: int, recall_deadline_ms: int, text_events_per_second: float
    ) -> None:
        self._model = parts.model
        self._engine = parts.engine
        self._device = parts.device
        self._prompts = parts.prompts
        self._recaller = parts.recaller
        self._writer = parts.writer
        self._close = parts.close
        self._recall_deadline_ms = recall_deadline_ms
        self._text_events_per_second = text_events_per_second
        self._admission = Admission(max_generations, "this worker")
        self._generations: dict[str, Generation] = {}
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}
        self._ids = itertools.count()
        self._is_stopped = False

        for (name, unit, meaning), read in (
            (semconv.METRIC_WORKER_QUEUE, lambda: self._engine.num_waiting),
            (semconv.METRIC_WORKER_BATCH, lambda: self._engine.num_running),
        ):
            meter.create_observable_gauge(name, [_observer(read)], unit, meaning)

    def start(self) -> None:
        """Start the device's thread."""
        self._device.start(self._on_events, self._on_failure)

    async def stop(self) -> None:
        """End all generations with BackendUnavailableError, then the device's thread, then the clients."""
        self._is_stopped = True
        for generation in list(self._generations.values()):
            generation.fail(BackendUnavailableError("the worker is stopping; send the request again"))
        await self._device.stop()
        await self._close()

    async def generate(
        self, request: GenerationRequest, carrier: Carrier, timeout_s: float | None = None
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Events of one checked request, the last one a FinalEvent; closing the iterator frees the slot at once.

        Errors: decoder.proto, Generate. `timeout_s`: after that the generation ends with DeadlineExceededError, whether
        or not anybody cancels it.
        """
        with self._admission.permit():
            self._check_usable()
            span = tracer.start_span(
                semconv.SPAN_GENERATE,
                context=extract(carrier),
                attributes={semconv.ATTR_MODE: request.mode.name.lower()},
            )
            under_span = trace.set_span_in_context(span, extract(carrier))
            generation = Generation(f"{next(self._ids)}", request, span, under_span)
            self._generations[generation.sequence_id] = generation
            timer = self._start_timer(generation, timeout_s)
            self._run_beside(generation, self._begin(generation))
            try:
                async for event in generation.queue.read(self._text_interval_s):
                    yield event
            finally:
                if timer is not None:
                    timer.cancel()
                self._forget(generation)
                span.end()

    async def write(self, bank: str, references: Sequence[ReferenceText], carrier: Carrier) -> WriteResult:
        """Write (reference_id, text) pairs. Errors: decoder.proto, Write."""
        self._check_usable()
        token = otel_context.attach(extract(carrier))
        try:
            return await self._writer.write(bank, references)
        finally:
            otel_context.detach(token)

    def info(self) -> DecoderInfo:
        """What decodes here."""
        return self._model.info

    def check(self) -> None:
        """Raises BackendUnavailableError or InternalError if this worker is of no more use."""
        self._check_usable()

    def _text_interval_s(self) -> float:
        """Every event costs its transport the same, so each generation gets its share of those a second can carry."""
        return len(self._generations) / self._text_events_per_second

    def _check_usable(self) -> None:
        if self._device.failure is not None:
            raise InternalError(f"the engine of this worker failed and does not run any more: {self._device.failure}")
        if self._is_stopped:
            raise BackendUnavailableError("the worker is stopping; send the request again")

    async def _begin(self, generation: Generation) -> None:
        """Render the prompt and hand it to the engine; errors end the generation."""
        request = generation.request
        try:
            references = await self._references_as_text(generation) if request.mode is Mode.RAG else []
            prompt = await asyncio.to_thread(self._prompts.build, request, references)
            generation.prepared(prompt, self._engine.num_waiting)
            to_run = self._task_of(generation, prompt)
            self._device.submit(
                lambda engine: _add(engine, generation, to_run), lambda error: _refuse(generation, error)
            )
        except Memory3Error as error:
            generation.fail(error)
        except Exception as error:
            log.exception("a generation could not begin")
            generation.fail(InternalError(f"the prompt could not be prepared: {type(error).__name__}: {error}"))

    async def _references_as_text(self, generation: Generation) -> list[str]:
        request = generation.request
        retrieved = await self._recaller.retrieve(self._recall_request(request, [content_text(request)]))
        hits = retrieved.hits[0]
        generation.retrieved_as_text(retrieved, [recalled_memory(hit, None) for hit in hits])
        return [hit.reference.text for hit in hits]

    def _task_of(self, generation: Generation, prompt: Prompt) -> task.GenerationTask:
        request, drawn = generation.request, generation.request.sampling
        return task.GenerationTask(
            id=generation.sequence_id,
            prompt_tokens=prompt.tokens,
            is_content=prompt.is_content,
            max_tokens=prompt.max_tokens,
            reads_memories=request.mode is Mode.MEMORY,
            sampling=task.Sampling(drawn.temperature, drawn.top_k, drawn.top_p),
            seed=drawn.seed or 0,
            stop=tuple(request.stop),
            eos_token_ids=frozenset(self._model.tokenizer.eos_token_ids),
            report_attention=request.report_attention and request.mode is Mode.MEMORY,
        )

    def _on_events(self, events: Sequence[Event]) -> None:
        for event in events:
            generation = self._generations.get(event.sequence_id)
            if generation is None or generation.is_finished:
                continue
            if isinstance(event, RecallNeeded):
                self._run_beside(generation, self._recall(generation, event))
            else:
                generation.take(event, self._engine.num_running)

    def _on_failure(self, error: Exception) -> None:
        for generation in list(self._generations.values()):
            generation.fail(InternalError(f"the engine of this worker failed: {type(error).__name__}: {error}"))

    async def _recall(self, generation: Generation, needed: RecallNeeded) -> None:
        """Answer one RecallNeeded: whatever happens, every span is delivered or the generation ends."""
        queries = [self._query(span.query_tokens) for span in needed.spans]
        try:
            recalled = await self._recaller.recall(self._recall_request(generation.request, queries))
        except Memory3Error as error:
            self._end(generation, error)
            return
        except Exception as error:
            log.exception("a recall failed in an unexpected way")
            self._end(generation, InternalError(f"a recall failed: {type(error).__name__}: {error}"))
            return
        generation.recalled([span.span for span in needed.spans], recalled)
        delivery = [(span.span, chunk.readable) for span, chunk in zip(needed.spans, recalled.chunks, strict=True)]
        self._device.submit(
            lambda engine: _deliver(engine, self._model.expander, generation.sequence_id, delivery),
            lambda error: self._end(generation, _unreadable(error)),
        )

    def _recall_request(self, request: GenerationRequest, queries: Sequence[str]) -> RecallRequest:
        deadline_ms = self._recall_deadline_ms if request.recall_deadline_ms is None else request.recall_deadline_ms
        return RecallRequest(
            bank=request.bank,
            queries=queries,
            top_k=request.memories_per_chunk or self._model.plan.memories_per_chunk,
            document_ids=request.document_ids,
            deadline_ns=time.monotonic_ns() + deadline_ms * 1_000_000,
        )

    def _query(self, tokens: Sequence[int]) -> str:
        # A chunk may begin or end inside a character.
        return self._model.tokenizer.decode(tokens).strip("\ufffd")

    def _end(self, generation: Generation, error: Exception) -> None:
        generation.fail(error)
        self._device.submit(lambda engine: _cancel(engine, generation.sequence_id))

    def _start_timer(self, generation: Generation, timeout_s: float | None) -> asyncio.TimerHandle | None:
        if timeout_s is None:
            return None
        error = DeadlineExceededError(f"the generation did not end within {timeout_s:.3g} s, the deadline of the call")
        return asyncio.get_running_loop().call_later(timeout_s, self._end, generation, error)

    def _run_beside(self, generation: Generation, work: Coroutine[None, None, None]) -> None:
        """Run beside the generation, under its trace context, and no longer than it."""
        variables = contextvars.copy_context()
        variables.run(otel_context.attach, generation.context)
        running = asyncio.create_task(work, context=variables)
        tasks = self._tasks.setdefault(generation.sequence_id, set())
        tasks.add(running)
        running.add_done_callback(tasks.discard)

    def _forget(self, generation: Generation) -> None:
        """The generation is over, or its caller is gone."""
        if not generation.is_finished:
            generation.is_finished = True
            self._device.submit(lambda engine: _cancel(engine, generation.sequence_id))
        del self._generations[generation.sequence_id]
        for running in list(self._tasks.pop(generation.sequence_id, ())):
            running.cancel()


def _observer(read: Callable[[], int]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(read())]


def _add(engine: Engine, generation: Generation, to_run: task.GenerationTask) -> Sequence[Event]:
    # The caller may have gone while the prompt was rendered.
    return () if generation.is_finished else engine.add(to_run)


def _refuse(generation: Generation, error: Exception) -> None:
    generation.fail(InternalError(f"the engine refused a checked request: {type(error).__name__}: {error}"))


def _deliver(
    engine: Engine, expander: Expander, sequence_id: str, delivery: Sequence[tuple[int, tuple[PackedMemory, ...]]]
) -> Sequence[Event]:
    """Expand the memories of all spans at once, and hand each span its own."""
    expanded = iter(expander.expand([memory for _, memories in delivery for memory in memories]))
    for span, memories in delivery:
        engine.deliver(sequence_id, span, tuple(itertools.islice(expanded, len(memories))))
    return ()


def _unreadable(error: Exception) -> InternalError:
    return InternalError(f"recalled memories could not be expanded: {type(error).__name__}: {error}")


def _cancel(engine: Engine, sequence_id: str) -> Sequence[Event]:
    finished = engine.cancel(sequence_id)
    return () if finished is None else (finished,)
