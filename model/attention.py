"""Grouped-query attention: over whole sequences behind a shared prefix, and jointly over memories and context.

Knows no cache and no weights. One softmax runs over all a token sees (paper 3.2, equation 4):

                   chunk's memories     prefix   context
                   m0 m0 m1 m1 .. ..    p p      0 1 2 3 4 5 6 7
    chunk 0, tok 0 x  x  x  x           x x      x
             tok 1 x  x  x  x           x x      x x              x seen
    chunk 1, tok 2 y  y  y  y           x x      x x x            y seen: the memories of the token's own chunk
             tok 3 y  y  y  y           x x      x x x x

The prefix sees no memories: it is never a query again, its keys and values are written once.

Shape letters: B items, C query chunks, Q tokens of a chunk, H query heads, K KV heads, G = H/K, X = G*Q queries of one
KV head, D head dimension, N memory rows, E context rows (prefix included), I = N + E, P prefix tokens, W padded
tokens, T packed tokens, A fused heads, J queries (in joint_attention: B*C).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from model.config import ModelConfig
from model.packing import PackedLayout

# cuDNN's attention makes a plan for every shape it meets, which takes the processor longer than the GPU's work here:
# nearly every batch has another shape.
torch.backends.cuda.enable_cudnn_sdp(False)


def grouped_attention(q_BKJD: Tensor, k_BKED: Tensor, v_BKED: Tensor, bias_BKJE: Tensor) -> Tensor:
    """`y_BKJD`: the queries of one KV head's group lie side by side in J, so keys and values are never repeated.

    The bias may be one for all heads, and for all queries.
    """
    return functional.scaled_dot_product_attention(q_BKJD, k_BKED, v_BKED, bias_BKJE)


def joint_attention(
    q_BCKXD: Tensor, memory_kv_2BCKND: Tensor, context_kv_2BKED: Tensor, bias_BCKXI: Tensor
) -> tuple[Tensor, Tensor]:
    """One softmax over each chunk's own memories and the context common to all chunks, I = N + E columns.

    Gives `y_BCKXD` and the keys `k_BCKID` that were read, memories first. Each chunk gets its own copy of the context's
    rows: that, and one fused call, is several times faster than two score matrices that share one softmax.
    """
    num_chunks = q_BCKXD.shape[1]
    context_kv_2BCKED = context_kv_2BKED[:, :, None].expand(-1, -1, num_chunks, -1, -1, -1)
    kv_2BCKID = torch.cat((memory_kv_2BCKND, context_kv_2BCKED), dim=4)
    k_JKID, v_JKID = kv_2BCKID.flatten(1, 2)
    y_JKXD = grouped_attention(q_BCKXD.flatten(0, 1), k_JKID, v_JKID, bias_BCKXI.flatten(0, 1))
    return y_JKXD.view(q_BCKXD.shape), kv_2BCKID[0]


def joint_bias(memory_bias_BCKN: Tensor, context_bias_BCXE: Tensor) -> Tensor:
    """`bias_BCKXI` for `joint_attention`: memory rows differ by head, context rows by query."""
    num_queries, num_kv_heads = context_bias_BCXE.shape[2], memory_bias_BCKN.shape[2]
    memory_bias_BCKXN = memory_bias_BCKN[:, :, :, None].expand(-1, -1, -1, num_queries, -1)
    context_bias_BCKXE = context_bias_BCXE[:, :, None].expand(-1, -1, num_kv_heads, -1, -1)
    return torch.cat((memory_bias_BCKXN, context_bias_BCKXE), dim=-1)


def attention_weights(q_BKJD: Tensor, k_BKED: Tensor, bias_BKJE: Tensor) -> Tensor:
    """The softmax itself, float32 `[B, K, J, E]`: only for reports, reading needs none of it."""
    scores_BKJE = (q_BKJD.float() * q_BKJD.shape[-1] ** -0.5) @ k_BKED.float().mT + bias_BKJE
    return torch.softmax(scores_BKJE, dim=-1)


def causal_bias(places_J: Tensor, num_visible_first: int, num_rows: int, dtype: torch.dtype) -> Tensor:
    """`[J, E]`: 0 where a query at this place may look, minus infinity elsewhere.

    The first `num_visible_first` rows (the prefix) are seen by all; row `num_visible_first + i` by places from i on.
    """
    rows_E = torch.arange(num_rows, device=places_J.device) - num_visible_first
    bias_JE = torch.zeros(len(places_J), num_rows, dtype=dtype, device=places_J.device)
    return bias_JE.masked_fill_(rows_E > places_J[:, None], -torch.inf)


class CausalAttention:
    """The attention pass of whole sequences from their first token on, each behind the same prefix; keeps nothing."""

    def __init__(
        self,
        config: ModelConfig,
        layout: PackedLayout,
        dtype: torch.dtype,
        prefix_kv_2KPD: tuple[Tensor, ...] | None = None,
    ) -> None:
        """`prefix_kv_2KPD`: keys and values of the prefix in each layer; None if there is none."""
        self._config, self._layout, self._prefix_kv_2KPD = config, layout, prefix_kv_2KPD
        num_prefix_tokens = 0 if prefix_kv_2KPD is None else prefix_kv_2KPD[0].shape[2]
        places_W = torch.arange(layout.width, device=layout.item_T.device)
        # Padding stands behind every token of its sequence, so the causal mask alone hides it.
        bias_WE = causal_bias(places_W, num_prefix_tokens, num_prefix_tokens + layout.width, dtype)
        self._bias_11JE = bias_WE.repeat(config.heads_per_kv_head, 1)[None, None]

    def attend(self, layer_index: int, plain_TAD: Tensor, rotated_TAD: Tensor) -> Tensor:
        """See `model.transformer.AttentionPass`."""
        config = self._config
        fused_BAWD = self._layout.pad(rotated_TAD).transpose(1, 2)
        q_BHWD, k_BKWD, v_BKWD = fused_BAWD.split((config.num_heads, config.num_kv_heads, config.num_kv_heads), dim=1)
        if self._prefix_kv_2KPD is not None:
            prefix_2BKPD = self._prefix_kv_2KPD[layer_index][:, None].expand(-1, len(k_BKWD), -1, -1, -1)
            k_BKWD = torch.cat((prefix_2BKPD[0], k_BKWD), dim=2)
            v_BKWD = torch.cat((prefix_2BKPD[1], v_BKWD), dim=2)
        q_BKJD = q_BHWD.reshape(len(q_BHWD), config.num_kv_heads, -1, config.head_dim)
        y_BKJD = grouped_attention(q_BKJD, k_BKWD, v_BKWD, self._bias_11JE)
        y_BHWD = y_BKJD.reshape(q_BHWD.shape)
        return self._layout.unpad(y_BHWD.transpose(1, 2)).flatten(1)
