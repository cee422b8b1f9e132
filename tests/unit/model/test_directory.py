"""Which adapter a setting names."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import directory
from model.directory import AUTO, NONE, PACKAGE, SHIPPED_ADAPTER, locate_adapter


def test_the_shipped_one_goes_with_the_weights_package_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "SHIPPED_ADAPTER", tmp_path)
    assert locate_adapter(AUTO, PACKAGE) == tmp_path
    assert locate_adapter(AUTO, "/models/llama") is None
    assert locate_adapter(NONE, PACKAGE) is None
    assert locate_adapter("~/mine", "/models/llama") == Path.home() / "mine"


def test_it_lies_in_the_package() -> None:
    assert (SHIPPED_ADAPTER / "adapter_model.safetensors").is_file()
