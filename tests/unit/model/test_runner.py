"""What the runner refuses, what it reports, and what stays as it was after a refusal."""

from typing import Any

import pytest
import torch

from model.runner import ModelRunner, PrefillItem
from tests.helpers.tiny_model import (
    PREFIX_TOKENS,
    random_memories,
    random_tokens,
    tiny_plan,
    tiny_runner,
    tiny_transformer,
)


@pytest.fixture
def runner() -> ModelRunner:
    return tiny_runner(plan=tiny_plan(query_chunk_tokens=16), num_slots=3, max_context_tokens=50)


def _prefill(runner: ModelRunner, slot: int, num_tokens: int, **changes: Any) -> torch.Tensor:
    start = runner.length(slot)
    num_chunks = (start + num_tokens - 1) // 16 - start // 16 + 1
    values: dict[str, Any] = {"tokens": random_tokens(num_tokens), "chunk_memories": [()] * num_chunks}
    return runner.prefill([PrefillItem(slot, **(values | changes))]).logits_BV


@pytest.mark.parametrize(
    ("num_tokens", "changes", "message"),
    [
        (51, {}, "slot 1 would hold 51 context tokens; the limit is 50"),
        (5, {"tokens": []}, "no tokens for slot 1"),
        (5, {"tokens": [272]}, "outside the vocabulary; ids go from 0 to 271"),
        (5, {"tokens": [-1]}, "outside the vocabulary"),
        (17, {"chunk_memories": [()]}, "tokens 0 to 16 of slot 1 touch 2 chunks of 16"),
        (5, {"chunk_memories": [(), ()]}, "2 entries; .* touch 1 chunks"),
        (5, {"num_logits": 0}, "num_logits is 0 for 5 tokens of slot 1; give 1 to 5"),
        (5, {"num_logits": 6}, "num_logits is 6"),
    ],
)
def test_refuses_a_prefill(runner: ModelRunner, num_tokens: int, changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        _prefill(runner, 1, num_tokens, **changes)
    assert runner.length(1) == 0


def test_refuses_memories_it_cannot_read(runner: ModelRunner):
    memories = random_memories(runner, 6)
    runner.reset(0, reads_memories=True)
    with pytest.raises(ValueError, match=r"6 memories for one query chunk; plan 'tiny' reads at most 5"):
        runner.set_memories(0, memories)
    other = random_memories(tiny_runner(plan=tiny_plan(memory_layers=(0, 1, 2))), 1)
    with pytest.raises(ValueError, match=r"has shape \(3, 2, 6, 16\); plan 'tiny' reads \(2, 2, at most 6, 16\)"):
        runner.set_memories(0, other)
    runner.reset(0, reads_memories=False)
    with pytest.raises(ValueError, match="slot 0, which was reset to read none"):
        runner.set_memories(0, memories[:1])


@pytest.mark.parametrize("slots", [[0, 0], [3], [-1], []])
def test_refuses_slots(runner: ModelRunner, slots: list[int]):
    with pytest.raises(ValueError, match="slots"):
        runner.decode(slots, [1] * len(slots))


def test_refuses_tokens_that_do_not_pair_with_slots(runner: ModelRunner):
    with pytest.raises(ValueError, match="2 slots and 1 tokens"):
        runner.decode([0, 1], [1])


def test_one_bad_item_leaves_the_others_untouched(runner: ModelRunner):
    for slot in (0, 1):
        runner.reset(slot, reads_memories=True)
    expected = _prefill(runner, 0, 10)
    runner.reset(0, reads_memories=True)
    with pytest.raises(ValueError, match="vocabulary"):
        runner.prefill([PrefillItem(0, random_tokens(10), [()]), PrefillItem(1, [999], [()])])
    assert runner.length(0) == 0
    assert torch.equal(_prefill(runner, 0, 10), expected)


def test_context_can_be_filled_to_the_last_token(runner: ModelRunner):
    runner.reset(2, reads_memories=True)
    _prefill(runner, 2, 49)
    runner.decode([2], [1])
    assert runner.length(2) == 50
    with pytest.raises(ValueError, match="would hold 51"):
        runner.decode([2], [1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_slots": 0}, "num_slots is 0"),
        ({"max_context_tokens": 0}, "max_context_tokens is 0"),
        ({"max_context_tokens": 2000}, r"take 129 of the model's 2048 positions: give 1 to 1919"),
    ],
)
def test_refuses_options(options: dict[str, int], message: str):
    values = {"prefix_tokens": PREFIX_TOKENS, "num_slots": 1} | options
    with pytest.raises(ValueError, match=message):
        ModelRunner(tiny_transformer(), tiny_plan(), **values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layer 9"):
        ModelRunner(tiny_transformer(), tiny_plan(memory_layers=(9,)), prefix_tokens=(), num_slots=1)


def test_reported_attention(runner: ModelRunner):
    """Shares are between 0 and 1, 0 where a memory is absent, and of the same size in prefill and decode."""
    memories = random_memories(runner, 7)
    for slot in (0, 1):
        runner.reset(slot, reads_memories=True)
    items = [PrefillItem(0, random_tokens(20), [memories[:5], memories[5:]]), PrefillItem(1, [1, 2], [memories[:1]])]
    plain = runner.prefill(items)
    assert plain.attention_BCM is None
    for slot in (0, 1):
        runner.reset(slot, reads_memories=True)
    reported = runner.prefill(items, report_attention=True)
    assert torch.equal(reported.logits_BV, plain.logits_BV)
    share_BCM = reported.attention_BCM
    assert share_BCM is not None
    assert share_BCM.shape == (2, 2, 5)
    assert (share_BCM > 0).tolist() == [[[True] * 5, [True] * 2 + [False] * 3], [[True] + [False] * 4, [False] * 5]]
    assert (share_BCM.sum(-1) < 1).all()
    decoded = runner.decode([1, 0], [3, 4], report_attention=True).attention_BCM
    assert decoded is not None
    assert (decoded > 0).tolist() == [[[True] + [False] * 4], [[True] * 2 + [False] * 3]]
    assert (decoded.sum(-1) < 1).all()


def test_attention_share_of_a_token_is_the_same_in_prefill_and_decode(runner: ModelRunner):
    memories = random_memories(runner, 3)
    runner.reset(0, reads_memories=True)
    prefilled = runner.prefill([PrefillItem(0, [7], [memories])], report_attention=True).attention_BCM
    runner.reset(0, reads_memories=True)
    runner.set_memories(0, memories)
    decoded = runner.decode([0], [7], report_attention=True).attention_BCM
    assert prefilled is not None
    assert decoded is not None
    torch.testing.assert_close(prefilled, decoded)
    runner.reset(0, reads_memories=False)
    nothing = runner.decode([0], [7], report_attention=True).attention_BCM
    assert nothing is not None
    assert nothing.abs().max() == 0
