"""The two attention passes that serve generation: prefill (many tokens, each chunk with its own memories) and decode.

Both write keys and values of the new tokens into the cache and read the slots through views of it, never a copy where
the slots lie side by side. They know no weights and no positions.

Shape letters: B items, C query chunks, Q tokens of a chunk, W = C*Q padded tokens, H query heads, K KV heads, G = H/K,
X = G*Q, J queries, D head dimension, M memories, N memory rows, E cache rows, I = N + E, Z slots, T packed tokens,
A fused heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.attention import attention_weights, causal_bias, grouped_attention, joint_attention, joint_bias
from model.config import ModelConfig
from model.kv_cache import KVCache
from model.memory.collate import CollatedMemories
from model.packing import PackedLayout


class DecodeAttention:
    """One new token in each of some slots; every slot reads the memories that lie in its rows."""

    def __init__(self, config: ModelConfig, cache: KVCache, slots: Sequence[int], *, report_attention: bool) -> None:
        """The cache must already count the new tokens (`KVCache.extend`)."""
        self._config, self._cache = config, cache
        device = cache.bias_ZE.device
        low, high = min(slots), max(slots) + 1
        self._slots = slice(low, high)
        # None when the slots are exactly low..high-1 in this order; else where each item stands in that view.
        self._place_B = None if list(slots) == list(range(low, high)) else torch.tensor(slots, device=device) - low
        self._slot_B = torch.tensor(slots, device=device)
        self._row_B = torch.tensor([cache.num_prefix_tokens + cache.lengths[slot] - 1 for slot in slots], device=device)
        self._end = cache.num_prefix_tokens + max(cache.lengths[slot] for slot in slots)
        self._reads_memories = any(cache.num_memories[slot] for slot in slots)
        self._reports = report_attention
        self._share_BM = torch.zeros(len(slots), cache.memories_per_chunk, device=device)

    def attend(self, layer_index: int, plain_TAD: Tensor, rotated_TAD: Tensor) -> Tensor:
        """See `model.transformer.AttentionPass`."""
        config, cache, layer = self._config, self._cache, self._cache.layers[layer_index]
        num_memory_rows = layer.num_memory_rows
        layer.kv_2ZKED[:, self._slot_B, :, num_memory_rows + self._row_B] = rotated_TAD[
            :, config.num_heads :
        ].unflatten(1, (2, -1))
        reads_memories = self._reads_memories and num_memory_rows > 0
        # Memory rows come first: without a single memory the view begins behind them.
        start = 0 if reads_memories else num_memory_rows
        k_ZKED, v_ZKED = layer.kv_2ZKED[:, self._slots, :, start : num_memory_rows + self._end]
        bias_ZK1E = cache.bias_ZE[self._slots, None, None, : self._end]
        if reads_memories:
            memory_bias_ZK1N = layer.memory_bias_ZKN[self._slots, :, None]
            bias_ZK1E = torch.cat((memory_bias_ZK1N, bias_ZK1E.expand(-1, config.num_kv_heads, -1, -1)), dim=-1)
        q_ZKGD = self._into_view(rotated_TAD[:, : config.num_heads].unflatten(1, (config.num_kv_heads, -1)))
        y_ZKGD = grouped_attention(q_ZKGD, k_ZKED, v_ZKED, bias_ZK1E)
        if self._reports and reads_memories:
            p_ZKGE = attention_weights(q_ZKGD, k_ZKED, bias_ZK1E)
            p_BKGE = p_ZKGE if self._place_B is None else p_ZKGE[self._place_B]
            share_BN = p_BKGE[..., :num_memory_rows].mean(dim=(1, 2))
            self._share_BM += _sum_rows(share_BN, cache.memories_per_chunk)
        return (y_ZKGD if self._place_B is None else y_ZKGD[self._place_B]).flatten(1)

    def attention_share(self) -> Tensor:
        """Share of the attention on each memory, float32 `[B, 1, M]`: mean over memory layers and query heads."""
        num_memory_layers = sum(layer.memory_layer is not None for layer in self._cache.layers)
        return self._share_BM[:, None] / num_memory_layers

    def _into_view(self, q_BKGD: Tensor) -> Tensor:
        if self._place_B is None:
            return q_BKGD
        q_ZKGD = q_BKGD.new_zeros(self._slots.stop - self._slots.start, *q_BKGD.shape[1:])
        q_ZKGD[self._place_B] = q_BKGD
        return q_ZKGD


class PrefillAttention:
    """Many new tokens in each of some slots, laid out on the grid of query chunks."""

    def __init__(
        self,
        config: ModelConfig,
        cache: KVCache,
        layout: PackedLayout,
        *,
        num_chunks: int,
        slots: Sequence[int],
        starts: Sequence[int],
        memories: CollatedMemories | None,
        report_attention: bool,
    ) -> None:
        """`starts`: context tokens in each slot before this pass; column 0 of the layout begins their query chunk."""
        self._config, self._cache, self._layout, self._memories = config, cache, layout, memories
        self._num_chunks, self._reports = num_chunks, report_attention
        device = cache.bias_ZE.device
        slot_B, start_B = torch.tensor(slots, device=device), torch.tensor(starts, device=device)
        self._slots: slice | Tensor = slot_B
        if list(slots) == list(range(slots[0], slots[0] + len(slots))):
            self._slots = slice(slots[0], slots[0] + len(slots))
        self._slot_T = slot_B[layout.item_T]
        self._row_T = cache.num_prefix_tokens + start_B[layout.item_T] + layout.place_T
        self._end = cache.num_prefix_tokens + max(cache.lengths[slot] for slot in slots)
        self._is_token_BCQ = layout.is_token().unflatten(1, (num_chunks, -1))
        place_BW = start_B[:, None] - layout.offset_B[:, None] + torch.arange(layout.width, device=device)
        bias_JE = causal_bias(place_BW.flatten(), cache.num_prefix_tokens, self._end, cache.bias_ZE.dtype)
        bias_BCQE = bias_JE.view(*self._is_token_BCQ.shape, self._end)
        bias_BCGQE = bias_BCQE[:, :, None].expand(-1, -1, config.heads_per_kv_head, -1, -1)
        self._bias_BCXE = bias_BCGQE.flatten(2, 3)
        self._share_BCM = torch.zeros(len(slots), num_chunks, cache.memories_per_chunk, device=device)

    def attend(self, layer_index: int, plain_TAD: Tensor, rotated_TAD: Tensor) -> Tensor:
        """See `model.transformer.AttentionPass`."""
        config, layer = self._config, self._cache.layers[layer_index]
        new_T2KD = rotated_TAD[:, config.num_heads :].unflatten(1, (2, -1))
        layer.kv_2ZKED[:, self._slot_T, :, layer.num_memory_rows + self._row_T] = new_T2KD
        rows = slice(layer.num_memory_rows, layer.num_memory_rows + self._end)
        kv_2BKED = layer.kv_2ZKED[:, self._slots, :, rows]
        q_BWHD = self._layout.pad(rotated_TAD[:, : config.num_heads])
        q_BCQKGD = q_BWHD.unflatten(2, (config.num_kv_heads, -1)).unflatten(1, (self._num_chunks, -1))
        q_BCKGQD = q_BCQKGD.permute(0, 1, 3, 4, 2, 5)
        q_BCKXD = q_BCKGQD.flatten(3, 4)
        if layer.memory_layer is None or layer.num_memory_rows == 0 or self._memories is None:
            bias_B1JE = self._bias_BCXE.flatten(1, 2)[:, None]
            y_BKJD = grouped_attention(q_BCKXD.transpose(1, 2).flatten(2, 3), kv_2BKED[0], kv_2BKED[1], bias_B1JE)
            y_BCKXD = y_BKJD.unflatten(2, (self._num_chunks, -1)).transpose(1, 2)
        else:
            memory_kv_2BCKND = self._memories.layer(layer.memory_layer)
            bias_BCKXI = joint_bias(self._memories.bias(layer.memory_layer), self._bias_BCXE)
            y_BCKXD, k_BCKID = joint_attention(q_BCKXD, memory_kv_2BCKND, kv_2BKED, bias_BCKXI)
            if self._reports:
                self._add_share(q_BCKXD, k_BCKID, bias_BCKXI, layer.num_memory_rows)
        y_BCQKGD = y_BCKXD.reshape(q_BCKGQD.shape).permute(0, 1, 4, 2, 3, 5)
        return self._layout.unpad(y_BCQKGD.flatten(3).flatten(1, 2))

    def attention_share(self) -> Tensor:
        """Share of the attention on each memory, float32 `[B, C, M]`: mean over memory layers, heads and tokens."""
        num_memory_layers = sum(layer.memory_layer is not None for layer in self._cache.layers)
        num_tokens_BC = self._is_token_BCQ.sum(dim=-1).clamp(min=1)
        share_BCM: Tensor = self._share_BCM / (num_tokens_BC * num_memory_layers)[..., None]
        return share_BCM

    def _add_share(self, q_BCKXD: Tensor, k_BCKID: Tensor, bias_BCKXI: Tensor, num_memory_rows: int) -> None:
        p_JKXI = attention_weights(*(tensor.flatten(0, 1) for tensor in (q_BCKXD, k_BCKID, bias_BCKXI)))
        p_BCKXN = p_JKXI[..., :num_memory_rows].unflatten(0, (-1, self._num_chunks))
        mean_BCQN = p_BCKXN.unflatten(3, (self._config.heads_per_kv_head, -1)).mean(dim=(2, 3))
        sum_BCN = (mean_BCQN * self._is_token_BCQ[..., None]).sum(dim=2)
        self._share_BCM += _sum_rows(sum_BCN, self._cache.memories_per_chunk)


def _sum_rows(share_N: Tensor, memories_per_chunk: int) -> Tensor:
    """Rows of the last dimension summed memory by memory: `[..., N] -> [..., M]`."""
    return torch.unflatten(share_N, -1, (memories_per_chunk, -1)).sum(dim=-1)
