"""Items that are looked at together, and what is seen of them."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.token_choice import facts, seen
from services.evaluation.config import EvaluationSettings
from services.evaluation.loading import Choices, check, load
from tests.helpers.tiny_model import tiny_model_directory, tiny_plan


def test_facts_of_a_kind_share_their_references() -> None:
    groups = facts(120)
    assert groups
    for group in groups:
        assert len(group) == 5
        assert len({item.kind for item in group}) == 1
        golds = {item.references[item.gold[0]] for item in group}
        assert all(set(item.references) <= golds for item in group)


def test_all_tokens_of_all_references_are_seen(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(tiny_plan(max_reference_tokens=32, tokens_per_memory=3).to_json())
    settings = EvaluationSettings(model=str(tiny_model_directory(tmp_path / "model")), adapter="none", dtype="float32")
    checkpoint = load(settings, check(settings, Choices(plan=str(tmp_path / "plan.json"))))
    groups = facts(120)[:2]
    needs = seen(checkpoint, "facts", groups)
    assert len(needs.lengths) == len({text for group in groups for item in group for text in item.references})
    assert set(needs.lengths) == {32}  # bytes, cut
    assert needs.plain_LNF.shape[1] == needs.needs_LKN.shape[2] == sum(needs.lengths)
    assert bool(needs.needs_LKN.isfinite().all())
    assert torch.count_nonzero(needs.needs_LKN) > 0.9 * needs.needs_LKN.numel()
