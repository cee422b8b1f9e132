"""Arms that were run are found again, and no others; the page's figures follow from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.warmup_effect import ARMS, Finished, Options, Result, difference, verdict

OPTIONS = Options(
    steps=4,
    seeds=3,
    items=1,
    length=64,
    documents=10,
    held_out=2,
    warmup_share=0.5,
    learning_rate=1e-3,
    vocab_size=300,
)


def result(arm: str, seed: int, memory: float) -> Result:
    return Result(arm, seed, [(1, 5.0), (2, 4.5)], memory=memory, none=4.0, seconds=1.0)


def test_a_stopped_run_finds_its_arms_again(tmp_path: Path) -> None:
    file = tmp_path / "results" / "arms.jsonl"
    Finished(file, OPTIONS).add(result("from start", 1, 3.9))
    again = Finished(file, replace(OPTIONS, seeds=5))
    found = again.get("from start", 1)
    assert found is not None
    assert (found.memory, [tuple(point) for point in found.curve]) == (3.9, [(1, 5.0), (2, 4.5)])
    assert again.get("from start", 2) is None
    assert again.get("none", 1) is None


def test_arms_of_other_options_are_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "arms.jsonl"
    Finished(file, OPTIONS).add(result("from start", 1, 3.9))
    assert Finished(file, replace(OPTIONS, steps=5)).get("from start", 1) is None


def test_arms_are_compared_as_they_were_trained() -> None:
    results = [result(arm, seed, 3.0 + 0.1 * seed) for seed in range(3) for arm in ARMS]
    # "none" is measured without memories (4.0), the others with them (3.0, 3.1, 3.2).
    mean, error = difference(results, "from start", "none")
    assert mean == pytest.approx(-0.9)
    assert error == pytest.approx(0.1 / 3**0.5)
    assert any(
        "*from start* against *none*: -0.9000 ± 0.0577 nats per token: better." in line for line in verdict(results)
    )
