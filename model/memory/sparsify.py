"""Which tokens of a reference its memory keeps, for each memory layer and KV head. Knows no model and no storage.

Shape letters: B references, T padded tokens, K KV heads, G query heads of one KV head (in `choose_pages`: pages of a
layer), D head dimension, S kept tokens of a page, N of a head, P prefix tokens, E all rows that the repeat of a
reference sees: P + 2T.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.memory.pages import page_starts
from model.plan import MemoryPlan
from model.token_scorer import TokenScorer

LEAST_NEEDED = 1e-4
"""Added to a reconstruction score before its logarithm: below this, all tokens are read alike: not at all."""


@dataclass(frozen=True)
class EncodedLayer:
    """What one memory layer gives of a batch of references, prefix left out."""

    q_BKGTD: Tensor
    """Queries before RoPE."""
    k_BKTD: Tensor
    """Keys before RoPE."""
    q_rotated_BKGTD: Tensor
    k_rotated_BKTD: Tensor
    v_BKTD: Tensor
    repeat: Repeat | None = None
    """Only for selections that run a reference twice."""


@dataclass(frozen=True)
class Repeat:
    """The same reference once more, run right behind itself: what its copying looks at is what the memory must hold."""

    q_rotated_BKGTD: Tensor
    k_rotated_BKTD: Tensor
    k_prefix_KPD: Tensor
    """The prefix, which the repeat sees too; rotated."""


@torch.no_grad()
def score_tokens(
    layer: EncodedLayer,
    memory_layer: int,
    plan: MemoryPlan,
    references: Sequence[Sequence[int]],
    is_token_BT: Tensor,
    scorer: TokenScorer | None = None,
) -> Tensor:
    """float32 `[B, K, T]`: how much each token deserves to be kept, by `plan.selection`; meaningless for padding.

    attention: attention received without mask and without RoPE, so that every place has an equal chance (paper 3.3).
    reconstruction: the most attention that any token of a repeat of the reference pays to it, times the length of its
    value: what a model that has to say the reference again would miss most.
    trained: the logarithm of that, corrected by `scorer` for what contexts were seen to need.
    causal: attention received in the encoding itself: rotated and causal, the prefix left out.
    random: by a generator seeded with the reference, so that equal texts keep equal tokens.
    value_norm: length of the value.

    Without gradient: a choice has none.
    """
    if plan.selection == "attention":
        return combine_group(attention_received(layer.q_BKGTD, layer.k_BKTD, is_token_BT), plan.group_combine)
    if plan.selection == "reconstruction":
        return combine_group(needed_to_repeat(layer, is_token_BT), plan.group_combine)
    if plan.selection == "trained":
        assert scorer is not None
        plain_BATD = torch.cat((layer.q_BKGTD.flatten(1, 2), layer.k_BKTD, layer.v_BKTD), dim=1)
        needed_BKT = combine_group(needed_to_repeat(layer, is_token_BT), plan.group_combine)
        return (needed_BKT + LEAST_NEEDED).log() + scorer.correct(memory_layer, plain_BATD)
    if plan.selection == "causal":
        received_BKGT = attention_received(layer.q_rotated_BKGTD, layer.k_rotated_BKTD, is_token_BT, causal=True)
        return combine_group(received_BKGT, plan.group_combine)
    if plan.selection == "value_norm":
        length_BKT: Tensor = torch.linalg.vector_norm(layer.v_BKTD.float(), dim=-1)
        return length_BKT
    scores_BKT = torch.zeros(layer.v_BKTD.shape[:3], device=layer.v_BKTD.device)
    for scores_KT, tokens in zip(scores_BKT, references, strict=True):
        scores_KT[:, : len(tokens)] = random_scores(tokens, memory_layer, len(scores_KT)).to(scores_KT.device)
    return scores_BKT


def attention_received(q_BKGTD: Tensor, k_BKTD: Tensor, is_token_BT: Tensor, *, causal: bool = False) -> Tensor:
    """float32 `[B, K, G, T]`: the attention each token receives, summed over the reference's queries (paper 3.3)."""
    num_tokens, head_dim = k_BKTD.shape[-2:]
    scores_BKGTT = (q_BKGTD.float() * head_dim**-0.5) @ k_BKTD.float().mT[:, :, None]
    hidden_BTT = ~is_token_BT[:, None, :].expand(-1, num_tokens, -1)
    if causal:
        hidden_BTT = hidden_BTT | torch.ones_like(hidden_BTT).triu(1)
    weights_BKGTT = scores_BKGTT.masked_fill_(hidden_BTT[:, None, None], -torch.inf).softmax(dim=-1)
    received_BKGT: Tensor = weights_BKGTT.masked_fill_(~is_token_BT[:, None, None, :, None], 0).sum(dim=-2)
    return received_BKGT


def needed_to_repeat(layer: EncodedLayer, is_token_BT: Tensor) -> Tensor:
    """float32 `[B, K, G, T]`: the most that one token of the repeat reads of each token of the reference.

    The repeat's attention is the model's own: one softmax over prefix, reference and the repeat so far.
    """
    repeat = layer.repeat
    assert repeat is not None
    num_items, _, num_tokens, head_dim = layer.v_BKTD.shape
    k_prefix_BKPD = repeat.k_prefix_KPD.expand(num_items, -1, -1, -1)
    k_BKED = torch.cat((k_prefix_BKPD, layer.k_rotated_BKTD, repeat.k_rotated_BKTD), dim=2).float()
    scores_BKGTE = (repeat.q_rotated_BKGTD.float() * head_dim**-0.5) @ k_BKED.mT[:, :, None]
    later_TT = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=is_token_BT.device).triu(1)
    hidden_BTE = torch.cat(
        (
            torch.zeros(num_items, num_tokens, k_prefix_BKPD.shape[2], dtype=torch.bool, device=is_token_BT.device),
            ~is_token_BT[:, None, :].expand(-1, num_tokens, -1),
            later_TT.expand(num_items, -1, -1),
        ),
        dim=2,
    )
    weights_BKGTE = scores_BKGTE.masked_fill_(hidden_BTE[:, None, None], -torch.inf).softmax(dim=-1)
    first = k_prefix_BKPD.shape[2]
    weights_BKGTT = weights_BKGTE[..., first : first + num_tokens]
    most_BKGT = weights_BKGTT.masked_fill(~is_token_BT[:, None, None, :, None], 0).amax(dim=-2)
    needed_BKGT: Tensor = most_BKGT * torch.linalg.vector_norm(layer.v_BKTD.float(), dim=-1)[:, :, None]
    return needed_BKGT


def combine_group(scores_BKGT: Tensor, how: str) -> Tensor:
    """The scores of one KV head from those of its query heads, `[B, K, T]`; `how` is a plan's `group_combine`."""
    if how == "sum":
        return scores_BKGT.sum(dim=2)
    return scores_BKGT.amax(dim=2) if how == "max" else scores_BKGT.mean(dim=2)


def most_scored(scores_BKT: Tensor, is_token_BT: Tensor, num_kept: int) -> Tensor:
    """Places of the best tokens, `[B, K, N]`, ascending; of equals the first wins. N is `num_kept`, at most T.

    A reference of n < N tokens has its n places first; what follows is padding.
    """
    scores_BKT = scores_BKT.masked_fill(~is_token_BT[:, None], -torch.inf)
    best_first_BKT = scores_BKT.sort(dim=-1, descending=True, stable=True).indices
    return best_first_BKT[..., :num_kept].sort(dim=-1).values


def choose_pages(scores_BKT: Tensor, is_token_BT: Tensor, pages_K: Sequence[int], tokens_per_page: int) -> Tensor:
    """Places of the best tokens of each head, page by page, `[B, G, S]`.

    G is the sum of `pages_K`; S is `tokens_per_page`, at most T. A reference of n < S tokens has its n places first.
    """
    size = min(tokens_per_page, scores_BKT.shape[2])
    places: list[Tensor] = []
    lengths = is_token_BT.sum(dim=1).tolist()
    for head, count in enumerate(pages_K):
        kept_BN = most_scored(scores_BKT[:, head : head + 1], is_token_BT, count * tokens_per_page)[:, 0]
        starts_BG = [page_starts(count, min(length, count * tokens_per_page), tokens_per_page) for length in lengths]
        start_BG1 = torch.tensor(starts_BG, dtype=torch.long, device=kept_BN.device).view(len(lengths), count, 1)
        column_BGS = start_BG1 + torch.arange(size, device=kept_BN.device)
        places.append(kept_BN[:, None].expand(-1, count, -1).gather(2, column_BGS))
    return torch.cat(places, dim=1)


def random_scores(tokens: Sequence[int], memory_layer: int, num_kv_heads: int) -> Tensor:
    """float32 `[K, T]`, equal on every machine for equal tokens."""
    text = ",".join(map(str, (memory_layer, *tokens)))
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)
    return torch.rand(num_kv_heads, len(tokens), generator=torch.Generator().manual_seed(seed))
