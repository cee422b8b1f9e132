"""Rotary position embedding, and where references and contexts stand. Knows no layers, no cache and no tokens.

Shape letters: T packed tokens, A fused heads (H query + K key + K value), D head dimension, I positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.config import ModelConfig
from model.plan import MemoryPlan

# Paper 3.2, parallel positions: all references share one interval, whatever their number and length.
#
#   0 ....... P-1 | P ............ P+R-1 | P+R ...
#   prefix        | references           | context that reads memories
#   prefix        | context that reads none ...


def reference_start(num_prefix_tokens: int) -> int:
    """Position of the first token of every reference."""
    return num_prefix_tokens


def context_start(plan: MemoryPlan, num_prefix_tokens: int, *, reads_memories: bool) -> int:
    """Position of the first context token, the same however many memories are present."""
    return num_prefix_tokens + (plan.max_reference_tokens if reads_memories else 0)


class RotaryTable:
    """Cosines and sines of every position of a model, in the layout of Hugging Face (halves, not neighbours)."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        self._num_rotated_heads = config.num_heads + config.num_kv_heads
        self._num_value_heads = config.num_kv_heads
        exponents_D = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
        frequencies_D = 1.0 / (config.rope_theta**exponents_D)
        positions_I = torch.arange(config.max_context_tokens, dtype=torch.float32, device=device)
        angles_ID = torch.outer(positions_I, frequencies_D)
        self._cos_ID = torch.cat((angles_ID.cos(), angles_ID.cos()), dim=-1).to(dtype)
        # Signed, so that turning a vector by half its length is all that is left to do.
        self._sin_ID = torch.cat((-angles_ID.sin(), angles_ID.sin()), dim=-1).to(dtype)

    def at(self, positions_T: Tensor) -> tuple[Tensor, Tensor]:
        """`cos_TAD` and `sin_TAD` for `rotate`. Value heads get angle 0, so one operation serves all fused heads."""
        cos_T1D, sin_T1D = self._cos_ID[positions_T, None], self._sin_ID[positions_T, None]
        shape = (-1, self._num_rotated_heads, -1)
        value_shape = (len(positions_T), self._num_value_heads, cos_T1D.shape[-1])
        cos_TAD = torch.cat((cos_T1D.expand(shape), cos_T1D.new_ones(value_shape)), dim=1)
        sin_TAD = torch.cat((sin_T1D.expand(shape), sin_T1D.new_zeros(value_shape)), dim=1)
        return cos_TAD, sin_TAD

    def turned(self, keys_XD: Tensor, positions_X: Tensor) -> Tensor:
        """Keys before RoPE, turned to their positions."""
        return rotate(keys_XD, self._cos_ID[positions_X], self._sin_ID[positions_X])


def rotate(plain_TAD: Tensor, cos_TAD: Tensor, sin_TAD: Tensor) -> Tensor:
    """The fused heads with queries and keys turned to their positions and values as they were; same shape."""
    return torch.addcmul(plain_TAD * cos_TAD, plain_TAD.roll(plain_TAD.shape[-1] // 2, dims=-1), sin_TAD)
