"""The gradient at stored vectors against finite differences through the slow twin of the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.memory.explicit_memory import ExplicitMemory
from model.memory.writer import encode_references
from model.naive import naive_logits, rotated
from model.prefix import prefix_with_gradient
from model.quantisation.sensitivity import Sensitivity, measure_sensitivity, mix
from model.training.batch import Batch, Context
from tests.helpers.tiny_model import PREFIX_TOKENS, tiny_plan, tiny_transformer

PLAN = tiny_plan(tokens_per_memory=2, memories_per_chunk=1)
REFERENCE = (10, 20, 30, 40, 50, 60)
TOKENS = (7, 10, 20, 30, 40)
SCORED = 3
CONTEXT = Context(TOKENS, SCORED, ((0,),))
BATCH = Batch((REFERENCE,), (CONTEXT,), 2)


def naive_loss(transformer: torch.nn.Module, memory: ExplicitMemory) -> float:
    logits_TV = naive_logits(transformer, PLAN, PREFIX_TOKENS, TOKENS, [[memory]] * len(TOKENS))
    scored = range(len(TOKENS) - SCORED, len(TOKENS))
    return float(-sum(logits_TV[place - 1].log_softmax(-1)[TOKENS[place]] for place in scored))


@pytest.mark.parametrize("which", [0, 1], ids=["keys", "values"])
def test_it_is_the_gradient_of_the_answer_at_position_0(which: int) -> None:
    transformer = tiny_transformer().requires_grad_(False)
    measured = measure_sensitivity(transformer, PLAN, PREFIX_TOKENS, [BATCH])
    with torch.no_grad():
        encoded = encode_references(transformer, PLAN, prefix_with_gradient(transformer, PREFIX_TOKENS), [REFERENCE])
    kv_2LKSD, places_LKS = encoded.kv_2BLKSD[:, 0].double(), encoded.places_BLKS[0]
    layer, head, step = 1, 1, 1e-3
    dims = (0, 3, 8, 15)
    gradient_SD = np.zeros((2, 16))
    for token in range(2):
        position = len(PREFIX_TOKENS) + int(places_LKS[layer, head, token])
        for dim in dims:
            direction = torch.zeros(16, dtype=torch.float64)
            direction[dim] = step
            if which == 0:
                direction = rotated(direction, position, transformer.config.rope_theta)
            losses = []
            for sign in (1, -1):
                moved = kv_2LKSD.clone()
                moved[which, layer, head, token] += sign * direction
                losses.append(naive_loss(transformer, ExplicitMemory(moved[0], moved[1], places_LKS, len(REFERENCE))))
            gradient_SD[token, dim] = (losses[0] - losses[1]) / (2 * step)
    expected_DD = gradient_SD.T @ gradient_SD / 2
    chosen = np.ix_(dims, dims)
    found_DD = np.split(np.split(measured.fisher_LKEE[layer, head], 2)[which], 2, axis=1)[which]
    np.testing.assert_allclose(found_DD[chosen], expected_DD[chosen], rtol=0.02, atol=1e-5)
    memory = ExplicitMemory(kv_2LKSD[0], kv_2LKSD[1], places_LKS, len(REFERENCE))
    assert measured.nll == pytest.approx(naive_loss(transformer, memory) / SCORED, rel=1e-4)


def test_vectors_are_those_that_are_stored_with_keys_at_position_0() -> None:
    transformer = tiny_transformer().requires_grad_(False)
    second_reference, short = (9, 8, 7, 6), (5,)
    other = Batch((second_reference, short), (Context((7, 9, 8), 1, ((0,),)),), 2)
    told: list[int] = []
    measured = measure_sensitivity(transformer, PLAN, PREFIX_TOKENS, [BATCH, other], told.append)
    assert measured.vectors_LKNE.shape == (2, 2, 4, 32)  # the third fills no memory
    assert told == [1, 3]
    with torch.no_grad():
        prefix = prefix_with_gradient(transformer, PREFIX_TOKENS)
        second = encode_references(transformer, PLAN, prefix, [second_reference])
    np.testing.assert_allclose(measured.vectors_LKNE[:, :, 2:, 16:], second.kv_2BLKSD[1, 0].numpy(), atol=1e-5)
    place = int(second.places_BLKS[0, 0, 0, 0])
    at_0 = torch.from_numpy(measured.vectors_LKNE[0, 0, 2, :16]).double()
    turned = rotated(at_0, len(PREFIX_TOKENS) + place, transformer.config.rope_theta)
    np.testing.assert_allclose(turned.numpy(), second.kv_2BLKSD[0, 0, 0, 0, 0].numpy(), atol=1e-4)


def test_contexts_that_read_the_same_memory_are_looked_at_one_by_one() -> None:
    transformer = tiny_transformer().requires_grad_(False)
    other = Context((7, 60, 9, 9), 2, ((0,),))

    def fisher(*batches: Batch) -> np.ndarray:
        return measure_sensitivity(transformer, PLAN, PREFIX_TOKENS, batches).fisher_LKEE

    together = fisher(Batch((REFERENCE,), (CONTEXT, other), 2))
    np.testing.assert_allclose(together, fisher(BATCH, Batch((REFERENCE,), (other,), 2)), rtol=1e-4, atol=1e-6)


def test_each_use_counts_alike() -> None:
    rng = np.random.default_rng(0)
    first, second = (np.tile(np.diag(row), (2, 1, 1, 1)) for row in ([100.0, 0, 0, 0], [0, 1.0, 0, 0]))
    many = Sensitivity(rng.standard_normal((2, 1, 40, 4)), first, 2)
    few = Sensitivity(rng.standard_normal((2, 1, 10, 4)), second, 4)
    by_hand = sum(many.vectors_LKNE[layer, 0, :, 0].var() for layer in (0, 1)) * 100
    assert many.loss_of_all == pytest.approx(by_hand)
    mixed = mix([many, few])
    assert mixed.vectors_LKNE.shape == (2, 1, 50, 4)
    assert mixed.nll == 3
    assert mixed.fisher_LKEE[0, 0, 0, 0] == pytest.approx(100 / by_hand / 2)
    assert mixed.fisher_LKEE[0, 0, 1, 1] == pytest.approx(1 / few.loss_of_all / 2)


def test_references_that_fill_no_memory_alone_are_refused() -> None:
    batch = Batch(((1,),), (Context((7, 9, 8), 1, ((0,),)),), 2)
    with pytest.raises(ValueError, match="none of 1 references has 2 tokens; give longer ones"):
        measure_sensitivity(tiny_transformer(), PLAN, PREFIX_TOKENS, [batch])
