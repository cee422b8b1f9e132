"""Packed memories in the worker's RAM: least recently used out first, bounded in bytes.

Knows no store and no records; used by one event loop only, so it needs no lock.
"""

from __future__ import annotations

from collections import OrderedDict

from model.codec.packed_memory import PackedMemory


class MemoryCache:
    """Memories by bank and reference id. The model needs no place in the key: a worker reads memories of one only."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._memories: OrderedDict[tuple[str, str], PackedMemory] = OrderedDict()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._memories)

    def get(self, bank: str, reference_id: str) -> PackedMemory | None:
        """The memory, if it is held; it becomes the most recently used."""
        memory = self._memories.get((bank, reference_id))
        if memory is not None:
            self._memories.move_to_end((bank, reference_id))
        return memory

    def put(self, bank: str, reference_id: str, memory: PackedMemory) -> None:
        """Hold the memory; others go until the bound holds. One larger than the bound is not held."""
        size = len(memory.payload)
        if size > self._capacity_bytes:
            return
        previous = self._memories.pop((bank, reference_id), None)
        if previous is not None:
            self.num_bytes -= len(previous.payload)
        self._memories[bank, reference_id] = memory
        self.num_bytes += size
        while self.num_bytes > self._capacity_bytes:
            _, dropped = self._memories.popitem(last=False)
            self.num_bytes -= len(dropped.payload)
