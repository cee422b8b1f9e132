"""The gradient at stored vectors against finite differences through the slow twin of the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.memory.explicit_memory import ExplicitMemory
from model.memory.writer import encode_references
from model.naive import naive_logits, rotated
from model.prefix import prefix_with_gradient
from model.quantisation.sensitivity import measure_sensitivity
from tests.helpers.tiny_model import PREFIX_TOKENS, tiny_plan, tiny_transformer

PLAN = tiny_plan(tokens_per_memory=2, memories_per_chunk=1)
REFERENCE = (10, 20, 30, 40, 50, 60)
OPENING = (7,)


def naive_loss(transformer: torch.nn.Module, memory: ExplicitMemory) -> float:
    context = (*OPENING, *REFERENCE)
    logits_TV = naive_logits(transformer, PLAN, PREFIX_TOKENS, context, [[memory]] * len(context))
    scored = range(len(OPENING) + 2, len(context))  # the first two tokens of a recital are not
    return float(-sum(logits_TV[place - 1].log_softmax(-1)[context[place]] for place in scored))


@pytest.mark.parametrize("which", [0, 1], ids=["keys", "values"])
def test_it_is_the_gradient_of_the_recital_at_position_0(which: int) -> None:
    transformer = tiny_transformer().requires_grad_(False)
    measured = measure_sensitivity(transformer, PLAN, PREFIX_TOKENS, OPENING, [REFERENCE], num_recited=1, seed=0)
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
    found_DD = measured.fisher_2LKDD[which, layer, head]
    np.testing.assert_allclose(found_DD[chosen], expected_DD[chosen], rtol=0.02, atol=1e-5)
    memory = ExplicitMemory(kv_2LKSD[0], kv_2LKSD[1], places_LKS, len(REFERENCE))
    assert measured.nll == pytest.approx(naive_loss(transformer, memory) / 4, rel=1e-4)


def test_vectors_are_those_that_are_stored_with_keys_at_position_0() -> None:
    transformer = tiny_transformer().requires_grad_(False)
    references = [REFERENCE, (9, 8, 7, 6)]
    told: list[tuple[int, int]] = []
    measured = measure_sensitivity(
        transformer,
        PLAN,
        PREFIX_TOKENS,
        OPENING,
        references,
        num_recited=1,
        seed=0,
        progress=lambda done, total: told.append((done, total)),
    )
    assert measured.vectors_2LKND.shape == (2, 2, 2, 4, 16)
    assert told == [(2, 3), (3, 3)]
    with torch.no_grad():
        prefix = prefix_with_gradient(transformer, PREFIX_TOKENS)
        second = encode_references(transformer, PLAN, prefix, references[1:])
    np.testing.assert_allclose(measured.vectors_2LKND[1, :, :, 2:], second.kv_2BLKSD[1, 0].numpy(), atol=1e-5)
    place = int(second.places_BLKS[0, 0, 0, 0])
    at_0 = torch.from_numpy(measured.vectors_2LKND[0, 0, 0, 2]).double()
    turned = rotated(at_0, len(PREFIX_TOKENS) + place, transformer.config.rope_theta)
    np.testing.assert_allclose(turned.numpy(), second.kv_2BLKSD[0, 0, 0, 0, 0].numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("references", "recited", "words"),
    [
        ([REFERENCE], 2, "1 references of which 2 are recited"),
        ([REFERENCE, (1,)], 1, "reference 1 has 1 tokens; give 3 to 128"),
        ([REFERENCE, (1,) * 129], 1, "reference 1 has 129 tokens"),
    ],
)
def test_references_that_cannot_be_used_are_refused(
    references: list[tuple[int, ...]], recited: int, words: str
) -> None:
    plan = replace(PLAN, memories_per_chunk=1)
    with pytest.raises(ValueError, match=words):
        measure_sensitivity(tiny_transformer(), plan, PREFIX_TOKENS, OPENING, references, num_recited=recited, seed=0)
