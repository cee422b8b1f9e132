"""Schedule, losses, batches and adapters in training."""

from __future__ import annotations

import pytest
import torch

from model.training import losses
from model.training.batch import Context
from model.training.lora import add_adapter
from model.training.schedule import warmup_stable_decay
from model.training.step import TrainingStep
from tests.helpers.tiny_model import PREFIX_TOKENS, tiny_plan, tiny_transformer


def test_the_schedule_rises_stays_and_falls() -> None:
    rates = [warmup_stable_decay(step, steps=20, warmup_steps=4, decay_steps=5) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:15] == pytest.approx([1.0] * 11)
    assert rates[15:] == pytest.approx([5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_a_schedule_without_ends_is_flat() -> None:
    assert {warmup_stable_decay(step, steps=3, warmup_steps=0, decay_steps=0) for step in range(3)} == {1.0}


def test_losses_in_blocks_equal_losses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    head_VC = torch.randn(30, 8, generator=generator)
    hidden_JC, teacher_JC = torch.randn(2, 7, 8, generator=generator)
    targets_J = torch.arange(7)
    results = []
    for rows in (100, 3):
        monkeypatch.setattr(losses, "ROWS_AT_ONCE", rows)
        leaf_JC = hidden_JC.clone().requires_grad_()
        teacher = (lambda hidden_JC: hidden_JC @ head_VC.T, teacher_JC)
        cross_entropy_J, kl_J = losses.losses_of_hidden(teacher[0], leaf_JC, targets_J, teacher)
        (cross_entropy_J + kl_J).sum().backward()
        results.append((cross_entropy_J.detach(), kl_J.detach(), leaf_JC.grad))
    for at_once, in_blocks in zip(*results, strict=True):
        torch.testing.assert_close(at_once, in_blocks)
    log_p_JV = (hidden_JC @ head_VC.T).log_softmax(-1)
    q_JV = (teacher_JC @ head_VC.T).softmax(-1)
    expected_J = (q_JV * (q_JV.log() - log_p_JV)).sum(-1)
    torch.testing.assert_close(results[0][1], expected_J)
    torch.testing.assert_close(results[0][0], -log_p_JV.diagonal())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_scored": 0}, "0 scored tokens"),
        ({"num_scored": 3}, "3 scored tokens in a context of 3"),
        ({"distillation": 1.0}, "no teacher context"),
        ({"teacher_tokens": (1, 2)}, "other tokens"),
    ],
)
def test_a_context_that_contradicts_itself_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Context(**({"tokens": (1, 2, 3), "num_scored": 1} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"), [({"rank": 0}, "rank is 0"), ({"targets": ("q_proj", "head")}, r"targets are \['q_proj'")]
)
def test_an_impossible_adapter_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        add_adapter(tiny_transformer(), **({"rank": 2, "alpha": 4.0} | options))  # type: ignore[arg-type]


def test_a_fresh_adapter_changes_nothing_and_trains_only_itself() -> None:
    transformer = tiny_transformer()
    hidden_TC = torch.randn(3, transformer.config.hidden_dim)
    before = transformer.layers[1].project(hidden_TC)
    add_adapter(transformer, rank=2, alpha=4)
    assert torch.equal(transformer.layers[1].project(hidden_TC), before)
    trained = {name for name, value in transformer.named_parameters() if value.requires_grad}
    assert trained
    assert all(".updates." in name for name in trained)


def test_a_plan_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="layer 7"):
        TrainingStep(tiny_transformer(), tiny_plan(memory_layers=(1, 7)), PREFIX_TOKENS)
