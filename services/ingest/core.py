"""The pipeline: documents -> references -> write -> index, many documents at once, every step idempotent.

Put before index: a document is indexed when all its references have memories (warm), or without any (cold; the first
recall writes them). Knows no files, no wire and no screen.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from memory3 import semconv
from memory3.errors import Memory3Error, UnknownBankError
from memory3.telemetry import tracer
from services.ingest.batching import BatchWriter, WriteFailedError, in_parts
from services.ingest.chunk import CutDocument, Cutter
from services.ingest.documents import BadInput, SourceDocument
from services.ingest.ports import Index, MemoryStore
from services.ingest.progress import INDEXED, Progress, ProgressError, written
from services.ingest.reconcile import reconcile_index, reconcile_memories
from services.ingest.retry import RunStoppedError, Tier
from services.ingest.room import Room
from services.ingest.summary import Failure, Summary

UPSERT_REFERENCES = 32
"""References in one part of a document: even the longest ones stay far below the message limit of 4 MiB."""
GET_REFERENCES_IDS = 256
DELETE_IDS = 4096


@dataclass(frozen=True)
class Bounds:
    """How much at once, and when to give up; see config.py for each."""

    references_in_flight: int = 2048
    documents_in_flight: int = 64
    index_parallelism: int = 16
    failures_in_a_row: int = 25
    call_timeout_s: float = 120.0


@dataclass(frozen=True)
class Warm:
    """What a warm run needs beside the index: who writes, and for which model."""

    writer: BatchWriter
    model_fingerprint: str


class Pipeline:
    """One run into one bank. `warm` is None for a cold run."""

    def __init__(
        self,
        bank: str,
        cutter: Cutter,
        progress: Progress,
        *,
        index: tuple[Index, Tier],
        memories: tuple[MemoryStore, Tier],
        warm: Warm | None,
        bounds: Bounds,
        on_input: Callable[[Summary, int, Failure | None], None] = lambda summary, num_bytes, failure: None,
    ) -> None:
        """`on_input` is called after each input with the summary so far, the input's bytes, and its failure if any."""
        self.summary = Summary()
        self._bank = bank
        self._cutter = cutter
        self._progress = progress
        self._index, self._index_tier = index
        self._memories, self._memory_tier = memories
        self._warm = warm
        self._bounds = bounds
        self._on_input = on_input
        self._room = Room(bounds.documents_in_flight, bounds.references_in_flight)
        self._upserts = asyncio.Semaphore(bounds.index_parallelism)
        self._seen: dict[str, str] = {}
        self._failures_in_a_row = 0

    async def run(self, inputs: Iterator[SourceDocument | BadInput]) -> Summary:
        """Ingest all inputs. Failures of single inputs, and why the run stopped early, stand in the summary."""
        start = time.monotonic()
        try:
            await self._reconcile()
            async with contextlib.AsyncExitStack() as stack:
                if self._warm is not None:
                    await stack.enter_async_context(self._warm.writer.running())
                await self._ingest_all(inputs)
            await self._delete_orphans()
        except* (RunStoppedError, ProgressError) as group:
            self.summary.stopped = str(_first(group))
        finally:
            self.summary.seconds = time.monotonic() - start
            self._count_writes()
        return self.summary

    async def _reconcile(self) -> None:
        await reconcile_index(self._bank, self._progress, self._index, self._index_tier)
        if self._warm is not None:
            await reconcile_memories(
                self._bank,
                self._warm.model_fingerprint,
                self._progress,
                self._memories,
                self._memory_tier,
                timeout_s=self._bounds.call_timeout_s,
            )

    async def _ingest_all(self, inputs: Iterator[SourceDocument | BadInput]) -> None:
        async with asyncio.TaskGroup() as group:
            while (item := await asyncio.to_thread(self._next, inputs)) is not None:
                if isinstance(item, BadInput):
                    self._note_bad(item)
                    continue
                room = len(item.references)
                await self._room.take(room)
                task = group.create_task(self._ingest_one(item))
                task.add_done_callback(partial(self._give_back, room))

    def _give_back(self, room: int, _: asyncio.Task[None]) -> None:
        self._room.give_back(room)

    def _next(self, inputs: Iterator[SourceDocument | BadInput]) -> CutDocument | BadInput | None:
        """Reading and cutting, off the event loop."""
        item = next(inputs, None)
        if not isinstance(item, SourceDocument):
            return item
        cut = self._cutter.cut(item)
        if not cut.references:
            return BadInput(item.source, "no text that has tokens: nothing to ingest", True, item.num_bytes)
        return cut

    def _note_bad(self, item: BadInput) -> None:
        if item.harmless:
            self.summary.documents_empty += 1
        failure = Failure(item.source, item.reason)
        if not item.harmless:
            self.summary.failures.append(failure)
        self._on_input(self.summary, item.num_bytes, failure)

    async def _ingest_one(self, cut: CutDocument) -> None:
        document = cut.document
        failure: Failure | None = None
        with tracer.start_as_current_span(
            semconv.SPAN_INGEST,
            attributes={semconv.ATTR_BANK: self._bank, semconv.ATTR_DOCUMENT_ID: document.document_id},
        ):
            try:
                await self._steps(cut)
                self._failures_in_a_row = 0
            except (Memory3Error, WriteFailedError) as error:
                failure = Failure(document.source, str(error))
                self.summary.failures.append(failure)
                await asyncio.to_thread(self._progress.fail, self._bank, document.document_id, str(error))
                self._failures_in_a_row += 1
        self._count_writes()
        self._on_input(self.summary, document.num_bytes, failure)
        if self._failures_in_a_row >= self._bounds.failures_in_a_row:
            raise RunStoppedError(
                f"{self._failures_in_a_row} documents in a row failed, the last one because: {failure.reason}; "
                "see to it and run the same command again to go on"
                if failure
                else "too many documents in a row failed"
            )

    async def _steps(self, cut: CutDocument) -> None:
        document_id = cut.document.document_id
        version = self._seen.setdefault(document_id, cut.version)
        if version != cut.version:
            raise WriteFailedError(
                f"document id {document_id!r} comes twice in this run, with different content; give each its own id"
            )
        behind = await asyncio.to_thread(self._progress.stages, self._bank, document_id, cut.version)
        ids = [reference.reference_id for reference in cut.references]
        changed = False
        if self._warm is not None and (stage := written(self._warm.model_fingerprint)) not in behind:
            changed = True
            await self._warm.writer.write(cut.references)
            await asyncio.to_thread(
                self._progress.finish, self._bank, document_id, cut.version, stage, reference_ids=ids
            )
        if INDEXED not in behind:
            changed = True
            orphans = await self._upsert(cut)
            await asyncio.to_thread(
                self._progress.finish,
                self._bank,
                document_id,
                cut.version,
                INDEXED,
                reference_ids=ids,
                orphans=orphans,
            )
        self.summary.documents += 1
        self.summary.references += len(cut.references)
        if not changed:
            self.summary.documents_unchanged += 1
            self.summary.references_unchanged += len(cut.references)

    async def _upsert(self, cut: CutDocument) -> Sequence[str]:
        """Index the document part by part; returns references no document holds any more."""
        orphans: list[str] = []
        async with self._upserts:
            for part in in_parts(cut.references, UPSERT_REFERENCES):
                result = await self._index_tier.call(
                    partial(
                        self._index.upsert,
                        self._bank,
                        cut.document.document_id,
                        cut.version,
                        part,
                        last_part=part[-1] is cut.references[-1],
                        timeout=self._bounds.call_timeout_s,
                    )
                )
                self.summary.references_indexed += len(part)
                self.summary.references_removed += result.num_removed
                orphans.extend(result.orphaned_reference_ids)
        return orphans

    async def _delete_orphans(self) -> None:
        """Delete the memories of references that this run, or one cut short, removed from the index.

        At the end and after a look into the index: by now another document may hold the same text.
        """
        orphans = await asyncio.to_thread(self._progress.orphans, self._bank)
        timeout = self._bounds.call_timeout_s
        unheld: list[str] = []
        for ids in in_parts(orphans, GET_REFERENCES_IDS):
            try:
                found = await self._index_tier.call(
                    partial(self._index.get_references, self._bank, ids, timeout=timeout)
                )
            except UnknownBankError:
                found = []
            held = {reference.reference_id for reference in found}
            unheld.extend(orphan for orphan in ids if orphan not in held)
        for ids in in_parts(unheld, DELETE_IDS):
            deleted = await self._memory_tier.call(partial(self._memories.delete, self._bank, ids, timeout=timeout))
            self.summary.memories_deleted += deleted
        await asyncio.to_thread(self._progress.drop_orphans, self._bank, orphans)

    def _count_writes(self) -> None:
        if self._warm is not None:
            counts = self._warm.writer.counts
            self.summary.memories_written = counts.written
            self.summary.memories_existed = counts.existed
            self.summary.bytes_written = counts.bytes_written
            self.summary.doubles = counts.doubles


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
