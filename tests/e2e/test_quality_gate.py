"""The shipped checkpoint, plan and codec answer no worse than recorded, on the slice that CI has time for."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from services.evaluation.gate import main
from tests.helpers.real_model import real_model_directory

pytestmark = [pytest.mark.weights, pytest.mark.slow]


def test_the_shipped_checkpoint_holds_its_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY3_EVALUATION_MODEL", str(real_model_directory()))
    result = CliRunner().invoke(main, ["--slice", "ci"])
    assert result.exit_code == 0, result.output
