"""What the memory tier speaks of: records by identity, and how each item of a batch fared. Knows no record's inside."""

from __future__ import annotations

from dataclasses import dataclass

from memory3.api.common.v1 import common_pb2
from memory3.api.memory.v1 import memory_pb2
from memory3.types.wire import TolerantEnum, plain


class FetchStatus(TolerantEnum):
    """How one record of a batched get fared; numbers as in memory.proto."""

    UNKNOWN = 0
    FOUND = 1
    MISSING = 2
    CORRUPT = 3
    MISMATCH = 4
    UNAVAILABLE = 5


class Tier(TolerantEnum):
    """Where a memory was read; numbers as in decoder.proto (the memory tier has numbers of its own)."""

    NONE = 0
    WORKER = 1
    RAM = 2
    OBJECT = 3
    COLD = 4


_TIER_TO_PB: dict[Tier, int] = {
    Tier.NONE: memory_pb2.TIER_UNSPECIFIED,
    Tier.RAM: memory_pb2.TIER_RAM,
    Tier.OBJECT: memory_pb2.TIER_OBJECT,
}
"""The tiers that the memory service itself can name."""

_TIER_FROM_PB = {number: tier for tier, number in _TIER_TO_PB.items()}


@dataclass(frozen=True)
class FetchedRecord:
    """One item of a batched get; `record` is empty unless status is FOUND."""

    reference_id: str
    status: FetchStatus
    tier: Tier
    record: bytes
    elapsed_ns: int

    @classmethod
    def from_pb(cls, pb: memory_pb2.BatchGetResponse) -> FetchedRecord:
        tier = _TIER_FROM_PB.get(pb.tier, Tier.NONE)
        return cls(pb.reference_id, FetchStatus(pb.status), tier, pb.record, pb.elapsed_ns)

    def to_pb(self) -> memory_pb2.BatchGetResponse:
        """Raises KeyError for a tier that is not the memory service's (WORKER, COLD)."""
        return memory_pb2.BatchGetResponse(**{**self.__dict__, "tier": _TIER_TO_PB[self.tier]})


@dataclass(frozen=True)
class MemoryStat:
    """Whether the memory of a reference exists, and its size."""

    reference_id: str
    exists: bool
    size_bytes: int

    @classmethod
    def from_pb(cls, pb: memory_pb2.MemoryStat) -> MemoryStat:
        return cls(**plain(cls, pb))

    def to_pb(self) -> memory_pb2.MemoryStat:
        return memory_pb2.MemoryStat(**self.__dict__)


@dataclass(frozen=True)
class MemoryEntry:
    """One stored memory."""

    bank: str
    reference_id: str
    model_fingerprint: str
    size_bytes: int

    @classmethod
    def from_pb(cls, pb: memory_pb2.MemoryEntry) -> MemoryEntry:
        identity = pb.identity
        return cls(identity.bank, identity.reference_id, identity.model_fingerprint, pb.size_bytes)

    def to_pb(self) -> memory_pb2.MemoryEntry:
        identity = common_pb2.MemoryIdentity(
            bank=self.bank, reference_id=self.reference_id, model_fingerprint=self.model_fingerprint
        )
        return memory_pb2.MemoryEntry(identity=identity, size_bytes=self.size_bytes)
