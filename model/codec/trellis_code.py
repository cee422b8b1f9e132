"""Trellis-coded quantisation: many numbers at a few bits each, better than number by number, read by table look-up.

A number of b bits has 2^(b+1) levels in place of 2^b. Numbered in ascending order they belong to four subsets in turn:
0 1 2 3 0 1 2 3 ... One bit of a number, its branch, and the branches of the numbers before it choose the subset; the
other b - 1 bits choose the level within it. So the levels a number may take depend on its neighbours, and the encoder
looks for the best path through all of them (Marcellin and Fischer 1990, with a convolutional code of Ungerboeck 1982).

The numbers of a row are interleaved: what stands `stride` columns before a number is its neighbour, so that `stride`
sequences lie side by side in a row, and encoder and decoder work on all of them at once.

Knows numbers of variance about 1 and their bits; not what they mean. `decode_codes` has a slow twin in the tests.

Shape letters: S rows, C columns, N sequences side by side, X states of the trellis.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MAX_BITS = 8
"""Bits of one number at most."""
NUM_LEVELS = 2 ** (MAX_BITS + 2) - 4
"""Length of a table of levels: 4 for 1 bit, 8 for 2 bits, ... 512 for 8 bits, one after the other."""

MEMORY = 5
"""Branches of earlier numbers that take part in the choice of a subset."""
_NUM_STATES = 2**MEMORY
# Parity checks 45 and 10 (octal). Bit j stands for the branch j numbers back; the high bit of the subset is the sum of
# the branches of the one, the low bit that of the other, which leaves the number's own branch out.
_HIGH_TAPS, _LOW_TAPS = 0o45, 0o10
TAPS = tuple(back for back in range(MEMORY + 1) if (_HIGH_TAPS | _LOW_TAPS) >> back & 1)
"""How many numbers back the branches stand that choose a number's subset."""


def first_level(bits: NDArray[np.integer] | int) -> NDArray[np.integer] | int:
    """Where the levels of a number of so many bits, at least 1, begin in the table."""
    return 2 ** (bits + 1) - 4


def levels_of(table: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """The 2^(bits+1) levels of a number of so many bits, ascending; a view of the table."""
    first = 2 ** (bits + 1) - 4
    return table[first : first + 2 ** (bits + 1)]


def encode_numbers(
    numbers_SC: NDArray[np.float32], bits_C: NDArray[np.uint8], stride: int, table: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """The codes `[S, C]` of the best paths: the branch in the lowest bit, the place in the subset above it.

    `bits_C` is from 1 to MAX_BITS and does not rise along C. Of equal paths one is chosen, always the same.
    """
    num_rows, num_columns = numbers_SC.shape
    cost_SNX = np.full((num_rows, stride, _NUM_STATES), np.inf, dtype=np.float32)
    cost_SNX[..., 0] = 0
    choices: list[NDArray[np.bool_]] = []
    places: list[NDArray[np.uint8]] = []
    for columns in _steps(num_columns, stride):
        numbers_SN = numbers_SC[:, columns]
        distance_SN4, place_SN4 = _nearest_in_subsets(numbers_SN, bits_C[columns], table)
        width = numbers_SN.shape[1]
        # Each state is reached from two, which differ in the oldest branch.
        old_SN2X = cost_SNX[:, :width].reshape(num_rows, width, 2, _NUM_STATES // 2).repeat(2, axis=3)
        new_SN2X = old_SN2X + distance_SN4[..., SUBSET_OF_WINDOW].reshape(num_rows, width, 2, _NUM_STATES)
        choice_SNX = new_SN2X[:, :, 1] < new_SN2X[:, :, 0]
        # Without the common part of all paths, so that small differences are not lost on long sequences.
        best_SNX = new_SN2X.min(axis=2)
        cost_SNX[:, :width] = best_SNX - best_SNX.min(axis=2, keepdims=True)
        choices.append(choice_SNX)
        places.append(place_SN4)
    return _trace_back(cost_SNX, choices, places, num_columns, stride)


def decode_codes(
    codes_SC: NDArray[np.uint8], bits_C: NDArray[np.uint8], stride: int, table: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The numbers `[S, C]` that these codes mean."""
    branch_SC = codes_SC & 1
    window_SC = branch_SC.copy()
    for back in range(1, MEMORY + 1):
        shift = back * stride
        window_SC[:, shift:] |= branch_SC[:, : max(0, branch_SC.shape[1] - shift)] << np.uint8(back)
    level_SC = (codes_SC >> 1).astype(np.intp)
    level_SC <<= 2
    level_SC += SUBSET_OF_WINDOW[window_SC]
    level_SC += first_level(bits_C.astype(np.intp))
    return table[level_SC]


def _steps(num_columns: int, stride: int) -> Iterator[slice]:
    for start in range(0, num_columns, stride):
        yield slice(start, min(start + stride, num_columns))


def _nearest_in_subsets(
    numbers_SN: NDArray[np.float32], bits_N: NDArray[np.uint8], table: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Squared distance of each number to the nearest level of each subset, and that level's place in the subset."""
    distance_SN4 = np.empty((*numbers_SN.shape, 4), dtype=np.float32)
    place_SN4 = np.empty((*numbers_SN.shape, 4), dtype=np.uint8)
    for bits in np.unique(bits_N):
        same = np.flatnonzero(bits_N == bits)
        same_slice = slice(same[0], same[-1] + 1)  # bits do not rise, so equal ones lie together
        levels_P4 = levels_of(table, int(bits)).reshape(-1, 4)
        distance_SNP4 = (numbers_SN[:, same_slice, None, None] - levels_P4) ** 2
        place_SN4[:, same_slice] = distance_SNP4.argmin(axis=2)
        distance_SN4[:, same_slice] = distance_SNP4.min(axis=2)
    return distance_SN4, place_SN4


def _trace_back(
    cost_SNX: NDArray[np.float32],
    choices: list[NDArray[np.bool_]],
    places: list[NDArray[np.uint8]],
    num_columns: int,
    stride: int,
) -> NDArray[np.uint8]:
    codes_SC = np.empty((len(cost_SNX), num_columns), dtype=np.uint8)
    state_SN = cost_SNX.argmin(axis=2)
    steps = list(_steps(num_columns, stride))
    for columns, choice_SNX, place_SN4 in zip(reversed(steps), reversed(choices), reversed(places), strict=True):
        width = columns.stop - columns.start
        state = state_SN[:, :width]
        oldest = np.take_along_axis(choice_SNX, state[..., None], axis=2)[..., 0].astype(np.intp)
        subset = SUBSET_OF_WINDOW[state | oldest << MEMORY]
        place = np.take_along_axis(place_SN4, subset[..., None].astype(np.intp), axis=2)[..., 0]
        codes_SC[:, columns] = (state & 1).astype(np.uint8) | place << np.uint8(1)
        state_SN[:, :width] = state >> 1 | oldest << (MEMORY - 1)
    return codes_SC


def _subset_of_window() -> NDArray[np.uint8]:
    """The subset that a window of branches chooses: the number's own in the lowest bit, older ones above it."""
    windows = range(2 ** (MEMORY + 1))
    subsets = [(window & _HIGH_TAPS).bit_count() % 2 * 2 + (window & _LOW_TAPS).bit_count() % 2 for window in windows]
    return np.array(subsets, dtype=np.uint8)


SUBSET_OF_WINDOW = _subset_of_window()
