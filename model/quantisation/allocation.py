"""Which number gets how many bits: one bit after the other goes where it saves the most (reverse water-filling)."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def allocate_bits(losses: NDArray[np.floating], error_of_bits: Sequence[float], num_bits: int) -> NDArray[np.uint8]:
    """Bits for each number, of the shape of `losses`, `num_bits` in all.

    `losses`: what the model loses if the number is left out. `error_of_bits[b]`: share of it that is left at b bits,
    falling from 1. Raises ValueError if there is not room for so many bits, or for none.
    """
    most = len(error_of_bits) - 1
    if not 0 < num_bits <= most * losses.size:
        raise ValueError(f"{num_bits} bits for {losses.size} numbers of at most {most}; give 1 to {most * losses.size}")
    savings = [high - low for high, low in pairwise(error_of_bits)]
    flat = losses.ravel().tolist()
    bits = [0] * len(flat)
    queue = [(-loss * savings[0], number) for number, loss in enumerate(flat)]
    heapq.heapify(queue)
    for _ in range(num_bits):
        _, number = heapq.heappop(queue)
        bits[number] += 1
        if bits[number] < most:
            heapq.heappush(queue, (-flat[number] * savings[bits[number]], number))
    return np.array(bits, dtype=np.uint8).reshape(losses.shape)
