"""The engine bench on the tiny model: every arm generates what it was asked for, and only `memory` reads memories."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from bench.engine import ARMS, Bench, random_transformer
from model.runner import PrefillItem, StepOutput
from tests.helpers.tiny_model import random_memories, tiny_config, tiny_runner

SEQUENCES, PROMPT, OUTPUT = 2, 70, 9


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_generates_all_its_tokens(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = tiny_runner(max_context_tokens=832)
    read: list[int] = []
    prefill = runner.prefill

    def noted(items: Sequence[PrefillItem], *, report_attention: bool = False) -> StepOutput:
        read.extend(len(chunk) for item in items for chunk in item.chunk_memories)
        return prefill(items, report_attention=report_attention)

    monkeypatch.setattr(runner, "prefill", noted)
    bench = Bench(runner, random_memories(runner, 8), PROMPT, OUTPUT)
    first_ms, tokens_per_s, whole_ms = bench.run(arm, SEQUENCES)
    assert 0 < first_ms < whole_ms
    # All but the first token of each come within the time after the first ones, or earlier.
    assert 0 < tokens_per_s <= SEQUENCES * OUTPUT / ((whole_ms - first_ms) / 1e3) * 1.01
    assert (arm == "memory") == any(read)


def test_random_weights_are_finite_and_drawn() -> None:
    transformer = random_transformer(tiny_config(), torch.float32, "cpu")
    values = [parameter.flatten() for name, parameter in transformer.named_parameters() if "norm" not in name]
    assert all(bool(value.isfinite().all()) and float(value.std()) > 0.01 for value in values)
