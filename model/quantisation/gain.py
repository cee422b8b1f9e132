"""What a codebook must read values with, so that answers are as likely as from memories that no codec went through.

Levels are means of the numbers they stand for, and numbers without bits are read as 0: so what is read back is a little
too small, on all tokens alike, and the model less sure of what it says. What that costs is of first order, while the
errors that directions and bits are chosen by are of second. Values a few percent larger make up for it; larger keys did
harm (decision 0019).

Shape letters: U references, 2 keys and values, L memory layers, K KV heads (or pages of a layer), S kept tokens,
D head dimension, J scored tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from model.codec.codebook import Codebook
from model.codec.trellis import Trellis
from model.expansion.trellis import TrellisExpansion
from model.memory.writer import encode_references
from model.plan import MemoryPlan
from model.prefix import encode_prefix
from model.training.batch import Batch
from model.training.memory_pass import scored_hidden
from model.transformer import Transformer

_STEP = 0.05
"""Between the two gains that are tried; the loss hardly bends in between."""
_LARGEST_GAIN = 1.25


@torch.no_grad()
def mean_nll(
    transformer: Transformer,
    plan: MemoryPlan,
    prefix_tokens: Sequence[int],
    batches: Sequence[Batch],
    codebooks: Sequence[Codebook | None],
    progress: Callable[[int], None] = lambda done: None,
) -> list[float]:
    """Negative log-likelihood in nats, mean over scored tokens, with memories read through each codebook; through None,
    as they were written. `progress(done)` counts references."""
    prefix = encode_prefix(transformer, prefix_tokens)
    stages = [None if book is None else Trellis(book) for book in codebooks]
    sums, num_scored, num_references = np.zeros(len(stages)), 0, 0
    for batch in batches:
        encoded = encode_references(transformer, plan, prefix, batch.references, batch.preceding)
        kv_U2LKSD, places_ULKS = encoded.kv_2BLKSD.transpose(0, 1), encoded.places_BLKS
        lengths = [len(tokens) for tokens in batch.references]
        targets = [token for context in batch.contexts for token in context.targets]
        targets_J = torch.tensor(targets, device=transformer.device)
        for place, stage in enumerate(stages):
            read_U2LKSD = kv_U2LKSD if stage is None else _read_back(stage, kv_U2LKSD, places_ULKS)
            hidden_JC = scored_hidden(transformer, plan, prefix, read_U2LKSD, lengths, batch.contexts)
            sums[place] += float(cross_entropy(transformer.logits(hidden_JC), targets_J, reduction="sum"))
        num_scored += len(targets)
        num_references += len(batch.references)
        progress(num_references)
    return [float(one) / num_scored for one in sums]


def find_value_gains(
    codebooks: Sequence[Codebook], nll: Callable[[Sequence[Codebook | None]], Sequence[float]]
) -> list[float]:
    """For each codebook at least 1, at most a quarter more: with it answers are as likely as from memories as they were
    written.

    `nll(codebooks)`: see `mean_nll`; asked once.
    """
    stretched = [replace(book, value_gain=book.value_gain + _STEP) for book in codebooks]
    written, *read = nll([None, *codebooks, *stretched])
    plain, larger = read[: len(codebooks)], read[len(codebooks) :]
    return [_gain(book, written, *of_book) for book, *of_book in zip(codebooks, plain, larger, strict=True)]


def _gain(codebook: Codebook, written: float, plain: float, larger: float) -> float:
    if not larger < plain:
        return codebook.value_gain  # a model that has no use for larger ones
    gain = codebook.value_gain + _STEP * (plain - written) / (plain - larger)
    return min(max(gain, 1.0), _LARGEST_GAIN)


def _read_back(stage: Trellis, kv_U2LKSD: Tensor, places_ULKS: Tensor) -> Tensor:
    """What a reader gets of these memories."""
    codes = []
    for (keys_LKSD, values_LKSD), places_LKS in zip(
        kv_U2LKSD.float().cpu().numpy(), places_ULKS.cpu().numpy(), strict=True
    ):
        codes.append(stage.encode({"keys": keys_LKSD, "values": values_LKSD, "positions": places_LKS})["codes"])
    expansion = TrellisExpansion(stage, kv_U2LKSD.device)
    codes_USB = torch.from_numpy(np.stack(codes)).to(kv_U2LKSD.device)
    arrays = expansion({"codes": codes_USB, "positions": places_ULKS})
    return torch.stack((arrays["keys"], arrays["values"]), dim=1).to(kv_U2LKSD.dtype)
