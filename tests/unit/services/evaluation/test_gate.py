"""The gate passes what it recorded, fails what is worse, and refuses to compare other items."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from services.evaluation import gate
from services.evaluation.floors import FLOORS, SLICES, Check, Slice, items_digest
from services.evaluation.modes import Mode
from tests.helpers.tiny_model import tiny_model_directory, tiny_plan
from tests.unit.services.evaluation.fakes import item

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gate")
    tiny_model_directory(folder / "model")
    (folder / "plan.json").write_text(tiny_plan(max_reference_tokens=32).to_json())
    return folder


@pytest.fixture
def floors(tmp_path: Path) -> Path:
    return tmp_path / "floors.json"


@pytest.fixture
def run(folder: Path, floors: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    small = {"ci": (Slice("fiction", 3, 1, (Mode.NONE, Mode.RAG, Mode.MEMORY, Mode.MEMORY_WRONG)),)}
    monkeypatch.setattr(gate, "SLICES", small)
    monkeypatch.setenv("MEMORY3_EVALUATION_MODEL", str(folder / "model"))
    monkeypatch.setenv("MEMORY3_EVALUATION_PLAN", str(folder / "plan.json"))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(gate.main, ["--slice", "ci", "--floors", str(floors), *arguments])

    return run


def change(floors: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(floors.read_text())
    edit(content["slices"]["ci"]["fiction"])
    floors.write_text(json.dumps(content))


def test_what_was_recorded_holds(run: Run) -> None:
    assert "recorded fiction of the slice ci" in run("--record").output
    result = run()
    assert result.exit_code == 0, result.output
    assert "figures hold" in result.output


def test_it_measures_in_float32_whatever_the_settings_say(
    run: Run, floors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY3_EVALUATION_DTYPE", "bfloat16")
    run("--record")
    assert json.loads(floors.read_text())["slices"]["ci"]["fiction"]["recorded_on"]["dtype"] == "float32"


def test_a_worse_figure_fails(run: Run, floors: Path) -> None:
    run("--record")
    change(floors, lambda part: part["floors"]["memory"].update(nll=0.001))
    result = run()
    assert result.exit_code == 1
    assert "1 of " in result.output
    assert "worse than recorded" in result.output


def test_other_items_are_not_compared(run: Run, floors: Path) -> None:
    run("--record")
    change(floors, lambda part: part.update(items_digest="0" * 16))
    result = run()
    assert result.exit_code == 1
    assert "record new ones with --record" in result.output


def test_one_set_is_recorded_alone(run: Run, floors: Path) -> None:
    floors.write_text(json.dumps({"slices": {"ci": {"halueval": {"floors": {}}}}}))
    assert run("--record", "--set", "fiction").exit_code == 0
    recorded = json.loads(floors.read_text())["slices"]["ci"]
    assert recorded["halueval"] == {"floors": {}}
    assert recorded["fiction"]["recorded_on"]["dtype"] == "float32"
    result = run("--set", "novels")
    assert result.exit_code == 2
    assert "its sets: fiction" in result.output


def test_without_floors_it_says_how_to_record_them(run: Run) -> None:
    result = run()
    assert result.exit_code == 1
    assert "record some with --record" in result.output


@pytest.mark.parametrize(
    ("figure", "value", "limit", "holds"),
    [
        ("nll", 1.0, 1.1, True),
        ("nll", 1.2, 1.1, False),
        ("gap_closed", 0.8, 0.7, True),
        ("gap_closed", 0.6, 0.7, False),
        ("gap_closed", None, 0.7, False),
    ],
)
def test_a_share_must_be_high_and_an_nll_low(figure: str, value: float | None, limit: float, holds: bool) -> None:
    assert Check("fiction", "memory", figure, value, limit).holds is holds


@pytest.mark.parametrize(("value", "holds"), [(0.0, True), (0.2, False)])
def test_wrong_memories_must_not_help(value: float, holds: bool) -> None:
    assert Check("fiction", "memory-wrong", "gap_closed", value, 0.1).holds is holds


def test_the_shipped_floors_cover_the_slices() -> None:
    recorded = json.loads(FLOORS.read_text())["slices"]
    for name, parts in recorded.items():
        assert set(parts) == {part.set for part in SLICES[name]}


def test_the_digest_is_of_all_that_is_asked_and_what_precedes_it() -> None:
    known = items_digest([item()])
    assert known == "627e59f8c9f64bd4", "every recorded floor is of other items now"
    others = [
        item(prompt="Why?"),
        item(preceding=("", "a", "b", "c", "d")),
        item(wrong_preceding=("", "a", "b", "c", "d")),
    ]
    assert len({known, *(items_digest([one]) for one in others)}) == 4
