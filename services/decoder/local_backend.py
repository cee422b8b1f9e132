"""GenerationBackend in this process: one worker. For one machine, and for tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from memory3.types import DecoderInfo, GenerationEvent, GenerationRequest, ReferenceText, WriteResult
from services.decoder.ports import Carrier
from services.decoder.worker import Worker


class LocalBackend:
    """A started worker as a backend."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def generate(
        self, request: GenerationRequest, carrier: Carrier, timeout_s: float | None
    ) -> AsyncGenerator[GenerationEvent, None]:
        """See GenerationBackend."""
        return self._worker.generate(request, carrier, timeout_s)

    async def write(self, bank: str, references: Sequence[ReferenceText], carrier: Carrier) -> WriteResult:
        """See GenerationBackend."""
        return await self._worker.write(bank, references, carrier)

    async def info(self) -> DecoderInfo:
        """See GenerationBackend."""
        return self._worker.info()

    async def check(self) -> None:
        """See GenerationBackend."""
        self._worker.check()

    async def close(self) -> None:
        """See GenerationBackend."""
        await self._worker.stop()
