"""A reference's text -> its record, and the memory as every later reader of that record will see it.

Shared by cold start and by the writer service. Knows no store and no bank.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from memory3 import semconv
from memory3.errors import InternalError, MalformedRequestError
from memory3.telemetry import tracer
from memory3.types import ReferenceText
from model.codec.packed_memory import PackedMemory
from model.memory.explicit_memory import ExplicitMemory
from services.decoder.device import Device
from services.decoder.model_bundle import ModelBundle


@dataclass(frozen=True)
class WrittenMemory:
    """One reference, written."""

    record: bytes
    memory: PackedMemory
    """Unpacked from the record: what is read now equals what is read after a round through the store."""
    encode_ns: int
    """The device's time for it."""


class Encoding:
    """Encodes on the device, packs and unpacks beside it."""

    def __init__(self, device: Device, model: ModelBundle) -> None:
        self._device = device
        self._model = model

    async def write(self, reference: ReferenceText, *, urgent: bool) -> WrittenMemory:
        """The record of a reference.

        Raises MalformedRequestError (no tokens, or too many), OverloadedError, InternalError, BackendUnavailableError
        (worker stops).
        """
        tokens = await self._tokenize(reference.text)
        preceding: Sequence[int] = ()
        if reference.preceding and self._model.plan.preceding_tokens:
            preceding = await asyncio.to_thread(self._model.tokenizer.encode, reference.preceding)
        reference_id = reference.reference_id
        with tracer.start_as_current_span(semconv.SPAN_WRITE, attributes={semconv.ATTR_REFERENCE_ID: reference_id}):
            encoded = await self._device.encode(tokens, preceding, urgent=urgent)
            try:
                record, memory = await asyncio.to_thread(self._pack, reference_id, encoded.memory)
            except ValueError as error:
                raise InternalError(f"the memory of reference {reference_id} cannot be stored: {error}") from error
            return WrittenMemory(record, memory, encoded.encode_ns)

    async def _tokenize(self, text: str) -> list[int]:
        tokens = await asyncio.to_thread(self._model.tokenizer.encode, text)
        limit = self._model.plan.max_reference_tokens
        if not 1 <= len(tokens) <= limit:
            raise MalformedRequestError(
                f"the reference has {len(tokens)} tokens; a reference has 1 to {limit}: cut it at a sentence boundary"
            )
        return tokens

    def _pack(self, reference_id: str, memory: ExplicitMemory) -> tuple[bytes, PackedMemory]:
        record = self._model.codec.encode(memory.to_arrays(), reference_id, self._model.fingerprint)
        return record, self._model.unpack(record, reference_id)
