"""Settings: defaults, environment, documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.common.config import load
from services.retrieval.config import RetrievalSettings

README = Path(__file__).parents[4] / "services" / "retrieval" / "README.md"


def test_defaults_are_an_embedded_index_below_the_data_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    settings = RetrievalSettings()
    assert settings.milvus_uri == "/data/memory3/milvus.db"
    assert (settings.port, settings.index, settings.embedder) == (7301, "milvus", "sentence")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert RetrievalSettings().milvus_uri == "/home/somebody/.local/share/memory3/milvus.db"


def test_the_token_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY3_RETRIEVAL_MILVUS_TOKEN", "root:hidden")
    settings = RetrievalSettings()
    assert "hidden" not in repr(settings)
    assert settings.milvus_token.get_secret_value() == "root:hidden"


def test_all_bad_variables_are_named_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMORY3_RETRIEVAL_MAX_QUEUE_TEXTS", "8")
    monkeypatch.setenv("MEMORY3_RETRIEVAL_MILVUS_INDEX", "TREE")
    with pytest.raises(SystemExit):
        load(RetrievalSettings)
    printed = capsys.readouterr().err
    assert "MEMORY3_RETRIEVAL_MAX_QUEUE_TEXTS" in printed
    assert "MEMORY3_RETRIEVAL_MILVUS_INDEX" in printed


def test_the_readme_documents_every_setting() -> None:
    text = README.read_text()
    for name in RetrievalSettings.model_fields:
        assert f"`MEMORY3_RETRIEVAL_{name.upper()}`" in text, name
