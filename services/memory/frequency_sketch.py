"""How often was a key asked for lately: a count-min sketch with ageing, in constant space. Knows no cache."""

from __future__ import annotations

import hashlib

_MAX_COUNT = 15
"""Enough to rank; a counter that counted further would only take longer to forget."""

_HALVE = bytes(count // 2 for count in range(256))


class FrequencySketch:
    """Estimates are never below the true count since the last ageing (up to 15), and rarely above it."""

    def __init__(self, width: int) -> None:
        """`width`: counters in each of the four rows, rounded up to a power of two; four a key make errors rare."""
        self._mask = (1 << max(4, (width - 1).bit_length())) - 1
        self._rows = [bytearray(self._mask + 1) for _ in range(4)]

    def add(self, key: str) -> None:
        """Count one request. Only the smallest counters grow, which halves the error of growing all of them."""
        places = self._places(key)
        least = min(row[place] for row, place in zip(self._rows, places, strict=True))
        if least == _MAX_COUNT:
            return
        for row, place in zip(self._rows, places, strict=True):
            if row[place] == least:
                row[place] += 1

    def estimate(self, key: str) -> int:
        """Requests for this key, 0 to 15."""
        return min(row[place] for row, place in zip(self._rows, self._places(key), strict=True))

    def age(self) -> None:
        """Halve all counts, so that what was popular long ago makes room."""
        self._rows = [bytearray(row.translate(_HALVE)) for row in self._rows]

    def _places(self, key: str) -> tuple[int, int, int, int]:
        # Not hash(): it differs between processes, and a hit ratio would differ with it.
        bits = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), "little")
        mask = self._mask
        return bits & mask, bits >> 32 & mask, bits >> 64 & mask, bits >> 96 & mask
