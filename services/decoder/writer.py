"""Writes references on request: what is stored already is left, the rest is encoded and put.

Knows no recall; encoding shares the device with decoding (services/decoder/device.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from opentelemetry.util.types import AnyValue

from memory3 import semconv
from memory3.errors import BackendUnavailableError, ConflictingRecordError, DeadlineExceededError, Memory3Error
from memory3.telemetry import meter, tracer
from memory3.types import ReferenceText, WriteItem, WriteResult, WriteStatus
from model.identity import reference_id as id_of_text
from services.decoder.encoding import Encoding
from services.decoder.ports import MemorySource

_written = meter.create_counter(*semconv.METRIC_WRITTEN)

_TIER_DOWN = (BackendUnavailableError, DeadlineExceededError)


class Writer:
    """Writes the memories of one model."""

    def __init__(
        self,
        encoding: Encoding,
        store: MemorySource,
        model_fingerprint: str,
        *,
        put_parallelism: int,
        timeout_s: float,
    ) -> None:
        """`timeout_s` of each call to the memory tier."""
        self._encoding = encoding
        self._store = store
        self._fingerprint = model_fingerprint
        self._permits = asyncio.Semaphore(put_parallelism)
        self._timeout_s = timeout_s

    async def write(self, bank: str, references: Sequence[ReferenceText]) -> WriteResult:
        """One item for each reference, in order. Idempotent; an id given twice is written once.

        Raises BackendUnavailableError or DeadlineExceededError if the memory tier does not answer at all, and what it
        says of the bank; a single reference's failure is its item.
        """
        began = time.monotonic_ns()
        by_reference = {reference: _Write(self, bank, reference) for reference in references}
        writes = list(by_reference.values())
        attributes: dict[str, AnyValue] = {semconv.ATTR_BANK: bank, semconv.ATTR_BATCH_SIZE: len(writes)}
        with tracer.start_as_current_span(semconv.SPAN_WRITE, attributes=attributes):
            sound = [write for write in writes if write.check()]
            existing = await self._stat(bank, [write.reference_id for write in sound])
            await asyncio.gather(*(write.run(existing.get(write.reference_id)) for write in sound))
        errors = [write.error for write in writes]
        if down := next((error for error in errors if isinstance(error, _TIER_DOWN)), None):
            # Written ones are durable and the call is idempotent: the caller had better send all of it again.
            raise down
        for write in writes:
            _written.add(1, {semconv.ATTR_STATUS: write.status.name.lower()})
        return WriteResult(
            items=[by_reference[reference].item() for reference in references],
            total_ns=time.monotonic_ns() - began,
            encode_ns=sum(write.encode_ns for write in writes),
            put_ns=sum(write.put_ns for write in writes),
        )

    async def _stat(self, bank: str, reference_ids: Sequence[str]) -> dict[str, int]:
        """Sizes of those that are stored."""
        if not reference_ids:
            return {}
        stats = await self._store.stat(bank, self._fingerprint, reference_ids, timeout=self._timeout_s)
        return {stat.reference_id: stat.size_bytes for stat in stats if stat.exists}


class _Write:
    """One reference on its way."""

    def __init__(self, owner: Writer, bank: str, reference: ReferenceText) -> None:
        self._owner = owner
        self._bank = bank
        self._reference = reference
        self.reference_id = reference.reference_id
        self.status = WriteStatus.FAILED
        self.size_bytes = 0
        self.encode_ns = 0
        self.put_ns = 0
        self.error: Memory3Error | str | None = None

    def item(self) -> WriteItem:
        return WriteItem(self.reference_id, self.status, self.size_bytes, str(self.error or ""))

    def check(self) -> bool:
        """Whether the id is the texts'."""
        try:
            expected = id_of_text(self._reference.text, self._reference.preceding)
        except ValueError as error:
            self.error = str(error)
            return False
        if self.reference_id != expected:
            self.error = (
                f"reference_id is {self.reference_id!r}, the hash of the text and of what precedes it is "
                f"{expected!r}; send that"
            )
        return self.error is None

    async def run(self, existing_bytes: int | None) -> None:
        if existing_bytes is not None:
            self.status, self.size_bytes = WriteStatus.EXISTED, existing_bytes
            return
        try:
            await self._encode_and_put()
        except Memory3Error as error:
            self.error = error

    async def _encode_and_put(self) -> None:
        owner = self._owner
        written = await owner._encoding.write(self._reference, urgent=False)
        self.encode_ns = written.encode_ns
        async with owner._permits:
            began = time.monotonic_ns()
            try:
                created = await owner._store.put(
                    self._bank, self.reference_id, owner._fingerprint, written.record, timeout=owner._timeout_s
                )
            except ConflictingRecordError:
                # Somebody wrote it since we looked. The same text in another batch, or on another device, may differ
                # in the last bits; either record is a sound memory of it.
                created = False
            self.put_ns = time.monotonic_ns() - began
        self.status = WriteStatus.WRITTEN if created else WriteStatus.EXISTED
        self.size_bytes = len(written.record)
