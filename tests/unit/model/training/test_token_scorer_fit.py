"""A fitted scorer finds what makes tokens needed, in each layer and head for itself."""

from __future__ import annotations

import torch

from model.training.token_needs import TokenNeeds
from model.training.token_scorer_fit import KEPT_SHARE, fit_token_scorer


def needs_of(weight_LKF: torch.Tensor, num_references: int, seed: int, scale: float = 1.0) -> TokenNeeds:
    """Tokens whose needs are Poisson numbers of mean score * exp(w . x), some of them negative harm instead."""
    generator = torch.Generator().manual_seed(seed)
    num_layers, num_kv_heads, width = weight_LKF.shape
    num_tokens = 20 * num_references
    plain_LNF = torch.randn(num_layers, num_tokens, width, generator=generator)
    scores_LKN = torch.rand(num_layers, num_kv_heads, num_tokens, generator=generator)
    mean_LKN = scores_LKN * (weight_LKF @ plain_LNF.mT).exp()
    needs_LKN = scale * torch.poisson(mean_LKN, generator=generator)
    harm_LKN = torch.rand(needs_LKN.shape, generator=generator) < 0.1
    return TokenNeeds((20,) * num_references, plain_LNF.half(), scores_LKN, needs_LKN.where(~harm_LKN, -scale))


def test_it_finds_each_heads_directions_beyond_the_score() -> None:
    weight_LKF = 0.4 * torch.randn(2, 2, 6, generator=torch.Generator().manual_seed(5))
    told: list[tuple[int, int]] = []
    scorer = fit_token_scorer(
        [needs_of(weight_LKF, 200, 1), needs_of(weight_LKF, 50, 2, scale=1e-3)],
        lambda done, total: told.append((done, total)),
    )
    torch.testing.assert_close(scorer.weight_LKF / KEPT_SHARE, weight_LKF, atol=0.12, rtol=0.1)
    assert told == [(1, 2), (2, 2)]


def test_uses_count_alike_whatever_their_size() -> None:
    """Two uses that want opposite things of one head: the larger, with larger losses, does not win."""
    weight_LKF = torch.tensor([[[0.8, 0.0]]])
    large, small = needs_of(weight_LKF, 200, 1, scale=100.0), needs_of(-weight_LKF, 100, 2, scale=0.01)
    weight = fit_token_scorer([large, small]).weight_LKF[0, 0]
    assert weight.abs().max() < 0.15
    assert fit_token_scorer([large]).weight_LKF[0, 0, 0] > 0.3


def test_it_is_a_function_of_what_it_is_given() -> None:
    needs = needs_of(torch.tensor([[[0.8, 0.0]]]), 50, 3)
    assert fit_token_scorer([needs]).identity == fit_token_scorer([needs]).identity
