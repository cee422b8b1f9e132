"""How pages are given out by shares, and what the shares are of."""

from dataclasses import replace

import numpy as np
import pytest

from bench.page_choice import pages_by, shares
from model.memory.writer import MemoryWriter
from model.prefix import encode_prefix
from services.datasets.item import Passage
from services.evaluation.config import EvaluationSettings
from services.evaluation.loading import Choices, check, load
from tests.helpers.tiny_model import tiny_model_directory, tiny_plan


def test_pages_follow_shares():
    pages = pages_by(np.array([[0.5, 0.26], [0.24, 0.0]]))
    assert pages == ((2, 1), (1, 0))
    assert pages_by(np.full((3, 2), 1 / 6)) == ((1, 1), (1, 1), (1, 1))


def test_every_head_may_have_some_and_the_rest_goes_by_share():
    shares_LK = np.array([[0.85, 0.05], [0.05, 0.05]])
    assert pages_by(shares_LK) == ((4, 0), (0, 0))
    assert pages_by(shares_LK, each=1) == ((5, 1), (1, 1))
    assert pages_by(shares_LK, each=1, by_share=2) == ((9, 1), (1, 1))


@pytest.mark.parametrize("seen", [0, 5])
def test_shares_are_of_the_tokens_that_heads_score_highest(tmp_path, seen):
    """The same count, from memories that keep all their tokens of one head after the other."""
    plan = tiny_plan(selection="value_norm", tokens_per_memory=3, prefix="", preceding_tokens=seen)
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    settings = EvaluationSettings(model=str(tiny_model_directory(tmp_path / "model")), adapter="none", dtype="float32")
    checkpoint = load(settings, check(settings, Choices(plan=str(path))))
    text, before = "seven tokens", "stands before"
    shares_LK = shares(checkpoint, [Passage(text, before)])
    assert shares_LK.sum() == 1
    every = replace(plan, tokens_per_memory=len(text))
    writer = MemoryWriter(checkpoint.transformer, every, encode_prefix(checkpoint.transformer, []))
    (memory,) = writer.write([checkpoint.tokenizer.encode(text)], preceding=[checkpoint.tokenizer.encode(before)])
    length_LKT = memory.v_LKSD.norm(dim=-1)
    least = length_LKT.flatten().sort(descending=True).values[3 * 4 - 1]
    np.testing.assert_allclose(shares_LK, (length_LKT >= least).sum(dim=-1) / 12)
