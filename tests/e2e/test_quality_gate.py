"""The shipped checkpoint, plan and codec answer no worse than recorded, on the slice that CI has time for."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from model.directory import AUTO, NONE, PACKAGE, locate_adapter
from services.evaluation.gate import main
from tests.helpers.real_model import real_model_directory

pytestmark = [pytest.mark.weights, pytest.mark.slow]


def test_the_shipped_checkpoint_holds_its_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    # The defaults of the settings, but for the conversion that other tests have made already.
    monkeypatch.setenv("MEMORY3_EVALUATION_MODEL", str(real_model_directory()))
    adapter = locate_adapter(AUTO, PACKAGE)
    monkeypatch.setenv("MEMORY3_EVALUATION_ADAPTER", NONE if adapter is None else str(adapter))
    result = CliRunner().invoke(main, ["--slice", "ci"])
    assert result.exit_code == 0, result.output
