"""What a model's memories look like, and how its predictions suffer when one of their vectors changes a little.

References are written as for serving and read by contexts that need them. The gradient of a context's loss at every
stored vector it reads is what `directions` is made of: it sees which layers, heads and directions are read at all. Keys
are taken at position 0, as they are quantised.

Shape letters: U references, 2 keys and values, L memory layers, K KV heads (or pages of a layer), S kept tokens, N
tokens, D head dimension, E = 2*D numbers of a key and value, J scored tokens, R memories read: each context has its own
of each reference it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.codec.rotation import KeyRotation
from model.memory.writer import encode_references
from model.plan import MemoryPlan
from model.prefix import prefix_with_gradient
from model.training.batch import Batch, Context
from model.training.memory_pass import scored_hidden
from model.transformer import Transformer


@dataclass(frozen=True)
class Sensitivity:
    """What `fit_codebook` takes."""

    vectors_LKNE: NDArray[np.float32]
    """Keys at position 0, and behind them values, of all references that fill a memory."""
    fisher_LKEE: NDArray[np.float32]
    """Mean outer product of a context's gradient at a key and value it reads."""
    nll: float
    """Mean over the scored tokens: well below that of the contexts alone, if the model reads its memories."""

    @property
    def loss_of_all(self) -> float:
        """What it would cost, to second order, if each vector were the mean of its layer and head (twice that)."""
        centred_LKNE = self.vectors_LKNE - self.vectors_LKNE.mean(axis=2, keepdims=True)
        felt_LKNE = centred_LKNE @ self.fisher_LKEE
        return float((felt_LKNE * centred_LKNE).sum(dtype=np.float64) / centred_LKNE.shape[2])


def measure_sensitivity(
    transformer: Transformer,
    plan: MemoryPlan,
    prefix_tokens: Sequence[int],
    batches: Sequence[Batch],
    progress: Callable[[int], None] = lambda done: None,
) -> Sensitivity:
    """`batches`: references, and contexts that read them. `progress(done)` counts references.

    Raises ValueError if no reference fills a memory.
    """
    rotation = KeyRotation(transformer.config.rope_theta, len(prefix_tokens), transformer.config.head_dim)
    num_layers, num_pages, size, head_dim = plan.memory_shape(transformer.config)
    fisher_LKEE = np.zeros((num_layers, num_pages, 2 * head_dim, 2 * head_dim))
    vectors: list[NDArray[np.float32]] = []
    sum_nll, num_scored, num_references, num_read = 0.0, 0, 0, 0
    for batch in batches:
        with torch.no_grad():
            prefix = prefix_with_gradient(transformer, prefix_tokens)
            encoded = encode_references(transformer, plan, prefix, batch.references, batch.preceding)
        kv_U2LKSD, places_ULKS = encoded.kv_2BLKSD.transpose(0, 1), encoded.places_BLKS.cpu().numpy()
        contexts, read = _apart(batch.contexts)
        kv_R2LKSD = kv_U2LKSD[read].requires_grad_()
        lengths = [len(batch.references[place]) for place in read]
        hidden_JC = scored_hidden(transformer, plan, prefix, kv_R2LKSD, lengths, contexts)
        targets_J = torch.tensor([token for context in contexts for token in context.targets], device=hidden_JC.device)
        loss = torch.nn.functional.cross_entropy(transformer.logits(hidden_JC), targets_J, reduction="sum")
        (gradient_R2LKSD,) = torch.autograd.grad(loss, kv_R2LKSD)
        fisher_LKEE += _outer(gradient_R2LKSD, places_ULKS[read], rotation)
        num_read += sum(min(length, size) for length in lengths)
        for kv_2LKSD, places_LKS, tokens in zip(kv_U2LKSD, places_ULKS, batch.references, strict=True):
            if len(tokens) >= size:
                vectors.append(_at_position_0(kv_2LKSD, places_LKS, rotation))
        sum_nll, num_scored = sum_nll + float(loss.detach()), num_scored + len(targets_J)
        num_references += len(batch.references)
        progress(num_references)
    if not vectors:
        raise ValueError(f"none of {num_references} references has {size} tokens; give longer ones")
    return Sensitivity(
        np.concatenate(vectors, axis=2), (fisher_LKEE / num_read).astype(np.float32), sum_nll / num_scored
    )


def _apart(contexts: Sequence[Context]) -> tuple[list[Context], list[int]]:
    """The contexts, each reading memories of its own, and of which reference each of these is: else the gradients of
    those that read the same one would add up."""
    apart: list[Context] = []
    read: list[int] = []
    for context in contexts:
        chunks = context.chunk_references or ()
        own = {place: len(read) + index for index, place in enumerate(sorted({p for chunk in chunks for p in chunk}))}
        read += own
        apart.append(replace(context, chunk_references=tuple(tuple(own[place] for place in chunk) for chunk in chunks)))
    return apart, read


def mix(measured: Sequence[Sensitivity]) -> Sensitivity:
    """Several uses of memories as one: each counts alike, whatever its number of vectors and the size of its losses."""
    fisher_LKEE = np.stack([one.fisher_LKEE / one.loss_of_all for one in measured]).mean(axis=0)
    return Sensitivity(
        np.concatenate([one.vectors_LKNE for one in measured], axis=2),
        fisher_LKEE,
        float(np.mean([one.nll for one in measured])),
    )


def _outer(gradient_R2LKSD: Tensor, places_RLKS: NDArray[np.uint8], rotation: KeyRotation) -> NDArray[np.float64]:
    """`[L, K, E, E]`: summed over memories and kept tokens."""
    at_0 = [
        _at_position_0(gradient_2LKSD, places_LKS, rotation)
        for gradient_2LKSD, places_LKS in zip(gradient_R2LKSD, places_RLKS, strict=True)
    ]
    at_0_LKNE = np.concatenate(at_0, axis=2, dtype=np.float64)
    outer_LKEE: NDArray[np.float64] = at_0_LKNE.swapaxes(2, 3) @ at_0_LKNE
    return outer_LKEE


def _at_position_0(kv_2LKSD: Tensor, places_LKS: NDArray[np.uint8], rotation: KeyRotation) -> NDArray[np.float32]:
    """`[L, K, S, E]`. Turning is orthogonal, so a gradient turns as its key does."""
    keys_LKSD, values_LKSD = kv_2LKSD.detach().float().cpu().numpy()
    return np.concatenate((rotation.turn_back(keys_LKSD, places_LKS), values_LKSD), axis=3)
