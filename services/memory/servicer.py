"""MemoryService on gRPC: protobuf -> core -> protobuf, no logic."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

import grpc

from memory3.api.memory.v1 import memory_pb2 as pb
from memory3.api.memory.v1 import memory_pb2_grpc
from services.memory.core import MemoryCore
from services.memory.layout import Identity


class MemoryServicer(memory_pb2_grpc.MemoryServiceServicer):
    """MemoryService."""

    def __init__(self, core: MemoryCore) -> None:
        self._core = core

    async def Put(self, request: pb.PutRequest, _: grpc.aio.ServicerContext) -> pb.PutResponse:  # noqa: N802
        started_ns = time.perf_counter_ns()
        pb_identity = request.identity
        identity = Identity(pb_identity.bank, pb_identity.reference_id, pb_identity.model_fingerprint)
        created = await self._core.put(identity, request.record)
        return pb.PutResponse(created=created, total_ns=time.perf_counter_ns() - started_ns)

    async def BatchGet(  # noqa: N802
        self, request: pb.BatchGetRequest, _: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.BatchGetResponse]:
        items = self._core.batch_get(request.bank, request.model_fingerprint, list(request.reference_ids))
        async with contextlib.aclosing(items):
            async for item in items:
                yield item.to_pb()

    async def Stat(self, request: pb.StatRequest, _: grpc.aio.ServicerContext) -> pb.StatResponse:  # noqa: N802
        stats = await self._core.stat(request.bank, request.model_fingerprint, list(request.reference_ids))
        return pb.StatResponse(items=[stat.to_pb() for stat in stats])

    async def Delete(self, request: pb.DeleteRequest, _: grpc.aio.ServicerContext) -> pb.DeleteResponse:  # noqa: N802
        num_memories = await self._core.delete(
            request.bank,
            list(request.reference_ids),
            request.model_fingerprint if request.HasField("model_fingerprint") else None,
            whole_bank=request.whole_bank,
        )
        return pb.DeleteResponse(num_memories=num_memories)

    async def List(self, request: pb.ListRequest, _: grpc.aio.ServicerContext) -> pb.ListResponse:  # noqa: N802
        page = await self._core.list(
            request.bank,
            request.model_fingerprint if request.HasField("model_fingerprint") else None,
            request.page_size,
            request.page_token,
        )
        return pb.ListResponse(memories=[entry.to_pb() for entry in page.memories], next_page_token=page.next_token)
