"""Cold start: a memory that is missing when it is recalled is written then, and put in the background for next time.

Knows no recall: whether anybody still waits for the memory is not its business.
"""

from __future__ import annotations

import asyncio
import logging

from memory3 import semconv
from memory3.errors import ConflictingRecordError, MalformedRequestError, Memory3Error
from memory3.telemetry import meter
from memory3.types import Reference, ReferenceText
from model.identity import reference_id as id_of_text
from services.decoder.encoding import Encoding, WrittenMemory
from services.decoder.ports import MemorySource

log = logging.getLogger(__name__)
_written = meter.create_counter(*semconv.METRIC_WRITTEN)

_MAX_WAITING_PUTS = 256
"""Records that may wait to be put; more are dropped (and counted): they will be written again when recalled again."""


class ColdStart:
    """Writes missing memories. One for each worker."""

    def __init__(
        self,
        encoding: Encoding,
        store: MemorySource,
        model_fingerprint: str,
        *,
        put_parallelism: int,
        put_timeout_s: float,
    ) -> None:
        self._encoding = encoding
        self._store = store
        self._fingerprint = model_fingerprint
        self._permits = asyncio.Semaphore(put_parallelism)
        self._put_timeout_s = put_timeout_s
        self._puts: set[asyncio.Task[None]] = set()

    async def write(self, bank: str, reference: Reference) -> WrittenMemory | None:
        """The memory of a reference; None if it cannot be written now. Its put goes on in the background."""
        try:
            wanted = ReferenceText(reference.reference_id, reference.text, reference.preceding)
            if id_of_text(wanted.text, wanted.preceding) != wanted.reference_id:
                raise MalformedRequestError(
                    "its id is not the hash of its text and of what precedes it; index its document again"
                )
            written = await self._encoding.write(wanted, urgent=True)
        except Memory3Error as error:
            log.warning("cold start of reference %s: %s", reference.reference_id, error)
            _written.add(1, {semconv.ATTR_STATUS: "cold_failed"})
            return None
        if len(self._puts) < _MAX_WAITING_PUTS:
            put = asyncio.create_task(self._put(bank, reference.reference_id, written.record))
            self._puts.add(put)
            put.add_done_callback(self._puts.discard)
        else:
            _written.add(1, {semconv.ATTR_STATUS: "cold_not_put"})
        return written

    async def close(self) -> None:
        """Give up the puts that are under way: what is lost is written again when it is recalled again."""
        for put in list(self._puts):
            put.cancel()
        await asyncio.gather(*self._puts, return_exceptions=True)

    async def _put(self, bank: str, reference_id: str, record: bytes) -> None:
        try:
            async with self._permits:
                await self._store.put(bank, reference_id, self._fingerprint, record, timeout=self._put_timeout_s)
        except ConflictingRecordError:  # another writer was first; see writer.py
            _written.add(1, {semconv.ATTR_STATUS: "existed"})
        except Memory3Error as error:
            log.warning("memory of reference %s was written and not stored: %s", reference_id, error)
            _written.add(1, {semconv.ATTR_STATUS: "cold_not_put"})
        else:
            _written.add(1, {semconv.ATTR_STATUS: "cold_written"})
