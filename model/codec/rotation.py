"""Keys turned back from the positions where they were encoded (RoPE), in numpy. The twin of `model.rope`.

Shape letters: L memory layers, K KV heads, S kept tokens, D head dimension, R offsets in a reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.plan import REFERENCE_TOKENS_LIMIT


@dataclass(frozen=True)
class KeyRotation:
    """Where the keys of one model and plan stand."""

    rope_theta: float
    num_prefix_tokens: int
    """P: token t of a reference stands at position P + t."""
    head_dim: int

    def turn_back(self, keys_LKSD: NDArray[np.float32], offsets_LKS: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The keys as they would be at position 0."""
        cos, sin = self.cos_sin[:, offsets_LKS]
        first, second = np.split(keys_LKSD, 2, axis=-1)
        return np.concatenate((first * cos + second * sin, second * cos - first * sin), axis=-1)

    @cached_property
    def cos_sin(self) -> NDArray[np.float32]:
        """`[2, R, D/2]`: of the angle of each pair of dimensions, i and i + D/2, at each offset."""
        half = self.head_dim // 2
        frequencies = self.rope_theta ** (-np.arange(half) / half)
        positions_R = self.num_prefix_tokens + np.arange(REFERENCE_TOKENS_LIMIT)
        angles = np.outer(positions_R, frequencies)
        return np.stack((np.cos(angles), np.sin(angles))).astype(np.float32)
