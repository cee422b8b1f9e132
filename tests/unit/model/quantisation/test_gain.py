"""Answers read through a codebook against the slow twins of model and codec, and the gain that brings them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.codec.codebook import Codebook
from model.codec.trellis import Trellis
from model.memory.explicit_memory import ExplicitMemory
from model.memory.writer import MemoryWriter
from model.naive import naive_logits
from model.prefix import encode_prefix
from model.quantisation.gain import find_value_gains, mean_nll
from model.training.batch import Batch, Context
from tests.helpers.codebooks import a_codebook
from tests.helpers.codec_twin import undone
from tests.helpers.tiny_model import PREFIX_TOKENS, tiny_plan, tiny_transformer

PLAN = tiny_plan(tokens_per_memory=2, memories_per_chunk=1)
REFERENCES = ((10, 20, 30, 40, 50, 60), (9, 8, 7, 6))
CONTEXTS = (Context((7, 10, 20, 30, 40), 3, ((0,),)), Context((7, 9, 8), 1, ((1,),)))


def naive_nll(transformer: torch.nn.Module, memories: Sequence[ExplicitMemory]) -> float:
    """Mean over the scored tokens of both contexts."""
    nll = []
    for context, memory in zip(CONTEXTS, memories, strict=True):
        num_tokens = len(context.tokens)
        logits_TV = naive_logits(transformer, PLAN, PREFIX_TOKENS, context.tokens, [[memory]] * num_tokens)
        logp_TV = logits_TV.log_softmax(-1)
        scored = range(num_tokens - context.num_scored, num_tokens)
        nll += [-float(logp_TV[place - 1, context.tokens[place]]) for place in scored]
    return float(np.mean(nll))


def through(book: Codebook, memory: ExplicitMemory) -> ExplicitMemory:
    arrays, stage = memory.to_arrays(), Trellis(book)
    coded = stage.encode({"keys": arrays.k_LKSD, "values": arrays.v_LKSD, "positions": arrays.positions_LKS})
    back = undone(stage, coded)
    keys, values = torch.from_numpy(back["keys"]), torch.from_numpy(back["values"])
    return ExplicitMemory(keys, values, memory.positions_LKS, memory.num_reference_tokens)


def test_losses_are_those_of_the_slow_twins() -> None:
    transformer = tiny_transformer().requires_grad_(False)
    book = a_codebook(2, 2, 16, 2)  # few bits, so that something is lost
    books = [None, book, replace(book, value_gain=1.5)]
    told: list[int] = []
    batches = [
        Batch((reference,), (replace(context, chunk_references=((0,),)),), 2)
        for reference, context in zip(REFERENCES, CONTEXTS, strict=True)
    ]
    found = mean_nll(transformer, PLAN, PREFIX_TOKENS, batches, books, told.append)
    together = mean_nll(transformer, PLAN, PREFIX_TOKENS, [Batch(REFERENCES, CONTEXTS, 2)], books)
    assert told == [1, 2]
    assert found == pytest.approx(together, rel=1e-4)
    written = MemoryWriter(transformer, PLAN, encode_prefix(transformer, PREFIX_TOKENS)).write(REFERENCES)
    assert found[0] == pytest.approx(naive_nll(transformer, written), rel=1e-4)
    for nll, one in zip(found[1:], books[1:], strict=True):
        assert one is not None
        assert nll == pytest.approx(naive_nll(transformer, [through(one, each) for each in written]), rel=1e-4)
    assert len({round(nll, 5) for nll in found}) == 3, "nothing was lost, so nothing was compared"


@pytest.mark.parametrize(
    ("lost", "won_by_all", "gain"),
    [
        (0.06, 1.0, 1.06),
        (0.0, 1.0, 1.0),
        (-0.1, 1.0, 1.0),  # better than before: values are not made smaller
        (0.9, 1.0, 1.25),
        (0.06, -1.0, 1.0),  # larger values do not help
    ],
)
def test_the_gain_is_the_one_that_brings_answers_back(lost: float, won_by_all: float, gain: float) -> None:
    def nll(books: Sequence[Codebook | None]) -> list[float]:
        return [3.0 if book is None else 3.0 + lost - won_by_all * (book.value_gain - 1) for book in books]

    assert find_value_gains([replace(a_codebook(), value_gain=1.0)], nll) == [pytest.approx(gain)]
