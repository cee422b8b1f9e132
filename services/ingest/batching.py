"""References of many documents -> full Write calls; equal references of one run are written once.

Documents mostly have one or two references, so batches are formed across documents: while calls are under way, what
arrives waits and goes out together. Knows no progress and no index.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from memory3.types import Reference, ReferenceText, WriteStatus
from services.ingest.ports import Writer
from services.ingest.retry import Tier

T = TypeVar("T")

REMEMBERED_REFERENCES = 1_000_000
"""References known to be written, kept to skip their doubles; beyond it the oldest are asked for again."""


def in_parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items, in order, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


class WriteFailedError(Exception):
    """The writer refused a reference; the message is its reason."""


@dataclass
class WriteCounts:
    """What the writer said of the references sent to it, and how many doubles were not sent."""

    written: int = 0
    existed: int = 0
    doubles: int = 0
    bytes_written: int = 0


class BatchWriter:
    """Collects references and writes them in batches. Use inside `running`."""

    def __init__(
        self, bank: str, writer: Writer, tier: Tier, *, batch_references: int, parallelism: int, timeout_s: float
    ) -> None:
        self.counts = WriteCounts()
        self._bank = bank
        self._writer = writer
        self._tier = tier
        self._batch_references = batch_references
        self._parallelism = parallelism
        self._timeout_s = timeout_s
        self._queue: asyncio.Queue[Reference] = asyncio.Queue(4 * batch_references * parallelism)
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._written: OrderedDict[str, None] = OrderedDict()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[BatchWriter]:
        """Send batches inside the block."""
        senders = [asyncio.create_task(self._send()) for _ in range(self._parallelism)]
        try:
            yield self
        finally:
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, return_exceptions=True)
            for future in self._under_way.values():
                future.cancel()

    async def write(self, references: Sequence[Reference]) -> None:
        """Return when all of them have durable memories.

        Raises WriteFailedError for a refused reference, the tier's error, or RunStoppedError.
        """
        waiting: dict[str, asyncio.Future[None]] = {}
        for reference in references:
            key = reference.reference_id
            if key in self._written or key in waiting:
                self.counts.doubles += 1
                continue
            future = self._under_way.get(key)
            if future is not None:
                self.counts.doubles += 1
            else:
                future = asyncio.get_running_loop().create_future()
                self._under_way[key] = future
                await self._queue.put(reference)
            waiting[key] = future
        # Wait for all before raising: nobody may be left whose failure is never looked at.
        results = await asyncio.gather(*(asyncio.shield(f) for f in waiting.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _send(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self._batch_references and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._send_batch(batch)

    async def _send_batch(self, batch: Sequence[Reference]) -> None:
        wanted = [ReferenceText(one.reference_id, one.text, one.preceding) for one in batch]
        try:
            result = await self._tier.call(lambda: self._writer.write(self._bank, wanted, timeout=self._timeout_s))
        except Exception as error:
            for reference in batch:
                self._settle(reference.reference_id, error)
            return
        for reference, item in zip(batch, result.items, strict=True):
            if item.status == WriteStatus.FAILED:
                self._settle(reference.reference_id, WriteFailedError(item.error or "the writer gave no reason"))
                continue
            if item.status == WriteStatus.WRITTEN:
                self.counts.written += 1
                self.counts.bytes_written += item.size_bytes
            else:
                self.counts.existed += 1
            self._written[reference.reference_id] = None
            if len(self._written) > REMEMBERED_REFERENCES:
                self._written.popitem(last=False)
            self._settle(reference.reference_id, None)

    def _settle(self, reference_id: str, error: Exception | None) -> None:
        future = self._under_way.pop(reference_id)
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
            future.exception()  # marked as seen: a cancelled document no longer waits for it
