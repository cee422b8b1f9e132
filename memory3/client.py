"""Client: the three tiers together, and what only the three together can do. Knows no service's inside."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from memory3.decoder import DecoderClient
from memory3.errors import UnknownBankError
from memory3.memory_pool import open_memory
from memory3.retrieval import RetrievalClient
from memory3.security import PLAIN, ChannelSecurity
from memory3.types import DeleteResult

RETRIEVAL_ADDRESS = "127.0.0.1:7301"
MEMORY_ADDRESS = "127.0.0.1:7302"
DECODER_ADDRESS = "127.0.0.1:7303"
_IDS_PER_DELETE = 4096
"""Limit of MemoryService.Delete."""


class Client:
    """A RetrievalClient, a MemoryClient and a DecoderClient; make it inside a running event loop.

    Connections are opened by the first call to each tier, so a tier that is not used need not run. Raises
    SecurityError if `security`, which holds for all three, cannot be used.
    """

    def __init__(
        self,
        *,
        retrieval: str = RETRIEVAL_ADDRESS,
        memory: str = MEMORY_ADDRESS,
        decoder: str = DECODER_ADDRESS,
        retry: bool = True,
        security: ChannelSecurity = PLAIN,
    ) -> None:
        self.retrieval = RetrievalClient(retrieval, retry=retry, security=security)
        self.memory = open_memory(memory, retry=retry, security=security)
        self.decoder = DecoderClient(decoder, retry=retry, security=security)

    async def delete_documents(self, bank: str, document_ids: Sequence[str]) -> tuple[DeleteResult, int]:
        """Remove documents from the index, then the memories of references that no other document holds.

        Returns what left the index, and how many memories are gone. Unindex before delete: if the second step fails,
        nothing can be recalled any more and only unused memories stay behind.
        """
        removed = await self.retrieval.delete(bank, document_ids)
        orphans = list(removed.orphaned_reference_ids)
        num_memories = 0
        for start in range(0, len(orphans), _IDS_PER_DELETE):
            num_memories += await self.memory.delete(bank, orphans[start : start + _IDS_PER_DELETE])
        return removed, num_memories

    async def delete_bank(self, bank: str) -> tuple[DeleteResult, int]:
        """Remove the whole bank: first its index, then its memories of all models. Returns as delete_documents.

        Raises UnknownBankError only if neither tier has anything of it, so a delete cut short can be run again.
        """
        missing: UnknownBankError | None = None
        try:
            removed = await self.retrieval.delete(bank, whole_bank=True)
        except UnknownBankError as error:
            missing, removed = error, DeleteResult(0, 0, ())
        num_memories = await self.memory.delete(bank, whole_bank=True)
        if missing is not None and num_memories == 0:
            raise missing
        return removed, num_memories

    async def close(self) -> None:
        """Close the three channels."""
        for tier in (self.retrieval, self.memory, self.decoder):
            await tier.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
