"""Writing in batches gives the memories that the naive twin writes one by one."""

from typing import Any

import pytest
import torch

from model.memory.writer import MemoryWriter
from model.naive import naive_write
from model.plan import SELECTIONS, MemoryPlan
from model.prefix import encode_prefix
from model.transformer import Transformer
from tests.helpers.tiny_model import PREFIX_TOKENS, random_tokens, tiny_plan, tiny_scorer, tiny_transformer

LENGTHS = (1, 3, 6, 7, 30, 64)
"""Shorter than the six tokens a memory keeps, exactly as long, longer."""


def _choosing(selection: str, **changes: Any) -> tuple[Transformer, MemoryPlan]:
    """A model that has a token scorer, and a plan that names it only if it needs one."""
    transformer = tiny_transformer()
    transformer.token_scorer = tiny_scorer(transformer)
    named = transformer.token_scorer.identity if selection == "trained" else ""
    return transformer, tiny_plan(selection=selection, token_scorer=named, **changes)


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("group_combine", ["sum", "max", "mean"])
def test_batch_equals_naive(selection: str, group_combine: str):
    transformer, plan = _choosing(selection, group_combine=group_combine)
    references = [random_tokens(length, seed=length) for length in LENGTHS]
    writer = MemoryWriter(transformer, plan, encode_prefix(transformer, PREFIX_TOKENS), batch_size=4)
    for tokens, memory in zip(references, writer.write(references), strict=True):
        expected = naive_write(transformer, plan, PREFIX_TOKENS, tokens)
        assert memory.num_reference_tokens == len(tokens)
        assert memory.num_kept_tokens == min(len(tokens), plan.tokens_per_memory)
        assert torch.equal(memory.positions_LKS, expected.positions_LKS)
        torch.testing.assert_close(memory.k_LKSD.double(), expected.k_LKSD, atol=1e-4, rtol=0)
        torch.testing.assert_close(memory.v_LKSD.double(), expected.v_LKSD, atol=1e-4, rtol=0)


@pytest.mark.parametrize("pages_per_head", [((0, 1), (3, 0)), ((0, 0), (1, 3)), ((1, 1), (1, 1)), ((1, 5), (4, 2))])
@pytest.mark.parametrize("selection", ["attention", "reconstruction", "trained"])
def test_pages_equal_naive(selection: str, pages_per_head: tuple[tuple[int, ...], ...]):
    transformer, plan = _choosing(selection, pages_per_head=pages_per_head)
    references = [random_tokens(length, seed=length) for length in (*LENGTHS, 11, 13, 20)]
    writer = MemoryWriter(transformer, plan, encode_prefix(transformer, PREFIX_TOKENS), batch_size=4)
    for tokens, memory in zip(references, writer.write(references), strict=True):
        expected = naive_write(transformer, plan, PREFIX_TOKENS, tokens)
        assert torch.equal(memory.positions_LKS, expected.positions_LKS)
        torch.testing.assert_close(memory.k_LKSD.double(), expected.k_LKSD, atol=1e-4, rtol=0)
        torch.testing.assert_close(memory.v_LKSD.double(), expected.v_LKSD, atol=1e-4, rtol=0)


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("preceding_tokens", [1, 20])
def test_in_view_of_what_precedes_equals_naive(selection: str, preceding_tokens: int):
    """Beside references of other lengths, some of which nothing precedes, or less than the plan would take."""
    transformer, plan = _choosing(selection, preceding_tokens=preceding_tokens, pages_per_head=((1, 1), (0, 2)))
    references = [random_tokens(length, seed=length) for length in LENGTHS]
    preceding = [random_tokens(length, seed=99 + length) for length in (50, 0, 7, 20, 64, 3)]
    writer = MemoryWriter(transformer, plan, encode_prefix(transformer, PREFIX_TOKENS), batch_size=4)
    written = writer.write(references, preceding=preceding)
    for tokens, before, memory in zip(references, preceding, written, strict=True):
        expected = naive_write(transformer, plan, PREFIX_TOKENS, tokens, before[-preceding_tokens:])
        assert torch.equal(memory.positions_LKS, expected.positions_LKS)
        torch.testing.assert_close(memory.k_LKSD.double(), expected.k_LKSD, atol=1e-4, rtol=0)
        torch.testing.assert_close(memory.v_LKSD.double(), expected.v_LKSD, atol=1e-4, rtol=0)
    (alone,) = writer.write([references[4]])
    assert not torch.equal(alone.v_LKSD, written[4].v_LKSD)


def test_a_plan_without_preceding_tokens_looks_at_none():
    transformer, plan = _choosing("reconstruction")
    writer = MemoryWriter(transformer, plan, encode_prefix(transformer, PREFIX_TOKENS))
    (alone,), (behind,) = writer.write([[1, 2, 3]]), writer.write([[1, 2, 3]], preceding=[[7, 8, 9]])
    assert torch.equal(alone.k_LKSD, behind.k_LKSD)


@pytest.mark.parametrize("prefix_tokens", [(), (256, 1, 2)])
@pytest.mark.parametrize("num_kv_heads", [1, 4])
def test_other_prefixes_and_groups(prefix_tokens: tuple[int, ...], num_kv_heads: int):
    transformer = tiny_transformer(num_kv_heads=num_kv_heads)
    plan, tokens = tiny_plan(memory_layers=(0, 2, 3)), random_tokens(20)
    (memory,) = MemoryWriter(transformer, plan, encode_prefix(transformer, prefix_tokens)).write([tokens])
    expected = naive_write(transformer, plan, prefix_tokens, tokens)
    assert torch.equal(memory.positions_LKS, expected.positions_LKS)
    torch.testing.assert_close(memory.k_LKSD.double(), expected.k_LKSD, atol=1e-4, rtol=0)


def test_bfloat16_is_near():
    plan, tokens = tiny_plan(tokens_per_memory=64), random_tokens(40)
    transformer = tiny_transformer(dtype=torch.bfloat16)
    (memory,) = MemoryWriter(transformer, plan, encode_prefix(transformer, PREFIX_TOKENS)).write([tokens])
    expected = naive_write(transformer, plan, PREFIX_TOKENS, tokens)
    assert memory.k_LKSD.dtype == torch.bfloat16
    error_LKSD = (memory.v_LKSD.double() - expected.v_LKSD).abs()
    assert error_LKSD.mean() < 0.02 * expected.v_LKSD.abs().mean()


def test_stops_after_the_last_memory_layer():
    """What lies behind the last memory layer is never touched."""
    transformer = tiny_transformer()
    prefix = encode_prefix(transformer, PREFIX_TOKENS)
    with torch.inference_mode():
        transformer.layers[2].out_CE.fill_(torch.nan)
        transformer.layers[3].qkv_AC.fill_(torch.nan)
    (memory,) = MemoryWriter(transformer, tiny_plan(memory_layers=(1, 2)), prefix).write([random_tokens(20)])
    assert memory.k_LKSD.isfinite().all()
    assert memory.v_LKSD.isfinite().all()


def test_equal_references_give_equal_memories_whatever_stands_beside_them():
    transformer = tiny_transformer()
    tokens = random_tokens(25)
    writer = MemoryWriter(transformer, tiny_plan(), encode_prefix(transformer, PREFIX_TOKENS))
    (alone,) = writer.write([tokens])
    beside = writer.write([random_tokens(60, 1), tokens, random_tokens(2, 2)])[1]
    assert torch.equal(alone.positions_LKS, beside.positions_LKS)
    torch.testing.assert_close(alone.k_LKSD, beside.k_LKSD, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("references", "message"),
    [([[1], []], "reference 1 has 0 tokens"), ([[1] * 129], "has 129 tokens; give 1 to 128"), ([[272]], "0 to 271")],
)
def test_refuses_what_is_no_reference(references: list[list[int]], message: str):
    transformer = tiny_transformer()
    writer = MemoryWriter(transformer, tiny_plan(), encode_prefix(transformer, PREFIX_TOKENS))
    with pytest.raises(ValueError, match=message):
        writer.write(references)
