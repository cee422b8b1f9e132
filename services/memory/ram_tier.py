"""The RAM tier: immutable records by key, bounded in bytes, keeping what is asked for often (W-TinyLFU).

    new ─▶ window (LRU) ─▶ admission: asked for more often than those it would push out? ─▶ probation ─▶ protected
                                                                                              ▲  (LRU)      │ (LRU)
                                                                                              └─────────────┘

A scan (a bulk read, an audit) passes through the window and leaves the popular records where they are. The window
gives a record that is new and popular the time to be counted. Knows no store, no record's inside and no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from services.memory.frequency_sketch import FrequencySketch

ENTRY_OVERHEAD_BYTES = 512
"""Counted for each record beside its bytes: key, list node, bytes object, rounded up."""

_WINDOW_SHARE = 0.05
"""Neighbouring query chunks recall the same references within seconds, so the window must outlast a few chunks. On such
a trace 0.01 (Caffeine's choice) hits 62 %, 0.05 76 %, more no better; on a Zipf trace all are within one percent."""

_PROTECTED_SHARE = 0.8
"""Of the main part; Caffeine's choice."""

_TYPICAL_RECORD_BYTES = 32_768
"""Sizes the sketch only: records of 95 to 190 KiB leave it four counters a record and more."""

_REQUESTS_PER_RECORD_BETWEEN_AGEINGS = 10


class _Segment:
    """One LRU list and its bytes."""

    def __init__(self) -> None:
        self.entries: OrderedDict[str, bytes] = OrderedDict()
        self.size_bytes = 0

    def push(self, key: str, data: bytes) -> None:
        self.entries[key] = data
        self.size_bytes += entry_bytes(data)

    def pop(self, key: str) -> bytes:
        data = self.entries.pop(key)
        self.size_bytes -= entry_bytes(data)
        return data

    def pop_oldest(self) -> tuple[str, bytes]:
        key = next(iter(self.entries))
        return key, self.pop(key)


def entry_bytes(data: bytes) -> int:
    """What one record counts against the capacity."""
    return len(data) + ENTRY_OVERHEAD_BYTES


class RamTier:
    """A cache of bytes. Never holds more than `capacity_bytes`; 0 holds nothing."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._window_bytes = int(capacity_bytes * _WINDOW_SHARE)
        self._main_bytes = capacity_bytes - self._window_bytes
        self._protected_bytes = int(self._main_bytes * _PROTECTED_SHARE)
        self._window, self._probation, self._protected = _Segment(), _Segment(), _Segment()
        self._segments = (self._protected, self._probation, self._window)
        self._sketch = FrequencySketch(max(1024, 4 * capacity_bytes // _TYPICAL_RECORD_BYTES))
        self._requests = 0

    def get(self, key: str) -> bytes | None:
        """The record, or None. Either way the request is counted."""
        self._count(key)
        if key in self._protected.entries:
            self._protected.entries.move_to_end(key)
            return self._protected.entries[key]
        if key in self._probation.entries:
            data = self._probation.pop(key)
            self._protect(key, data)
            return data
        if key in self._window.entries:
            self._window.entries.move_to_end(key)
            return self._window.entries[key]
        return None

    def put(self, key: str, data: bytes) -> None:
        """Offer a record that `get` did not find; whether it stays is the tier's choice."""
        self.remove(key)
        if entry_bytes(data) > self._main_bytes:
            return
        self._window.push(key, data)
        while self._window.size_bytes > self._window_bytes:
            self._admit(*self._window.pop_oldest())

    def remove(self, key: str) -> None:
        """Forget the record, if it is there."""
        for segment in self._segments:
            if key in segment.entries:
                segment.pop(key)

    def remove_where(self, is_doomed: Callable[[str], bool]) -> None:
        """Forget all records whose key is doomed."""
        for segment in self._segments:
            for key in [key for key in segment.entries if is_doomed(key)]:
                segment.pop(key)

    @property
    def size_bytes(self) -> int:
        """Bytes held, overhead included."""
        return sum(segment.size_bytes for segment in self._segments)

    def __len__(self) -> int:
        return sum(len(segment.entries) for segment in self._segments)

    def _count(self, key: str) -> None:
        self._sketch.add(key)
        self._requests += 1
        if self._requests >= _REQUESTS_PER_RECORD_BETWEEN_AGEINGS * max(len(self), 100):
            self._sketch.age()
            self._requests //= 2

    def _protect(self, key: str, data: bytes) -> None:
        self._protected.push(key, data)
        while self._protected.size_bytes > self._protected_bytes:
            self._probation.push(*self._protected.pop_oldest())

    def _admit(self, key: str, data: bytes) -> None:
        """Into probation if it fits, or if it is asked for more often than all whose place it takes together."""
        missing = self._probation.size_bytes + self._protected.size_bytes + entry_bytes(data) - self._main_bytes
        popularity = self._sketch.estimate(key) if missing > 0 else 0
        victims: list[str] = []
        for segment in (self._probation, self._protected):
            for victim, held in segment.entries.items():
                if missing <= 0:
                    break
                popularity -= self._sketch.estimate(victim)
                if popularity <= 0:
                    return
                victims.append(victim)
                missing -= entry_bytes(held)
        for victim in victims:
            self.remove(victim)
        self._probation.push(key, data)
