"""Batches of texts of concurrent calls for one embedder, with a bounded queue. Knows no index and no transport."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from memory3 import semconv
from memory3.errors import OverloadedError
from memory3.telemetry import histogram, meter
from services.retrieval.ports import Embedder, Vectors

_batch_size = histogram(semconv.METRIC_EMBED_BATCH)
_queued = meter.create_up_down_counter(*semconv.METRIC_EMBED_QUEUE)


@dataclass(frozen=True)
class Embedded:
    """Vectors of one call's texts and where its time went, nanoseconds."""

    vectors: Vectors
    queue_ns: int
    embed_ns: int
    batch_size: int
    """Texts of the batch that had the call's last ones, other calls' included."""


@dataclass(eq=False)
class _Job:
    """One call's texts; `taken` of them are in a batch or done."""

    texts: Sequence[str]
    vectors: Vectors
    done: asyncio.Future[None]
    queued_at: int
    taken: int = 0
    started_at: int = 0
    ended_at: int = 0
    batch_size: int = 0


@dataclass
class _Lane:
    """A queue of jobs and how many of their texts wait."""

    jobs: deque[_Job] = field(default_factory=deque)
    waiting: int = 0


class Batcher:
    """Runs the embedder in one thread, on as many waiting texts as a batch holds.

    Queries go before bulk texts: a generation waits for its recall, an ingest does not. Each kind has a queue of
    `max_queue_texts` texts.
    """

    def __init__(self, embedder: Embedder, *, max_batch_texts: int, max_queue_texts: int) -> None:
        self.embedder_id = embedder.embedder_id
        self.dimension = embedder.dimension
        self.max_batch_texts = max_batch_texts
        self._embedder = embedder
        self._max_queue_texts = max_queue_texts
        self._queries = _Lane()
        self._bulk = _Lane()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._worker: asyncio.Task[None] | None = None
        self._ns_per_text = 0

    async def embed(self, texts: Sequence[str], *, bulk: bool = False) -> Embedded:
        """Vectors in the order of the texts.

        Raises OverloadedError when the queue has no room for all of them. A cancelled caller's texts leave the queue.
        """
        lane = self._bulk if bulk else self._queries
        if lane.waiting + len(texts) > self._max_queue_texts:
            raise OverloadedError(
                f"{lane.waiting} texts wait for the embedder and {len(texts)} more would exceed the limit of "
                f"{self._max_queue_texts}; try again later or send fewer",
                retry_after_ms=max(50, lane.waiting * self._ns_per_text // 1_000_000),
            )
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        job = _Job(texts, vectors, asyncio.get_running_loop().create_future(), time.perf_counter_ns())
        lane.jobs.append(job)
        self._count(lane, len(texts))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        try:
            await job.done
        finally:
            if job in lane.jobs:
                lane.jobs.remove(job)
                self._count(lane, job.taken - len(texts))
        return Embedded(vectors, job.started_at - job.queued_at, job.ended_at - job.started_at, job.batch_size)

    @property
    def num_waiting(self) -> int:
        """Texts that wait for the embedder, of both kinds."""
        return self._queries.waiting + self._bulk.waiting

    async def close(self) -> None:
        """Wait for the running batch and end the thread. Callers still waiting are cancelled."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        for lane in (self._queries, self._bulk):
            for job in lane.jobs:
                job.done.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def _work(self) -> None:
        """Embed until nobody waits."""
        try:
            while batch := self._next_batch():
                await self._run(batch)
        finally:
            self._worker = None

    def _next_batch(self) -> list[tuple[_Job, int, int]]:
        """Take the next texts off the queues, as (job, first, end exclusive)."""
        batch: list[tuple[_Job, int, int]] = []
        room = self.max_batch_texts
        for lane in (self._queries, self._bulk):
            while room and lane.jobs:
                job = lane.jobs[0]
                end = min(job.taken + room, len(job.texts))
                batch.append((job, job.taken, end))
                self._count(lane, job.taken - end)
                room -= end - job.taken
                job.taken = end
                if end == len(job.texts):
                    lane.jobs.popleft()
        return batch

    async def _run(self, batch: list[tuple[_Job, int, int]]) -> None:
        """Embed one batch and hand its vectors to the jobs."""
        texts = [text for job, first, end in batch for text in job.texts[first:end]]
        started = time.perf_counter_ns()
        for job, first, _ in batch:
            if first == 0:
                job.started_at = started
        _batch_size.record(len(texts))
        loop = asyncio.get_running_loop()
        try:
            vectors = await loop.run_in_executor(self._thread, self._embedder.embed, texts)
        except asyncio.CancelledError:
            for job, _, _ in batch:
                job.done.cancel()
            raise
        except Exception as error:
            for job, _, _ in batch:
                if not job.done.done():
                    job.done.set_exception(error)
            return
        ended = time.perf_counter_ns()
        self._ns_per_text = (ended - started) // len(texts)
        place = 0
        for job, first, end in batch:
            job.vectors[first:end] = vectors[place : place + end - first]
            place += end - first
            if end == len(job.texts) and not job.done.done():
                job.ended_at, job.batch_size = ended, len(texts)
                job.done.set_result(None)

    def _count(self, lane: _Lane, change: int) -> None:
        lane.waiting += change
        _queued.add(change)
