"""Texts to a codebook: which references are taken, what is refused, and the whole command on a tiny model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from model.checkpoint import read_config, weights_digest
from model.codec.codebook import Codebook, CodebookError, CodebookOrigin
from model.codec.resolve import codebook_origin, find_codebook, resolve_chain
from model.quantisation.sensitivity import Sensitivity
from services.datasets import registry, wikipedia
from services.quantisation import __main__ as command
from services.quantisation.core import QuantisationError, Request, train_codebook
from services.quantisation.ports import Progress
from tests.helpers.tiny_model import PREFIX_TOKENS, tiny_model_directory, tiny_plan


class FakeModel:
    """A letter a token; vectors are noise."""

    origin = CodebookOrigin("a" * 64, (0,), 10_000.0, 1)
    tokens_per_memory = 3

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def measure(
        self, references: Sequence[Sequence[int]], num_recited: int, seed: int, progress: Progress
    ) -> Sensitivity:
        self.asked.append((len(references), num_recited))
        rng = np.random.default_rng(seed)
        vectors = rng.standard_normal((2, 1, 1, 40, 4)).astype(np.float32)
        return Sensitivity(vectors, np.ones((2, 1, 1, 4, 4), np.float32), 2.5)


def test_references_that_fill_no_memory_are_passed_over() -> None:
    model = FakeModel()
    texts = iter(["abcd", "abc", "abcde", "", "abcdef", "never read"])
    trained = train_codebook(model, texts, Request(1, 3, 2, 0), lambda done, total: None)
    assert model.asked == [(3, 2)]
    assert list(texts) == ["never read"]
    assert trained.fitted.codebook.bytes_per_vector == 1
    assert (trained.num_vectors, trained.nll) == (40, 2.5)


@pytest.mark.parametrize(
    ("request_", "words"),
    [(Request(1, 4, 2, 0), "1 references have more than 3 tokens, 4 are wanted"), (Request(9, 1, 1, 0), "9 bytes")],
)
def test_what_cannot_be_trained_is_refused(request_: Request, words: str) -> None:
    with pytest.raises(QuantisationError, match=words):
        train_codebook(FakeModel(), iter(["abcd", "abc"]), request_, lambda done, total: None)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A model directory and a plan that stores memories by trellis."""
    directory = tiny_model_directory(tmp_path / "tiny")
    plan = tmp_path / "plan.json"
    plan.write_text(tiny_plan(codec=("trellis",)).to_json())

    def texts(seed: int, facts: int) -> Iterator[str]:
        assert facts
        for number in range(20):
            yield f"Reference {number} of seed {seed} says {number * 7919}."

    monkeypatch.setattr(command, "reference_texts", texts)
    return directory, plan


def test_the_command_writes_a_codebook_that_fits_its_model_alone(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    directory, plan_file = tiny
    arguments = ["--model", str(directory), "--plan", str(plan_file), "--bytes", "4", "--out", str(tmp_path)]
    result = CliRunner().invoke(command.main, [*arguments, "--references", "8", "--recited", "8", "--json"])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    plan, config = tiny_plan(codec=("trellis",)), read_config(directory)
    codebook = find_codebook(plan, "", tmp_path)
    assert codebook == Codebook.load(report["file"])
    assert codebook is not None
    assert (report["codebook"], report["bytes_per_vector"]) == (codebook.identity, 4)
    assert report["vectors"] == 8 * plan.tokens_per_memory
    weights = weights_digest(directory)
    origin = codebook_origin(plan, config, weights=weights, num_prefix_tokens=len(PREFIX_TOKENS))
    chain = resolve_chain(plan, config, origin, codebook)
    assert chain.describe()[0] == {"name": "trellis", "codebook": codebook.identity}
    for other in (replace(origin, weights=weights + "+adapter"), replace(origin, memory_layers=(1, 2))):
        with pytest.raises(CodebookError, match="train one for them"):
            resolve_chain(plan, config, other, codebook)


def test_the_command_says_in_one_line_what_is_wrong(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    directory, _ = tiny
    for arguments, words in (
        (["--out", str(tmp_path / "no" / "folder.safetensors")], "is no folder"),
        (["--plan", "paper"], "layers within the model"),
        (["--plan", str(tiny[1]), "--references", "999"], "999 are wanted"),
    ):
        result = CliRunner().invoke(command.main, ["--model", str(directory), *arguments])
        assert result.exit_code == 1
        assert words in result.stderr
        assert result.stderr.startswith("error: ")
        assert result.stdout == ""


def test_texts_are_leads_and_invented_facts_in_turn() -> None:
    facts = registry.load("fiction", split="train", items=3, seed=5)
    texts = list(itertools.islice(command.reference_texts(5, 3), 9))
    assert texts[1:6:2] == [item.references[item.gold[0]] for item in facts]
    leads = {document.text[:20] for document in wikipedia.leads() if wikipedia.split_of_lead(document) == "train"}
    assert all(text[:20] in leads for text in (*texts[:6:2], *texts[6:]))


def test_help_teaches(tiny: tuple[Path, Path]) -> None:
    screen = CliRunner().invoke(command.main, ["--help"]).stdout
    assert "  memory3 quantise --adapter my-adapter/" in screen


def test_a_codebook_nobody_needs_or_nobody_gave_is_refused() -> None:
    with pytest.raises(CodebookError, match="stores memories as int8; name the codec 'trellis'"):
        find_codebook(tiny_plan(), "book.safetensors", None)
    with pytest.raises(CodebookError, match="no codebook is given; train one"):
        find_codebook(tiny_plan(codec=("trellis",)), "", None)
    with pytest.raises(CodebookError, match="is no codebook"):
        find_codebook(tiny_plan(codec=("trellis",)), "no-such-file", None)
    assert find_codebook(tiny_plan(), "", None) is None
