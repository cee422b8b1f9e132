"""gRPC <-> domain: convert, call, convert. No logic."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import grpc

from memory3.api.decoder.v1 import decoder_pb2, decoder_pb2_grpc
from memory3.types import GenerationRequest, ReferenceText, event_to_pb
from services.decoder.core import DecoderCore


class DecoderServicer(decoder_pb2_grpc.DecoderServiceServicer):
    """DecoderService."""

    def __init__(self, core: DecoderCore) -> None:
        self._core = core

    async def Generate(  # noqa: N802 - gRPC's name
        self, request: decoder_pb2.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[decoder_pb2.GenerateResponse, None]:
        asked = GenerationRequest.from_pb(request)
        async with contextlib.aclosing(self._core.generate(asked, context.time_remaining())) as events:
            async for event in events:
                yield event_to_pb(event)

    async def GenerateOnce(  # noqa: N802 - gRPC's name
        self, request: decoder_pb2.GenerateOnceRequest, context: grpc.aio.ServicerContext
    ) -> decoder_pb2.GenerateOnceResponse:
        asked = GenerationRequest.from_pb(request.request)
        return (await self._core.generate_once(asked, context.time_remaining())).to_pb()

    async def Info(  # noqa: N802 - gRPC's name
        self, request: decoder_pb2.InfoRequest, context: grpc.aio.ServicerContext
    ) -> decoder_pb2.InfoResponse:
        return (await self._core.info()).to_pb()


class MemoryWriterServicer(decoder_pb2_grpc.MemoryWriterServiceServicer):
    """MemoryWriterService."""

    def __init__(self, core: DecoderCore) -> None:
        self._core = core

    async def Write(  # noqa: N802 - gRPC's name
        self, request: decoder_pb2.WriteRequest, context: grpc.aio.ServicerContext
    ) -> decoder_pb2.WriteResponse:
        references = [ReferenceText.from_pb(reference) for reference in request.references]
        return (await self._core.write(request.bank, references)).to_pb()
