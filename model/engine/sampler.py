"""Draws the next token of each sequence: greedy, temperature, top-k, top-p.

Legend: B batch, V vocabulary. Each sequence has its own generator and its row is treated alone, so that what a sequence
draws does not depend on who shares its batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.engine.task import Sampling

_LIKELY_TOKENS = 4096
"""Nearly every nucleus is smaller than this; sorting a vocabulary of 49152 takes eight times as long."""


def make_generator(seed: int) -> torch.Generator:
    """A generator for one sequence; on the CPU whatever the model runs on, so that a seed means the same everywhere."""
    return torch.Generator().manual_seed(seed)


def sample(
    logits_BV: Tensor, samplings: Sequence[Sampling], generators: Sequence[torch.Generator | None]
) -> list[int | None]:
    """The next token of each row; None for a row whose logits are not usable (NaN, or infinite at the top).

    A greedy row takes the most likely token and needs no generator; any other draws exactly one number from its own.
    """
    top_B, greedy_B = logits_BV.max(dim=-1)  # the maximum of a row with a NaN is NaN
    chosen = list(greedy_B.unbind())
    for row, (sampling, generator) in enumerate(zip(samplings, generators, strict=True)):
        if sampling.temperature > 0 and generator is not None:
            chosen[row] = _draw(logits_BV[row] - top_B[row], sampling, generator)
    usable = torch.isfinite(top_B).tolist()
    return [token if good else None for token, good in zip(torch.stack(chosen).tolist(), usable, strict=True)]


def _draw(logits_V: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Draws from one row (its maximum is 0, so a tiny temperature overflows to minus infinity only)."""
    probabilities_V = torch.softmax(logits_V / sampling.temperature, dim=-1, dtype=torch.float64)
    tokens: Tensor | None = None  # None: all tokens, in the vocabulary's order
    if 0 < sampling.top_k < len(probabilities_V):
        probabilities_V, tokens = torch.topk(probabilities_V, sampling.top_k)
    if 0 < sampling.top_p < 1:
        if tokens is None:
            probabilities_V, tokens = _likeliest(probabilities_V, sampling.top_p)
        else:
            probabilities_V = probabilities_V / probabilities_V.sum()
        before_V = probabilities_V.cumsum(0) - probabilities_V
        num_kept = torch.count_nonzero(before_V < sampling.top_p)
        probabilities_V = probabilities_V.masked_fill(
            torch.arange(len(probabilities_V), device=num_kept.device) >= num_kept, 0.0
        )
    uniform = torch.rand(1, generator=generator, dtype=torch.float64).to(probabilities_V.device)
    cumulative_V = probabilities_V.cumsum(0)
    # right=True: the first token whose cumulative probability exceeds the draw, so never one of probability 0. The
    # clamp matters to unusable rows only, whose result is thrown away.
    index = torch.searchsorted(cumulative_V, uniform * cumulative_V[-1], right=True).clamp(max=len(cumulative_V) - 1)
    return index[0] if tokens is None else tokens[index[0]]


def _likeliest(probabilities_V: Tensor, mass: float) -> tuple[Tensor, Tensor]:
    """Tokens by falling probability, at least so many that together they have this mass."""
    if len(probabilities_V) > _LIKELY_TOKENS:
        likely_V, tokens = torch.topk(probabilities_V, _LIKELY_TOKENS)
        if likely_V.sum() >= mass:
            return likely_V, tokens
    return torch.sort(probabilities_V, descending=True)
