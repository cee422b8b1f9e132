"""An evaluation's own retrieval tier: a real child, its knowledge base ingested once and found again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from memory3.errors import UnknownBankError
from memory3.security import PLAIN
from services.datasets.item import BaseDocument, KnowledgeBase, Passage
from services.evaluation.core import EvaluationError
from services.evaluation.own_retrieval import own_retrieval
from services.evaluation.retrieved import RetrievedReferences
from tests.helpers.tiny_model import tiny_model_directory

HARBOUR = "The harbour of Holm has no light at all, and ships wait there for the morning before they come in to land."
KEEPER = "Its keeper sings at dawn."
BASE = KnowledgeBase(
    "lighthouses",
    [
        BaseDocument("varnholm", "Varnholm", "The lighthouse of Varnholm was built by Ida Brekke."),
        BaseDocument("holm", "Holm", f"{HARBOUR} {KEEPER}"),
    ],
)


def test_the_whole_base_is_found_and_indexed_once(tmp_path: Path) -> None:
    model = tiny_model_directory(tmp_path / "model")
    environment = {**os.environ, "MEMORY3_RETRIEVAL_EMBEDDER": "hash"}
    said: list[str] = []
    for _ in range(2):
        with own_retrieval(
            BASE, environment=environment, data_dir=tmp_path / "data", model=model, start_seconds=60, say=said.append
        ) as address:
            with RetrievedReferences(address, BASE.name, 2, timeout_s=10, security=PLAIN) as source:
                found, nothing = source.find(["the lighthouse of Varnholm built by Ida", "  "])
                assert found[0] == Passage(BASE.documents[0].text)
                assert len(found) == 2
                assert source.find(["keeper sings at dawn"])[0][0] == Passage(KEEPER, HARBOUR)
                assert nothing == ()
            with RetrievedReferences(address, "elsewhere", 2, timeout_s=10, security=PLAIN) as source:
                with pytest.raises(UnknownBankError):
                    source.find(["lighthouse"])
    assert "indexing 2 documents of lighthouses" in said[0]


def test_a_base_that_cannot_be_ingested_says_why(tmp_path: Path) -> None:
    model, data_dir = tiny_model_directory(tmp_path / "model"), tmp_path / "data"
    environment = {**os.environ, "MEMORY3_RETRIEVAL_EMBEDDER": "hash"}
    with own_retrieval(BASE, environment=environment, data_dir=data_dir, model=model, start_seconds=60, say=print):
        pass
    # The index of before, whose bank another embedder made, and nothing noted of it.
    shutil.rmtree(data_dir / "ingest")
    environment["MEMORY3_RETRIEVAL_HASH_DIMENSION"] = "64"
    with pytest.raises(EvaluationError, match=r"(?s)was not ingested \(exit code 1\).*Ingest said:.*embedded by"):
        with own_retrieval(BASE, environment=environment, data_dir=data_dir, model=model, start_seconds=60, say=print):
            pytest.fail("it was served")


def test_a_tier_that_cannot_start_says_why(tmp_path: Path) -> None:
    environment = {**os.environ, "MEMORY3_RETRIEVAL_EMBEDDER": "clairvoyance"}
    with pytest.raises(EvaluationError, match=r"(?s)exit code 2.*MEMORY3_RETRIEVAL_EMBEDDER"):
        with own_retrieval(
            BASE, environment=environment, data_dir=tmp_path / "data", model=tmp_path, start_seconds=60, say=print
        ):
            pass
