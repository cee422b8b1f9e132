"""What a model's memories look like, and how its predictions suffer when one of their vectors changes a little.

References are written as for serving. Each is then recited: a context reads its memory beside memories of others and is
scored on the reference's own text. The gradient of that loss at every stored vector is what `directions` is made of:
it sees which layers, heads and directions are read at all. Keys are taken at position 0, as they are quantised.

Shape letters: U references, 2 keys and values, L memory layers, K KV heads, S kept tokens, N = U*S vectors,
D head dimension, J scored tokens, C model width.
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
from model.training.batch import Context
from model.training.memory_pass import scored_hidden
from model.transformer import Transformer

_UNSCORED = 2
"""First tokens of a recited text that are not scored: before them nothing says which memory is meant."""


@dataclass(frozen=True)
class Sensitivity:
    """What `fit_codebook` takes."""

    vectors_2LKND: NDArray[np.float32]
    """Keys at position 0, and values, of all references."""
    fisher_2LKDD: NDArray[np.float32]
    """Mean outer product of the loss's gradient at them, over the vectors that were read."""
    nll: float
    """Mean over the scored tokens: well below that of the text alone, if the model reads its memories."""


def measure_sensitivity(
    transformer: Transformer,
    plan: MemoryPlan,
    prefix_tokens: Sequence[int],
    opening: Sequence[int],
    references: Sequence[Sequence[int]],
    *,
    num_recited: int,
    seed: int,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """Write all references, recite the first `num_recited`. `opening`: tokens before a prompt that reads memories.

    `progress(done, total)` counts references written and recited. Raises ValueError if a reference has fewer tokens
    than a memory keeps or more than the plan allows, or if there are too few of them.
    """
    _check(plan, references, num_recited)
    total = len(references) + num_recited
    with torch.no_grad():
        prefix = prefix_with_gradient(transformer, prefix_tokens)
        written, places = [], []
        for start in range(0, len(references), batch_size):
            encoded = encode_references(transformer, plan, prefix, references[start : start + batch_size])
            written.append(encoded.kv_2BLKSD.transpose(0, 1))
            places.append(encoded.places_BLKS)
            progress(min(start + batch_size, len(references)), total)
    kv_U2LKSD, places_ULKS = torch.cat(written), torch.cat(places).cpu().numpy()
    rotation = KeyRotation(transformer.config.rope_theta, len(prefix_tokens), transformer.config.head_dim)
    num_layers, num_kv_heads, _, head_dim = kv_U2LKSD.shape[2:]
    fisher_2LKDD = np.zeros((2, num_layers, num_kv_heads, head_dim, head_dim))
    rng = np.random.default_rng(seed)
    sum_nll, num_scored, num_read = 0.0, 0, 0
    for start in range(0, num_recited, batch_size):
        recited = range(start, min(start + batch_size, num_recited))
        chosen = np.array([_choose(own, len(references), plan.memories_per_chunk, rng) for own in recited])
        kv_B2LKSD = kv_U2LKSD[chosen.ravel()].detach().requires_grad_()
        contexts = [
            _recital(plan, opening, references[own], range(place * chosen.shape[1], (place + 1) * chosen.shape[1]))
            for place, own in enumerate(recited)
        ]
        lengths = [len(references[index]) for index in chosen.ravel()]
        hidden_JC = scored_hidden(transformer, plan, prefix, kv_B2LKSD, lengths, contexts)
        targets_J = torch.tensor([token for context in contexts for token in context.targets], device=hidden_JC.device)
        loss = torch.nn.functional.cross_entropy(transformer.logits(hidden_JC), targets_J, reduction="sum")
        (gradient_B2LKSD,) = torch.autograd.grad(loss, kv_B2LKSD)
        fisher_2LKDD += _outer(gradient_B2LKSD, places_ULKS[chosen.ravel()], rotation)
        sum_nll, num_scored = sum_nll + float(loss.detach()), num_scored + len(targets_J)
        num_read += chosen.size * plan.tokens_per_memory
        progress(len(references) + recited.stop, total)
    return Sensitivity(
        np.concatenate(
            [_at_position_0(kv, where, rotation) for kv, where in zip(kv_U2LKSD, places_ULKS, strict=True)], 3
        ),
        (fisher_2LKDD / num_read).astype(np.float32),
        sum_nll / num_scored,
    )


def _check(plan: MemoryPlan, references: Sequence[Sequence[int]], num_recited: int) -> None:
    least = max(plan.memories_per_chunk, num_recited)
    if num_recited < 1 or len(references) < least:
        raise ValueError(
            f"{len(references)} references of which {num_recited} are recited; give at least {least} and recite one"
        )
    for index, tokens in enumerate(references):
        if not plan.tokens_per_memory <= len(tokens) <= plan.max_reference_tokens or len(tokens) <= _UNSCORED:
            raise ValueError(
                f"reference {index} has {len(tokens)} tokens; give {max(plan.tokens_per_memory, _UNSCORED + 1)} to "
                f"{plan.max_reference_tokens}"
            )


def _choose(own: int, num_references: int, num_memories: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """A reference and others beside it, in any order."""
    others = rng.choice(num_references - 1, num_memories - 1, replace=False)
    return rng.permutation(np.append(others + (others >= own), own))


def _recital(plan: MemoryPlan, opening: Sequence[int], reference: Sequence[int], memories: range) -> Context:
    """A context of one query chunk."""
    text = tuple(reference[: plan.query_chunk_tokens - len(opening)])
    return Context((*opening, *text), len(text) - _UNSCORED, chunk_references=(tuple(memories),))


def _outer(gradient_B2LKSD: Tensor, places_BLKS: NDArray[np.uint8], rotation: KeyRotation) -> NDArray[np.float64]:
    total: NDArray[np.float64] | None = None
    for gradient_2LKSD, places_LKS in zip(gradient_B2LKSD, places_BLKS, strict=True):
        at_0_2LKSD = _at_position_0(gradient_2LKSD, places_LKS, rotation).astype(np.float64)
        outer_2LKDD = at_0_2LKSD.swapaxes(3, 4) @ at_0_2LKSD
        total = outer_2LKDD if total is None else total + outer_2LKDD
    assert total is not None
    return total


def _at_position_0(kv_2LKSD: Tensor, places_LKS: NDArray[np.uint8], rotation: KeyRotation) -> NDArray[np.float32]:
    """Turning is orthogonal, so a gradient turns as its key does."""
    keys_LKSD, values_LKSD = kv_2LKSD.detach().float().cpu().numpy()
    return np.stack((rotation.turn_back(keys_LKSD, places_LKS), values_LKSD))
