"""What a model's memories look like, and how its predictions suffer when one of their vectors changes a little.

References are written as for serving and read by contexts that need them. How a small change of a stored vector moves
what the model predicts there is what `directions` is made of: it sees which layers, heads and directions are read at
all. Keys are taken at position 0, as they are quantised.

Shape letters: U references, 2 keys and values, L memory layers, K KV heads, S kept tokens, N vectors, D head dimension,
J scored tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.codec.rotation import KeyRotation
from model.memory.writer import encode_references
from model.plan import MemoryPlan
from model.prefix import prefix_with_gradient
from model.training.batch import Batch
from model.training.memory_pass import scored_hidden
from model.transformer import Transformer

DRAWS = 4
"""Gradients of each batch; more make the estimate less noisy and cost a way back each."""


@dataclass(frozen=True)
class Sensitivity:
    """What `fit_codebook` takes."""

    vectors_2LKND: NDArray[np.float32]
    """Keys at position 0, and values, of all references that fill a memory."""
    fisher_2LKDD: NDArray[np.float32]
    """Fisher information of the predictions about them, mean over the stored vectors."""
    nll: float
    """Mean over the scored tokens: well below that of the contexts alone, if the model reads its memories."""

    @property
    def loss_of_all(self) -> float:
        """What it would cost, to second order, if each vector were the mean of its layer and head (twice that)."""
        centred_2LKND = self.vectors_2LKND - self.vectors_2LKND.mean(axis=3, keepdims=True)
        felt_2LKND = centred_2LKND @ self.fisher_2LKDD
        return float((felt_2LKND * centred_2LKND).sum(dtype=np.float64) / centred_2LKND.shape[3])


def measure_sensitivity(
    transformer: Transformer,
    plan: MemoryPlan,
    prefix_tokens: Sequence[int],
    batches: Sequence[Batch],
    *,
    seed: int,
    draws: int = DRAWS,
    progress: Callable[[int], None] = lambda done: None,
) -> Sensitivity:
    """`batches`: references, and contexts that read them. `progress(done)` counts references.

    The Fisher information is that of the model's own predictions: labels are drawn from them, so that answers the model
    would not give say nothing. Raises ValueError if no reference fills a memory.
    """
    rotation = KeyRotation(transformer.config.rope_theta, len(prefix_tokens), transformer.config.head_dim)
    generator = torch.Generator().manual_seed(seed)
    vectors: list[NDArray[np.float32]] = []
    outers: list[NDArray[np.float64]] = []
    sum_nll, num_scored, num_references, num_read = 0.0, 0, 0, 0
    for batch in batches:
        with torch.no_grad():
            prefix = prefix_with_gradient(transformer, prefix_tokens)
            encoded = encode_references(transformer, plan, prefix, batch.references)
        kv_U2LKSD, places_ULKS = encoded.kv_2BLKSD.transpose(0, 1).requires_grad_(), encoded.places_BLKS.cpu().numpy()
        lengths = [len(tokens) for tokens in batch.references]
        hidden_JC = scored_hidden(transformer, plan, prefix, kv_U2LKSD, lengths, batch.contexts)
        log_p_JV = transformer.logits(hidden_JC).log_softmax(dim=-1)
        for _ in range(draws):
            labels_J, signs_J = draw_labels(log_p_JV.detach(), generator)
            told = (log_p_JV.gather(1, labels_J[:, None])[:, 0] * signs_J).sum()
            (gradient_U2LKSD,) = torch.autograd.grad(told, kv_U2LKSD, retain_graph=True)
            outers.append(_outer(gradient_U2LKSD, places_ULKS, rotation) / draws)
        outers = [np.sum(outers, axis=0)]
        for kv_2LKSD, places_LKS, length in zip(kv_U2LKSD, places_ULKS, lengths, strict=True):
            if length >= plan.tokens_per_memory:
                vectors.append(_at_position_0(kv_2LKSD, places_LKS, rotation))
        targets_J = torch.tensor([token for one in batch.contexts for token in one.targets], device=log_p_JV.device)
        sum_nll -= float(log_p_JV.detach().gather(1, targets_J[:, None]).sum())
        num_scored += len(targets_J)
        num_references += len(lengths)
        num_read += sum(min(length, plan.tokens_per_memory) for length in lengths)
        progress(num_references)
    if not vectors:
        raise ValueError(f"none of {num_references} references has {plan.tokens_per_memory} tokens; give longer ones")
    return Sensitivity(np.concatenate(vectors, axis=3), (outers[0] / num_read).astype(np.float32), sum_nll / num_scored)


def draw_labels(log_p_JV: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Labels drawn from the predictions, and random signs, each `[J]`.

    With signs one gradient serves all tokens of a batch: the mean of its outer product over draws is the sum of the
    tokens' own, since what two of them share is as often added as taken off.
    """
    labels_J = torch.multinomial(log_p_JV.cpu().exp(), 1, generator=generator)[:, 0]
    signs_J = torch.randint(0, 2, labels_J.shape, generator=generator) * 2 - 1
    return labels_J.to(log_p_JV.device), signs_J.to(log_p_JV)


def mix(measured: Sequence[Sensitivity]) -> Sensitivity:
    """Several uses of memories as one: each counts alike, whatever its number of vectors and the size of its losses."""
    fisher_2LKDD = np.stack([one.fisher_2LKDD / one.loss_of_all for one in measured]).mean(axis=0)
    return Sensitivity(
        np.concatenate([one.vectors_2LKND for one in measured], axis=3),
        fisher_2LKDD,
        float(np.mean([one.nll for one in measured])),
    )


def _outer(gradient_U2LKSD: Tensor, places_ULKS: NDArray[np.uint8], rotation: KeyRotation) -> NDArray[np.float64]:
    """`[2, L, K, D, D]`: summed over references and kept tokens."""
    at_0 = [
        _at_position_0(gradient_2LKSD, places_LKS, rotation)
        for gradient_2LKSD, places_LKS in zip(gradient_U2LKSD, places_ULKS, strict=True)
    ]
    at_0_2LKND = np.concatenate(at_0, axis=3, dtype=np.float64)
    outer_2LKDD: NDArray[np.float64] = at_0_2LKND.swapaxes(3, 4) @ at_0_2LKND
    return outer_2LKDD


def _at_position_0(kv_2LKSD: Tensor, places_LKS: NDArray[np.uint8], rotation: KeyRotation) -> NDArray[np.float32]:
    """Turning is orthogonal, so a gradient turns as its key does."""
    keys_LKSD, values_LKSD = kv_2LKSD.detach().float().cpu().numpy()
    return np.stack((rotation.turn_back(keys_LKSD, places_LKS), values_LKSD))
