"""The Llama-family decoder: norms, projections and MLP, in plain torch. What attention reads is handed in.

Knows no cache, no memories and no batches: tokens of all sequences lie packed in one dimension, and an `AttentionPass`
decides who sees whom.

Shape letters: T packed tokens, C model width, A fused heads = H query + K key + K value heads, D head dimension,
E = H*D, F = 2 x MLP width, W MLP width, V vocabulary.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from model.config import ModelConfig
from model.linear import linear
from model.rope import RotaryTable, rotate
from model.token_scorer import TokenScorer


class AttentionPass(Protocol):
    """Attention of one forward pass: holds what the new tokens may see and where their keys and values go."""

    def attend(self, layer_index: int, plain_TAD: Tensor, rotated_TAD: Tensor) -> Tensor | None:
        """Attention output `y_TE` of the new tokens, heads side by side; None ends the forward pass within this layer.

        `plain_TAD` are the fused heads before RoPE, `rotated_TAD` after it; heads are ordered query, key, value.
        """


def _parameter(*shape: int, dtype: torch.dtype, device: torch.device) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape, dtype=dtype, device=device), requires_grad=False)


def _normed(hidden_TC: Tensor, weight_C: Tensor, eps: float) -> Tensor:
    # Under autocast the stream may be narrower than the weights.
    return functional.rms_norm(hidden_TC, weight_C.shape, weight_C.to(hidden_TC.dtype), eps)


class Layer(nn.Module):
    """One pre-norm block. Weights that read the same input are fused: one large product is faster than three small."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self._eps = config.rms_norm_eps
        self._heads = (config.fused_heads, config.head_dim)
        width, mlp_dim = config.hidden_dim, config.mlp_dim
        self.attention_norm_C = _parameter(width, dtype=dtype, device=device)
        self.qkv_AC = _parameter(config.fused_heads * config.head_dim, width, dtype=dtype, device=device)
        self.out_CE = _parameter(width, config.num_heads * config.head_dim, dtype=dtype, device=device)
        self.mlp_norm_C = _parameter(width, dtype=dtype, device=device)
        self.gate_up_FC = _parameter(2 * mlp_dim, width, dtype=dtype, device=device)
        self.down_CW = _parameter(width, mlp_dim, dtype=dtype, device=device)
        self.updates = nn.ModuleDict()
        """Name of a weight -> what is added to its product; only while an adapter is trained (training/lora.py)."""

    def project(self, hidden_TC: Tensor) -> Tensor:
        """Queries, keys and values of the tokens before RoPE, `[T, A, D]`."""
        normed_TC = _normed(hidden_TC, self.attention_norm_C, self._eps)
        return self._linear("qkv_AC", normed_TC).contiguous().view(-1, *self._heads)

    def finish(self, hidden_TC: Tensor, y_TE: Tensor) -> Tensor:
        """The residual stream after this block's attention output and MLP."""
        hidden_TC = self._linear("out_CE", y_TE, hidden_TC)
        normed_TC = _normed(hidden_TC, self.mlp_norm_C, self._eps)
        gate_TW, up_TW = self._linear("gate_up_FC", normed_TC).chunk(2, dim=-1)
        return self._linear("down_CW", functional.silu(gate_TW) * up_TW, hidden_TC)

    def _linear(self, name: str, x_TI: Tensor, residual_TO: Tensor | None = None) -> Tensor:
        y_TO = linear(x_TI, getattr(self, name), residual_TO)
        if name not in self.updates:
            return y_TO
        updated_TO: Tensor = self.updates[name](x_TI, y_TO)
        return updated_TO


class Transformer(nn.Module):
    """Token ids to logits. Weights are left uninitialised; `model.checkpoint` fills them."""

    def __init__(
        self, config: ModelConfig, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> None:
        super().__init__()
        device = torch.device(device)
        self.config = config
        self.embedding_VC = _parameter(config.vocab_size, config.hidden_dim, dtype=dtype, device=device)
        self.layers = nn.ModuleList(Layer(config, dtype, device) for _ in range(config.num_layers))
        self.final_norm_C = _parameter(config.hidden_dim, dtype=dtype, device=device)
        self.head_VC = (
            self.embedding_VC
            if config.tied_embeddings
            else _parameter(config.vocab_size, config.hidden_dim, dtype=dtype, device=device)
        )
        self.rotary = RotaryTable(config, dtype, device)
        self._layers = tuple(layer for layer in self.layers if isinstance(layer, Layer))
        self.token_scorer: TokenScorer | None = None
        """What a memory plan of selection "trained" chooses tokens with."""
        self.recompute = False
        """Activation checkpointing: keep only what goes from layer to layer, and compute the rest again going back."""

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, activations and cached keys and values."""
        return self.embedding_VC.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are and inputs must be."""
        return self.embedding_VC.device

    def run(self, tokens_T: Tensor, positions_T: Tensor, attention: AttentionPass) -> Tensor:
        """The residual stream `hidden_TC` after the last layer `attention` let run, before the final norm."""
        hidden_TC = functional.embedding(tokens_T, self.embedding_VC)
        cos_TAD, sin_TAD = self.rotary.at(positions_T)

        def block(layer_index: int, hidden_TC: Tensor) -> Tensor | None:
            layer = self._layers[layer_index]
            plain_TAD = layer.project(hidden_TC)
            y_TE = attention.attend(layer_index, plain_TAD, rotate(plain_TAD, cos_TAD, sin_TAD))
            return None if y_TE is None else layer.finish(hidden_TC, y_TE)

        for layer_index in range(len(self._layers)):
            if self.recompute and torch.is_grad_enabled():
                next_TC = checkpoint(block, layer_index, hidden_TC, use_reentrant=False)
            else:
                next_TC = block(layer_index, hidden_TC)
            if next_TC is None:
                break
            hidden_TC = next_TC
        return hidden_TC

    def logits(self, hidden_TC: Tensor) -> Tensor:
        """float32 `[T, V]`: scores of the token after each of these."""
        normed_TC = _normed(hidden_TC, self.final_norm_C, self.config.rms_norm_eps)
        return linear(normed_TC, self.head_VC).float().contiguous()
