"""What contexts need of each token of a reference, seen when its memory keeps all of them.

The score of every token a context reads in memory gets a number added that is zero. Minus the gradient of the context's
loss at that number is how much better it would predict if it read more of this token in this head: what the token is
worth there, and below zero what it does harm.

Shape letters: L memory layers, K KV heads, P = L*K, F numbers of a token's fused heads, N tokens of all references,
U references, R longest reference, T packed tokens, A fused heads, D head dimension, J scored tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from model.attention import CausalAttention
from model.memory.writer import encode_references
from model.packing import PackedLayout
from model.plan import MemoryPlan
from model.prefix import PrefixState
from model.rope import reference_start
from model.training.batch import Batch
from model.training.memory_pass import scored_hidden
from model.transformer import Transformer


@dataclass(frozen=True)
class TokenNeeds:
    """The tokens of references, one behind the other."""

    lengths: tuple[int, ...]
    """Tokens of each reference."""
    plain_LNF: Tensor
    """float16: their fused heads before RoPE."""
    scores_LKN: Tensor
    """Their reconstruction scores."""
    needs_LKN: Tensor
    """Nats that a little more of a token would save, summed over the contexts that read it."""


def joined(parts: Sequence[TokenNeeds]) -> TokenNeeds:
    """One behind the other."""
    return TokenNeeds(
        tuple(length for part in parts for length in part.lengths),
        torch.cat([part.plain_LNF for part in parts], dim=1),
        torch.cat([part.scores_LKN for part in parts], dim=2),
        torch.cat([part.needs_LKN for part in parts], dim=2),
    )


def measure_needs(transformer: Transformer, plan: MemoryPlan, prefix: PrefixState, batch: Batch) -> TokenNeeds:
    """Every context's loss is its mean over scored tokens. The plan's choice of tokens and pages does not matter."""
    all_tokens = replace(plan.unfitted(), selection="reconstruction", tokens_per_memory=plan.max_reference_tokens)
    lengths = [len(tokens) for tokens in batch.references]
    with torch.no_grad():
        encoded = encode_references(transformer, all_tokens, prefix, batch.references, batch.preceding)
    kv_U2LKRD = encoded.kv_2BLKSD.transpose(0, 1)
    num_layers, num_kv_heads = kv_U2LKRD.shape[2:4]
    gain_shape = (len(lengths), num_layers * num_kv_heads, all_tokens.tokens_per_page)
    gain_UPR = kv_U2LKRD.new_zeros(gain_shape, requires_grad=True)
    hidden_JC = scored_hidden(transformer, all_tokens, prefix, kv_U2LKRD, lengths, batch.contexts, gain_UPR)
    counts = [context.num_scored for context in batch.contexts]
    targets_J = torch.tensor([token for context in batch.contexts for token in context.targets])
    nll_J = functional.cross_entropy(transformer.logits(hidden_JC), targets_J.to(hidden_JC.device), reduction="none")
    loss = torch.stack([of_context.mean() for of_context in nll_J.split(counts)]).sum()
    (gradient_UPR,) = torch.autograd.grad(loss, gain_UPR)
    needs_ULKR = -gradient_UPR.unflatten(1, (num_layers, num_kv_heads))
    assert encoded.scores_BLKR is not None
    return TokenNeeds(
        tuple(lengths),
        _plain(transformer, all_tokens, prefix, batch).cpu(),
        _packed(encoded.scores_BLKR, lengths).cpu(),
        _packed(needs_ULKR, lengths).cpu(),
    )


def _packed(of_tokens_ULKR: Tensor, lengths: Sequence[int]) -> Tensor:
    """`[L, K, N]` without padding."""
    return torch.cat([one[..., :length] for one, length in zip(of_tokens_ULKR, lengths, strict=True)], dim=2)


@torch.no_grad()
def _plain(transformer: Transformer, plan: MemoryPlan, prefix: PrefixState, batch: Batch) -> Tensor:
    """float16 `[L, N, F]`."""
    seen = [plan.in_view(tokens) for tokens in batch.preceding or [()] * len(batch.references)]
    sequences = [[*before, *tokens] for before, tokens in zip(seen, batch.references, strict=True)]
    lengths = [len(tokens) for tokens in sequences]
    layout = PackedLayout(lengths, [0] * len(lengths), max(lengths), transformer.device)
    tokens_T = torch.tensor([token for tokens in sequences for token in tokens], device=transformer.device)
    recording = _Recording(plan, CausalAttention(transformer.config, layout, transformer.dtype, prefix.kv_2KPD))
    transformer.run(tokens_T, reference_start(prefix.num_tokens) + layout.place_T, recording)
    first_B = torch.tensor([len(before) for before in seen], device=transformer.device)
    is_of_reference_T = layout.place_T >= first_B[layout.item_T]
    return torch.stack(recording.plain)[:, is_of_reference_T]


class _Recording:
    """Causal attention that notes the fused heads of every memory layer and ends after the last one."""

    def __init__(self, plan: MemoryPlan, causal: CausalAttention) -> None:
        self._layers, self._causal = plan.memory_layers, causal
        self.plain: list[Tensor] = []

    def attend(self, layer_index: int, plain_TAD: Tensor, rotated_TAD: Tensor) -> Tensor | None:
        """See `model.transformer.AttentionPass`."""
        if layer_index in self._layers:
            self.plain.append(plain_TAD.flatten(1).half())
        return None if layer_index == self._layers[-1] else self._causal.attend(layer_index, plain_TAD, rotated_TAD)
