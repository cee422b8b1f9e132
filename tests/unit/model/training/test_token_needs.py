"""What a token is worth: against finite differences, and what its added number means, by the slow twin."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from model.memory.explicit_memory import ExplicitMemory
from model.memory.writer import MemoryWriter, encode_references
from model.naive import memories_of_tokens, naive_logits
from model.prefix import encode_prefix
from model.training.batch import Batch, Context
from model.training.memory_pass import scored_hidden, write_memories
from model.training.token_needs import joined, measure_needs
from tests.helpers.tiny_model import PREFIX_TOKENS, random_tokens, tiny_plan, tiny_transformer

PLAN = tiny_plan(max_reference_tokens=16, tokens_per_memory=16, query_chunk_tokens=8, memories_per_chunk=2)
REFERENCES = tuple(tuple(random_tokens(length, length)) for length in (5, 16))
CONTEXTS = (
    Context(tuple(random_tokens(12, 1)), 4, ((0, 1), (1,))),
    Context(tuple(random_tokens(7, 2)), 2, ((1,),)),
)
BATCH = Batch(REFERENCES, CONTEXTS, 16)


def test_needs_are_what_a_little_more_of_a_token_saves() -> None:
    transformer = tiny_transformer().requires_grad_(False)
    prefix = encode_prefix(transformer, PREFIX_TOKENS)
    needs = measure_needs(transformer, PLAN, prefix, BATCH)
    assert needs.needs_LKN.shape == (2, 2, 21)
    kv_U2LKSD = write_memories(transformer, PLAN, prefix, REFERENCES)
    step = 0.05

    def loss(layer: int, head: int, reference: int, token: int, gain: float) -> float:
        gain_UPS = torch.zeros(2, 4, 16)
        gain_UPS[reference, 2 * layer + head, token] = gain
        total = 0.0
        for context in CONTEXTS:
            hidden_JC = scored_hidden(transformer, PLAN, prefix, kv_U2LKSD, [5, 16], [context], gain_UPS)
            logits_JV = transformer.logits(hidden_JC).double()
            total += float(torch.nn.functional.cross_entropy(logits_JV, torch.tensor(context.targets)))
        return total

    # The largest: float32 cannot tell the smallest from nothing.
    largest = needs.needs_LKN.abs().flatten().topk(8).indices
    for place in largest.tolist():
        (layer, head), token = divmod(place // 21, 2), place % 21
        reference = int(token >= 5)
        more, less = (loss(layer, head, reference, token - 5 * reference, gain) for gain in (step, -step))
        assert float(needs.needs_LKN[layer, head, token]) == pytest.approx((less - more) / (2 * step), rel=0.03)


def test_a_gain_of_log_2_reads_a_token_as_if_it_were_kept_twice() -> None:
    transformer = tiny_transformer().requires_grad_(False)
    prefix, context = encode_prefix(transformer, PREFIX_TOKENS), replace(CONTEXTS[0], chunk_references=((0,), (0,)))
    kv_U2LKSD = write_memories(transformer, PLAN, prefix, REFERENCES[:1])
    gain_UPS = torch.zeros(1, 4, 16)
    gain_UPS[:, :, 3] = math.log(2)
    hidden_JC = scored_hidden(transformer, PLAN, prefix, kv_U2LKSD, [5], [context], gain_UPS)
    (memory,) = MemoryWriter(transformer, PLAN, prefix).write([REFERENCES[0]])
    k_LKSD, v_LKSD = (torch.cat((kv, kv[:, :, 3:4]), dim=2) for kv in (memory.k_LKSD, memory.v_LKSD))
    positions_LKS = torch.cat((memory.positions_LKS, torch.full_like(memory.positions_LKS[:, :, :1], 5)), dim=2)
    twice = ExplicitMemory(k_LKSD, v_LKSD, positions_LKS, 6)
    reads = memories_of_tokens([[twice], [twice]], len(context.tokens), PLAN.query_chunk_tokens)
    logits_TV = naive_logits(transformer, PLAN, PREFIX_TOKENS, context.tokens, reads)
    torch.testing.assert_close(transformer.logits(hidden_JC).double(), logits_TV[-5:-1], atol=1e-3, rtol=1e-3)


def test_needs_are_of_the_reference_and_not_of_what_precedes_it() -> None:
    transformer = tiny_transformer().requires_grad_(False)
    prefix = encode_prefix(transformer, PREFIX_TOKENS)
    plan = replace(PLAN, memory_layers=(0, 2), preceding_tokens=8)
    batch = replace(BATCH, preceding=(tuple(random_tokens(20, 3)), ()))
    alone, behind = (measure_needs(transformer, plan, prefix, one) for one in (BATCH, batch))
    assert behind.plain_LNF.shape == alone.plain_LNF.shape
    assert torch.equal(behind.plain_LNF[:, 5:], alone.plain_LNF[:, 5:])
    # The first layer's keys know no neighbours; those above saw what stands before.
    torch.testing.assert_close(behind.plain_LNF[0, :5], alone.plain_LNF[0, :5], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(behind.plain_LNF[1, :5], alone.plain_LNF[1, :5], atol=1e-2)


def test_tokens_of_all_references_lie_one_behind_the_other_with_their_scores() -> None:
    """Whatever the plan keeps: pages, other selections and fewer tokens change nothing."""
    transformer = tiny_transformer().requires_grad_(False)
    prefix = encode_prefix(transformer, PREFIX_TOKENS)
    needs = measure_needs(transformer, PLAN, prefix, BATCH)
    paged = replace(PLAN, tokens_per_memory=4, pages_per_head=((0, 1), (3, 0)), selection="causal")
    other = measure_needs(transformer, paged, prefix, BATCH)
    assert torch.equal(needs.needs_LKN, other.needs_LKN)
    with torch.no_grad():
        encoded = encode_references(transformer, replace(PLAN, selection="reconstruction"), prefix, REFERENCES)
    assert encoded.scores_BLKR is not None
    torch.testing.assert_close(needs.scores_LKN[..., 5:], encoded.scores_BLKR[1])
    assert needs.lengths == (5, 16)
    both = joined([needs, other])
    assert both.lengths == (5, 16, 5, 16)
    assert torch.equal(both.plain_LNF[:, 21:], needs.plain_LNF)
