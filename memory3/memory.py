"""MemoryClient: records by identity. Knows no record's inside."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from memory3.api.common.v1 import common_pb2
from memory3.api.memory.v1 import memory_pb2, memory_pb2_grpc
from memory3.channel import ChannelClient, translated
from memory3.security import PLAIN, ChannelSecurity
from memory3.types import FetchedRecord, MemoryEntry, MemoryStat


class MemoryClient(ChannelClient):
    """Typed calls to MemoryService; every call raises memory3.errors.

    `timeout` of each call: seconds, sent along as the call's deadline. Effects, limits and errors: memory.proto.
    """

    def __init__(self, target: str, *, retry: bool = True, security: ChannelSecurity = PLAIN) -> None:
        super().__init__(target, retry=retry, security=security)
        self._stub = memory_pb2_grpc.MemoryServiceStub(self.channel)

    async def put(
        self, bank: str, reference_id: str, model_fingerprint: str, record: bytes, *, timeout: float = 30.0
    ) -> bool:
        """Store one record durably; False if an equal one was there."""
        async with translated(self.target):
            identity = common_pb2.MemoryIdentity(
                bank=bank, reference_id=reference_id, model_fingerprint=model_fingerprint
            )
            request = memory_pb2.PutRequest(identity=identity, record=record)
            response = await self._stub.Put(request, timeout=timeout)
            return bool(response.created)

    async def batch_get(
        self, bank: str, model_fingerprint: str, reference_ids: Sequence[str], *, timeout: float = 30.0
    ) -> AsyncGenerator[FetchedRecord, None]:
        """One item for each distinct id, in the order of arrival. Closing the generator cancels the call."""
        async with translated(self.target):
            request = memory_pb2.BatchGetRequest(
                bank=bank, model_fingerprint=model_fingerprint, reference_ids=reference_ids
            )
            call = self._stub.BatchGet(request, timeout=timeout)
            try:
                async for response in call:
                    yield FetchedRecord.from_pb(response)
            finally:
                call.cancel()

    async def stat(
        self, bank: str, model_fingerprint: str, reference_ids: Sequence[str], *, timeout: float = 10.0
    ) -> Sequence[MemoryStat]:
        """Which memories exist, and their size, in the order of the ids."""
        async with translated(self.target):
            request = memory_pb2.StatRequest(
                bank=bank, model_fingerprint=model_fingerprint, reference_ids=reference_ids
            )
            response = await self._stub.Stat(request, timeout=timeout)
            return [MemoryStat.from_pb(item) for item in response.items]

    async def delete(
        self,
        bank: str,
        reference_ids: Sequence[str] = (),
        *,
        model_fingerprint: str | None = None,
        whole_bank: bool = False,
        timeout: float = 120.0,
    ) -> int:
        """Delete memories, of one model or of all; how many were there and are gone."""
        async with translated(self.target):
            request = memory_pb2.DeleteRequest(
                bank=bank, reference_ids=reference_ids, model_fingerprint=model_fingerprint, whole_bank=whole_bank
            )
            response = await self._stub.Delete(request, timeout=timeout)
            return int(response.num_memories)

    async def list(
        self, bank: str, model_fingerprint: str | None = None, *, page_size: int = 1000, timeout: float = 30.0
    ) -> AsyncGenerator[MemoryEntry, None]:
        """All memories of the bank by key, fetched page by page; `timeout` holds for each page."""
        token = ""
        while True:
            async with translated(self.target):
                request = memory_pb2.ListRequest(
                    bank=bank, model_fingerprint=model_fingerprint, page_size=page_size, page_token=token
                )
                response = await self._stub.List(request, timeout=timeout)
            for entry in response.memories:
                yield MemoryEntry.from_pb(entry)
            token = response.next_page_token
            if not token:
                return
