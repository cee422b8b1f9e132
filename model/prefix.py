"""The keys and values of the plan's prefix, in every layer. It sees nothing but itself, so they are the same for all.

Shape letters: P prefix tokens, K KV heads, D head dimension, T packed tokens, A fused heads, E = H*D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.attention import CausalAttention
from model.packing import PackedLayout
from model.transformer import Transformer


@dataclass(frozen=True)
class PrefixState:
    """Paper 3.2: what stands before every reference and every context; there as the attention sink, never a query."""

    tokens: tuple[int, ...]
    kv_2KPD: tuple[Tensor, ...]
    """One for each layer of the model: rotated keys, and values, at positions 0 to P-1."""

    @property
    def num_tokens(self) -> int:
        """P; may be 0."""
        return len(self.tokens)


class _KeepingAttention:
    """Causal attention that notes the keys and values of every layer."""

    def __init__(self, causal: CausalAttention, num_heads: int) -> None:
        self._causal = causal
        self._num_heads = num_heads
        self.kv_2KPD: list[Tensor] = []

    def attend(self, layer_index: int, plain_TAD: Tensor, rotated_TAD: Tensor) -> Tensor:
        kv_P2KD = rotated_TAD[:, self._num_heads :].unflatten(1, (2, -1))
        self.kv_2KPD.append(kv_P2KD.permute(1, 2, 0, 3).contiguous())
        return self._causal.attend(layer_index, plain_TAD, rotated_TAD)


@torch.inference_mode()
def encode_prefix(transformer: Transformer, tokens: Sequence[int]) -> PrefixState:
    """Run the model over the prefix alone, from position 0."""
    return prefix_with_gradient(transformer, tokens)


def prefix_with_gradient(transformer: Transformer, tokens: Sequence[int]) -> PrefixState:
    """`encode_prefix` inside a training step: the gradient reaches the weights through its keys and values."""
    config, device = transformer.config, transformer.device
    if not tokens:
        empty_2KPD = torch.empty(2, config.num_kv_heads, 0, config.head_dim, dtype=transformer.dtype, device=device)
        return PrefixState((), (empty_2KPD,) * config.num_layers)
    layout = PackedLayout([len(tokens)], [0], len(tokens), device)
    attention = _KeepingAttention(CausalAttention(config, layout, transformer.dtype), config.num_heads)
    transformer.run(torch.tensor(tokens, device=device), torch.arange(len(tokens), device=device), attention)
    return PrefixState(tuple(tokens), tuple(attention.kv_2KPD))
