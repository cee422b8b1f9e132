"""Weights of a token scorer from what contexts were seen to need: a Poisson regression, one for each memory layer.

Needs are rare and heavy-tailed. Their positive part is taken for a Poisson variable of mean score * exp(b + w . x): the
reconstruction score, corrected by a linear function of what the token is in this layer. Only a share of w is kept: with
all of it, kinds of facts that were not fitted lost on held-out items.

Shape letters: L memory layers, K KV heads, N tokens of all references, F numbers of a token's fused heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from model.memory.sparsify import LEAST_NEEDED
from model.token_scorer import TokenScorer
from model.training.token_needs import TokenNeeds, joined

KEPT_SHARE = 0.5
_STEPS = 260
_TOKENS_A_STEP = 12288
_LEARNING_RATE = 1e-2
_DECAY = 1e-2
"""Weight of the squared weights, of standardised numbers."""
_HELD_OUT = 0.1
"""Share of references by which the best step is told."""
_LOOK_EVERY = 20
_LARGEST = 10.0
"""Logarithm of a mean, at most: no step may fly away."""


def fit_token_scorer(
    uses: Sequence[TokenNeeds], progress: Callable[[int, int], None] = lambda done, total: None
) -> TokenScorer:
    """`uses` count alike, whatever their size. `progress(done, total)` counts layers."""
    needs = joined(uses)
    use_N = torch.cat([torch.full((sum(use.lengths),), place) for place, use in enumerate(uses)])
    reference_N = torch.repeat_interleave(torch.arange(len(needs.lengths)), torch.tensor(needs.lengths))
    is_held_out = np.random.default_rng(0).random(len(needs.lengths)) < _HELD_OUT
    held_out_N = torch.from_numpy(is_held_out)[reference_N]
    num_layers = len(needs.plain_LNF)
    weights = []
    for layer in range(num_layers):
        wanted_NK = _weighed(needs.needs_LKN[layer].mT.clamp(min=0), use_N, len(uses))
        offset_NK = (needs.scores_LKN[layer].mT + LEAST_NEEDED).log()
        weights.append(_fit_layer(needs.plain_LNF[layer].float(), offset_NK, wanted_NK, held_out_N))
        progress(layer + 1, num_layers)
    return TokenScorer(KEPT_SHARE * torch.stack(weights))


def _weighed(wanted_NK: Tensor, use_N: Tensor, num_uses: int) -> Tensor:
    """Mean 1 for each head, to which every use gives as much."""
    weighed_NK = wanted_NK.clone()
    for use in range(num_uses):
        of_use_N = use_N == use
        share = of_use_N.float().mean()
        weighed_NK[of_use_N] /= wanted_NK[of_use_N].mean(dim=0) * share * num_uses + 1e-9
    return weighed_NK


def _fit_layer(plain_NF: Tensor, offset_NK: Tensor, wanted_NK: Tensor, held_out_N: Tensor) -> Tensor:
    """`weight_KF`, for numbers as they are."""
    mean_F, spread_F = plain_NF.mean(dim=0), plain_NF.std(dim=0) + 1e-3
    standard_NF = (plain_NF - mean_F) / spread_F
    trained, looked_at = (~held_out_N).nonzero()[:, 0], held_out_N.nonzero()[:, 0]
    weight_FK = torch.zeros(plain_NF.shape[1], wanted_NK.shape[1], requires_grad=True)
    start_K = (wanted_NK[trained].mean(dim=0) / offset_NK[trained].exp().mean(dim=0)).clamp(min=1e-9).log()
    bias_K = start_K.clone().requires_grad_()

    def loss_of(places: Tensor) -> Tensor:
        log_mean_PK = offset_NK[places] + bias_K + standard_NF[places] @ weight_FK
        log_mean_PK = log_mean_PK.clamp(max=_LARGEST)
        return (log_mean_PK.exp() - wanted_NK[places] * log_mean_PK).mean()

    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([weight_FK, bias_K], lr=_LEARNING_RATE)
    best, best_loss = weight_FK.detach().clone(), float("inf")
    for step in range(_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * (1 - step / _STEPS)
        places = trained[torch.randint(len(trained), (_TOKENS_A_STEP,), generator=generator)]
        loss = loss_of(places) + _DECAY * weight_FK.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % _LOOK_EVERY == _LOOK_EVERY - 1:
            with torch.no_grad():
                seen = float(loss_of(looked_at))
            if seen < best_loss:
                best, best_loss = weight_FK.detach().clone(), seen
    return (best / spread_F[:, None]).mT.contiguous()
