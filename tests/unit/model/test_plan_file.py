"""A memory plan by name or path, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.plan_file import read_plan
from model.presets import memory_plan


def test_a_preset_and_a_file(tmp_path: Path) -> None:
    plan = memory_plan("paper")
    file = tmp_path / "plan.json"
    file.write_text(plan.to_json())
    assert read_plan("paper") == read_plan(str(file)) == plan


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"plan\.json cannot be read \(No such file.*give a preset or a JSON file"),
        ("{", r"plan\.json: Expecting"),
        ("[]", r"plan\.json: a memory plan is a JSON object, not list"),
        ('{"layers": 3}', r"plan\.json: memory plan has unknown fields \['layers'\]"),
    ],
)
def test_a_file_that_is_no_plan(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "plan.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_plan(str(file))


def test_an_unknown_preset() -> None:
    with pytest.raises(ValueError, match="no memory plan is called 'papre'; choose one of paper,"):
        read_plan("papre")
