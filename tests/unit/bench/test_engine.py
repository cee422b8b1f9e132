"""The engine bench on the tiny model: every arm generates what it was asked for, and only `memory` reads memories."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pytest

from bench.engine import Bench, prepare
from model.runner import PrefillItem, StepOutput
from tests.helpers.tiny_model import random_memories, tiny_config, tiny_plan, tiny_runner

SEQUENCES, PROMPT, OUTPUT = 2, 70, 9


@pytest.mark.parametrize("arm", ["none", "rag", "memory"])
def test_an_arm_generates_all_its_tokens(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = tiny_runner(max_context_tokens=832)
    read: list[int] = []
    decoded: list[int] = []
    prefill, decode = runner.prefill, runner.decode

    def noted(items: Sequence[PrefillItem], *, report_attention: bool = False) -> StepOutput:
        read.extend(len(chunk) for item in items for chunk in item.chunk_memories)
        return prefill(items, report_attention=report_attention)

    def counted(slots: Sequence[int], tokens: Sequence[int], *, report_attention: bool = False) -> StepOutput:
        decoded.extend(tokens)
        return decode(slots, tokens, report_attention=report_attention)

    monkeypatch.setattr(runner, "prefill", noted)
    monkeypatch.setattr(runner, "decode", counted)
    bench = Bench(runner, random_memories(runner, 8), PROMPT, OUTPUT)
    first_ms, tokens_per_s, whole_ms = bench.run(arm, SEQUENCES)
    assert 0 < first_ms < whole_ms
    assert tokens_per_s > 0
    # Prefill gives the first token of each; the last one is not run any more.
    assert len(decoded) == SEQUENCES * (OUTPUT - 1)
    assert (arm == "memory") == any(read)


def test_a_plan_with_a_token_scorer_is_measured_on_random_weights() -> None:
    options = argparse.Namespace(device="cpu", dtype="float32", prompt=8, output=4, sequences=[1], memories=2)
    plan = tiny_plan(selection="trained", token_scorer="ab12", memories_per_chunk=1)
    assert prepare(tiny_config(), plan, options).run("memory", 1)[1] > 0
