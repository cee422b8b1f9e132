"""Levels of the trellis code: which numbers a code of so many bits can mean. Found by Lloyd's iteration.

Shape letters: S rows, C columns.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from model.codec.trellis_code import MAX_BITS, NUM_LEVELS, decode_codes, encode_numbers, levels_of

_SAMPLE_ROWS, _SAMPLE_COLUMNS, _STRIDE = 16, 1024, 32
SAMPLE = _SAMPLE_ROWS * _SAMPLE_COLUMNS
"""Numbers one Lloyd iteration looks at."""
_MANY_BITS = 6
"""From here on the levels of a normal distribution are nearly right already, and an iteration takes long."""
_DENSITY_POWER = 3
"""Levels stand as dense as the cube root of the numbers, which is right for squared error and many levels."""


def normal_levels() -> NDArray[np.float32]:
    """A table for normally distributed numbers of variance 1, from which the iteration starts."""
    table = np.empty(NUM_LEVELS, dtype=np.float32)
    for bits in range(1, MAX_BITS + 1):
        count = 2 ** (bits + 1)
        # With few levels subsets overlap and the outermost can lie further in; with many, rare numbers must not be cut.
        wide = NormalDist(sigma=_DENSITY_POWER**0.5 * (0.85 if bits < 5 else 1.0))
        levels_of(table, bits)[:] = [wide.inv_cdf((place + 0.5) / count) for place in range(count)]
    return table


def improve_levels(table: NDArray[np.float32], bits: int, numbers: NDArray[np.float32], iterations: int = 8) -> float:
    """Fit the levels of so many bits to a sample of numbers, in place; gives their mean squared error.

    `numbers` are SAMPLE of them, in any shape.
    """
    numbers_SC = numbers.reshape(_SAMPLE_ROWS, _SAMPLE_COLUMNS)
    bits_C = np.full(_SAMPLE_COLUMNS, bits, dtype=np.uint8)
    levels = levels_of(table, bits)
    error = 0.0
    for _ in range(iterations if bits < _MANY_BITS else 2):
        codes_SC = encode_numbers(numbers_SC, bits_C, _STRIDE, table)
        decoded_SC = decode_codes(codes_SC, bits_C, _STRIDE, table)
        error = float(((numbers_SC - decoded_SC) ** 2).mean())
        place = np.searchsorted(levels, decoded_SC.ravel())
        counts = np.bincount(place, minlength=len(levels))
        sums = np.bincount(place, numbers_SC.ravel(), minlength=len(levels))
        moved = np.where(counts > 0, sums / np.maximum(counts, 1), levels)
        # Ascending order is what the subsets are made of.
        levels[:] = np.maximum.accumulate(moved)
    return error
