"""Token selection on cases small enough to work out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.memory.sparsify import (
    EncodedLayer,
    Repeat,
    attention_received,
    combine_group,
    most_scored,
    needed_to_repeat,
    random_scores,
)


def _everywhere(num_tokens: int) -> torch.Tensor:
    return torch.ones(1, num_tokens, dtype=torch.bool)


def test_one_loud_key_receives_nearly_all():
    q_BKGTD = torch.ones(1, 1, 1, 4, 2)
    k_BKTD = torch.tensor([[0.0, 0], [50, 50], [0, 0], [0, 0]])[None, None]
    received = attention_received(q_BKGTD, k_BKTD, _everywhere(4))
    torch.testing.assert_close(received[0, 0, 0], torch.tensor([0.0, 4, 0, 0]), atol=1e-5, rtol=0)


def test_without_mask_equal_keys_receive_the_same_and_with_it_the_first_receives_most():
    q_BKGTD, k_BKTD = torch.ones(1, 1, 1, 3, 2), torch.ones(1, 1, 3, 2)
    unmasked = attention_received(q_BKGTD, k_BKTD, _everywhere(3))
    torch.testing.assert_close(unmasked[0, 0, 0], torch.ones(3))
    masked = attention_received(q_BKGTD, k_BKTD, _everywhere(3), causal=True)
    torch.testing.assert_close(masked[0, 0, 0], torch.tensor([1 + 1 / 2 + 1 / 3, 1 / 2 + 1 / 3, 1 / 3]))


def test_softmax_form_lets_every_query_count_once():
    """One query shouts (scores of 40), two whisper: unnormalised weights would follow the one, normalised the two."""
    q_BKGTD = torch.tensor([[40.0, 0], [0, 5], [0, 5]])[None, None, None]
    k_BKTD = torch.tensor([[1.0, 0], [0, 1], [0, 0]])[None, None] * 2**0.5
    received = attention_received(q_BKGTD, k_BKTD, _everywhere(3))[0, 0, 0]
    assert received.argmax() == 1


def test_padding_gives_and_receives_nothing():
    generator = torch.Generator().manual_seed(0)
    q_BKGTD = torch.randn(1, 2, 3, 5, 4, generator=generator)
    k_BKTD = torch.randn(1, 2, 5, 4, generator=generator)
    is_token_BT = torch.tensor([[True, True, True, False, False]])
    padded = attention_received(q_BKGTD, k_BKTD, is_token_BT)
    alone = attention_received(q_BKGTD[..., :3, :], k_BKTD[:, :, :3], _everywhere(3))
    torch.testing.assert_close(padded[..., :3], alone)
    assert padded[..., 3:].abs().max() == 0
    torch.testing.assert_close(alone.sum(-1), torch.full((1, 2, 3), 3.0))


def test_what_one_token_of_the_repeat_needs_counts_whatever_the_others_do():
    """Three tokens of the repeat look at token 0, one at token 1, harder; token 2 has a long value nobody reads."""
    eye = torch.eye(4)
    k_BKTD = eye[None, None, :3]
    q_BKGTD = torch.stack((8 * eye[0], 16 * eye[1], 8 * eye[0]))[None, None, None]
    nothing_BKTD = torch.zeros(1, 1, 3, 4)
    repeat = Repeat(q_BKGTD, nothing_BKTD, torch.zeros(1, 0, 4))
    v_BKTD = torch.ones(1, 1, 3, 4) * torch.tensor([1.0, 1, 3])[:, None]
    layer = EncodedLayer(q_BKGTD, k_BKTD, q_BKGTD, k_BKTD, v_BKTD, repeat)
    needed = needed_to_repeat(layer, _everywhere(3))[0, 0, 0]
    assert needed[1] > needed[0] > needed[2]


@pytest.mark.parametrize(("how", "expected"), [("sum", [3.0, 5]), ("max", [2.0, 5]), ("mean", [1.5, 2.5])])
def test_heads_of_a_group_are_combined(how: str, expected: list[float]):
    scores_BKGT = torch.tensor([[1.0, 5], [2, 0]])[None, None]
    torch.testing.assert_close(combine_group(scores_BKGT, how)[0, 0], torch.tensor(expected))


def test_best_tokens_in_order_of_place_and_ties_to_the_first():
    scores_BKT = torch.tensor([[[1.0, 3, 2, 3], [1, 1, 1, 1]]])
    assert most_scored(scores_BKT, _everywhere(4), 2).tolist() == [[[1, 3], [0, 1]]]


def test_short_reference_keeps_all_it_has():
    is_token_BT = torch.tensor([[True, True, False, False]])
    places = most_scored(torch.tensor([[[1.0, 2, 9, 9]]]), is_token_BT, 3)
    assert places[0, 0, :2].tolist() == [0, 1]


@given(st.lists(st.integers(0, 50_000), min_size=1, max_size=20), st.integers(0, 3))
def test_random_depends_on_the_reference_alone(tokens: list[int], layer: int):
    first, second = random_scores(tokens, layer, 2), random_scores(list(tokens), layer, 2)
    assert torch.equal(first, second)
    assert not torch.equal(first, random_scores([*tokens, 1], layer, 2)[:, : len(tokens)])
    assert not torch.equal(first, random_scores(tokens, layer + 1, 2))
