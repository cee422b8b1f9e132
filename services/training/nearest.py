"""Exact search for the reference nearest to a chunk, by TF-IDF over token ids, all in this process.

The service's embedder would find better ones; here a corpus of some ten thousand references has to be searched for
every chunk of a training set, in seconds and for any tokenizer.

Shape letters: N references, J queries, V vocabulary, M best.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_QUERIES_AT_ONCE = 512


class NearestReferences:
    """The references of a corpus, ready to be searched."""

    def __init__(self, references: Sequence[Sequence[int]], vocab_size: int) -> None:
        self._vocab_size = vocab_size
        counts_NV = self._counts(references)
        holders_V = (counts_NV > 0).sum(dim=0)
        self._weight_V = torch.log((1 + len(references)) / (1 + holders_V))
        self._references_NV = self._weighted(counts_NV)

    def search(self, queries: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """For each query the places of the `count` nearest references, nearest first."""
        found: list[list[int]] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            queries_JV = self._weighted(self._counts(queries[start : start + _QUERIES_AT_ONCE]))
            scores_JN = queries_JV @ self._references_NV.T
            best_JM = scores_JN.topk(min(count, scores_JN.shape[1]), dim=1).indices
            found += best_JM.tolist()
        return found

    def _counts(self, texts: Sequence[Sequence[int]]) -> Tensor:
        counts_NV = torch.zeros(len(texts), self._vocab_size)
        for counts_V, tokens in zip(counts_NV, texts, strict=True):
            counts_V.index_add_(0, torch.tensor(tokens), torch.ones(len(tokens)))
        return counts_NV

    def _weighted(self, counts_NV: Tensor) -> Tensor:
        weighted_NV = counts_NV.log1p() * self._weight_V
        return torch.nn.functional.normalize(weighted_NV, dim=1)
