"""The one thread that owns model and engine. It steps the engine and, between steps, encodes references.

Everything else of the worker lives in the event loop and hands this thread what to do; the engine's methods are
called nowhere else. Knows no request, no text and no network.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from memory3.errors import BackendUnavailableError, InternalError, OverloadedError
from model.engine.engine import Engine
from model.engine.events import Event
from model.memory.explicit_memory import ExplicitMemory

log = logging.getLogger(__name__)

Command = Callable[[Engine], Sequence[Event]]


class ReferenceEncoder(Protocol):
    """Encodes references into memories (model.memory.writer.MemoryWriter)."""

    def write(self, references: Sequence[Sequence[int]], *, preceding: Sequence[Sequence[int]]) -> list[ExplicitMemory]:
        """One memory for each reference's tokens, behind those that precede it, in order."""
        ...


@dataclass(frozen=True)
class EncodeLimits:
    """How encoding shares the device with decoding."""

    batch_size: int
    """References in one batch at most."""
    pause_ns: int
    """How long one batch should take while somebody decodes."""
    share: float
    """Of the device's time, while somebody decodes."""
    max_pending: int
    """References that may wait."""


@dataclass(frozen=True)
class Encoded:
    """A memory as the model gave it, and the device's time for it (its part of the batch), nanoseconds."""

    memory: ExplicitMemory
    encode_ns: int


@dataclass(frozen=True)
class _Order:
    command: Command
    on_error: Callable[[Exception], None]


@dataclass(frozen=True)
class _Job:
    tokens: Sequence[int]
    preceding: Sequence[int]
    result: asyncio.Future[Encoded]


class Device:
    """Runs the engine. Public methods are for the event loop's thread."""

    def __init__(
        self,
        engine: Engine,
        encoder: ReferenceEncoder,
        limits: EncodeLimits,
    ) -> None:
        self._engine = engine
        self._encoder = encoder
        self._limits = limits
        self._commands: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        # Cold start before bulk writing: somebody waits for it.
        self._urgent: deque[_Job] = deque()
        self._bulk: deque[_Job] = deque()
        self._num_pending = 0
        self._debt_ns = 0
        self._reference_ns = 0
        self._thread: threading.Thread | None = None
        self._is_over = False
        self.failure: Exception | None = None

    def start(self, on_events: Callable[[Sequence[Event]], None], on_failure: Callable[[Exception], None]) -> None:
        """Start the thread; call in the event loop that uses the device. Both functions are called there; a failure
        is final."""
        self._on_events, self._on_failure = on_events, on_failure
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End the thread after the step it is in. References that wait to be encoded fail."""
        if self._thread is not None:
            self._commands.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def submit(self, command: Command, on_error: Callable[[Exception], None] | None = None) -> None:
        """Have a command run on the engine before its next step; its events are published like a step's.

        What it raises goes to `on_error`, in the event loop.
        """
        self._commands.put(_Order(command, on_error or _log_error))

    async def encode(self, tokens: Sequence[int], preceding: Sequence[int] = (), *, urgent: bool) -> Encoded:
        """The memory of one reference behind what precedes it, both in tokens.

        Raises OverloadedError, InternalError, BackendUnavailableError (stopped).
        """
        if self._is_over:
            raise _over()
        if self._num_pending >= self._limits.max_pending:
            raise OverloadedError(
                f"{self._num_pending} references wait to be encoded, which is the limit; try again in a moment",
                retry_after_ms=1000,
            )
        job = _Job(tokens, preceding, self._loop.create_future())
        self._num_pending += 1
        try:
            (self._urgent if urgent else self._bulk).append(job)
            self._commands.put(_Order(_nothing, _log_error))
            return await job.result
        finally:
            self._num_pending -= 1

    def _run(self) -> None:
        try:
            while self._run_commands():
                began = time.monotonic_ns()
                if self._can_step:
                    self._publish(self._engine.step())
                    # A step's time buys encoding its share.
                    spent = time.monotonic_ns() - began
                    self._debt_ns = max(
                        0, self._debt_ns - int(spent * self._limits.share / (1 - self._limits.share + 1e-9))
                    )
                if self._debt_ns == 0 or not self._can_step:
                    self._encode_batch()
        except Exception as error:
            log.exception("the engine failed; this worker is of no more use")
            self.failure = error
            self._loop.call_soon_threadsafe(self._on_failure, error)
        self._loop.call_soon_threadsafe(self._end)

    @property
    def _can_step(self) -> bool:
        return self._engine.has_work and not self._engine.is_stalled

    def _run_commands(self) -> bool:
        """Run what is queued; wait for something to do. False when told to stop."""
        is_idle = not (self._can_step or self._urgent or self._bulk)
        while True:
            try:
                order = self._commands.get(block=is_idle)
            except queue.Empty:
                return True
            if order is None:
                return False
            is_idle = False
            try:
                self._publish(order.command(self._engine))
            except Exception as error:
                self._loop.call_soon_threadsafe(order.on_error, error)

    def _encode_batch(self) -> None:
        jobs = self._next_jobs()
        if not jobs:
            return
        began = time.monotonic_ns()
        try:
            memories = self._encoder.write([job.tokens for job in jobs], preceding=[job.preceding for job in jobs])
        except Exception as error:
            log.exception("encoding %d references failed", len(jobs))
            failure = InternalError(f"the model failed on a batch of {len(jobs)} references: {error}")
            for job in jobs:
                self._loop.call_soon_threadsafe(_reject, job.result, failure)
            return
        spent = time.monotonic_ns() - began
        self._reference_ns = spent // len(jobs)
        self._debt_ns += spent
        for job, memory in zip(jobs, memories, strict=True):
            self._loop.call_soon_threadsafe(_resolve, job.result, Encoded(memory, self._reference_ns))

    def _next_jobs(self) -> list[_Job]:
        """A batch, urgent ones first; small while somebody decodes, so that no token waits long."""
        limit = self._limits.batch_size
        if self._can_step:
            limit = max(1, min(limit, self._limits.pause_ns // max(self._reference_ns, 1)))
        jobs: list[_Job] = []
        for waiting in (self._urgent, self._bulk):
            while waiting and len(jobs) < limit:
                job = waiting.popleft()
                if not job.result.done():  # its caller may have gone
                    jobs.append(job)
        return jobs

    def _publish(self, events: Sequence[Event]) -> None:
        if events:
            self._loop.call_soon_threadsafe(self._on_events, events)

    def _end(self) -> None:
        """In the event loop, where references are queued: none is left waiting, and none joins any more."""
        self._is_over = True
        for job in (*self._urgent, *self._bulk):
            _reject(job.result, _over())


def _over() -> Exception:
    return BackendUnavailableError("the worker does not run any more and cannot encode references; try again")


def _log_error(error: Exception) -> None:
    log.error("a command to the engine failed", exc_info=error)


def _nothing(_: Engine) -> Sequence[Event]:
    """Wakes the thread."""
    return ()


def _resolve(future: asyncio.Future[Encoded], value: Encoded) -> None:
    if not future.done():
        future.set_result(value)


def _reject(future: asyncio.Future[Encoded], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
