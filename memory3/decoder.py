"""DecoderClient: generations, and the writing of references into memories. Knows no other tier."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from memory3.api.decoder.v1 import decoder_pb2, decoder_pb2_grpc
from memory3.channel import ChannelClient, translated
from memory3.security import PLAIN, ChannelSecurity
from memory3.types import (
    DecoderInfo,
    Generation,
    GenerationEvent,
    GenerationRequest,
    ReferenceText,
    WriteResult,
    event_from_pb,
)


class DecoderClient(ChannelClient):
    """Typed calls to DecoderService and MemoryWriterService; every call raises memory3.errors.

    `timeout` of each call: seconds, sent along as the call's deadline. Effects, limits and errors: decoder.proto.
    """

    def __init__(self, target: str, *, retry: bool = True, security: ChannelSecurity = PLAIN) -> None:
        super().__init__(target, retry=retry, security=security)
        self._decoder = decoder_pb2_grpc.DecoderServiceStub(self.channel)
        self._writer = decoder_pb2_grpc.MemoryWriterServiceStub(self.channel)

    async def generate(
        self, request: GenerationRequest, *, timeout: float = 600.0
    ) -> AsyncGenerator[GenerationEvent, None]:
        """The events of one generation; the last one is a FinalEvent.

        Closing the generator (contextlib.aclosing) or cancelling the task cancels the call, which frees its slot.
        """
        async with translated(self.target):
            call = self._decoder.Generate(request.to_pb(), timeout=timeout)
            try:
                async for response in call:
                    event = event_from_pb(response)
                    if event is not None:
                        yield event
            finally:
                call.cancel()

    async def generate_once(self, request: GenerationRequest, *, timeout: float = 600.0) -> Generation:
        """The whole generation in one answer."""
        async with translated(self.target):
            once = decoder_pb2.GenerateOnceRequest(request=request.to_pb())
            return Generation.from_pb(await self._decoder.GenerateOnce(once, timeout=timeout))

    async def info(self, *, timeout: float = 10.0) -> DecoderInfo:
        """Model, memory plan and limits."""
        async with translated(self.target):
            return DecoderInfo.from_pb(await self._decoder.Info(decoder_pb2.InfoRequest(), timeout=timeout))

    async def write(self, bank: str, references: Sequence[ReferenceText], *, timeout: float = 300.0) -> WriteResult:
        """Encode and store references; one item for each, in order."""
        async with translated(self.target):
            request = decoder_pb2.WriteRequest(bank=bank, references=[reference.to_pb() for reference in references])
            return WriteResult.from_pb(await self._writer.Write(request, timeout=timeout))
