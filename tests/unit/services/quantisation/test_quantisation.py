"""Texts to a codebook: which references are taken, what is refused, and the whole command on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from model.checkpoint import read_config, weights_digest
from model.codec.codebook import Codebook, CodebookError, CodebookOrigin
from model.codec.resolve import codebook_origin, find_codebook, resolve_chain
from model.quantisation.sensitivity import Sensitivity
from model.training.batch import Batch
from services.datasets import registry, wikipedia
from services.quantisation import __main__ as command
from services.quantisation import measured_model
from services.quantisation.config import QuantisationSettings
from services.quantisation.core import QuantisationError, train_codebooks
from services.quantisation.exercises import QUESTION_SETS, USES, Exercise, Task, exercises
from services.quantisation.measured_model import MeasuredModel
from services.quantisation.ports import Progress
from tests.helpers.tiny_model import PREFIX_TOKENS, tiny_model_directory, tiny_plan


class FakeModel:
    """Vectors are noise."""

    origin = CodebookOrigin("a" * 64, (0,), 10_000.0, 1)
    head_dim = 4
    memories_per_chunk = 2

    def __init__(self) -> None:
        self.measured = 0

    def measure(self, exercises: Sequence[Exercise], progress: Progress) -> Sensitivity:
        self.measured += 1
        rng = np.random.default_rng(0)
        num_references = sum(len(exercise.references) for exercise in exercises)
        progress(num_references)
        vectors = rng.standard_normal((1, 1, 20 * num_references, 8)).astype(np.float32)
        return Sensitivity(vectors, np.ones((1, 1, 8, 8), np.float32), float(num_references))

    def nll(
        self, exercises: Sequence[Exercise], codebooks: Sequence[Codebook | None], progress: Progress
    ) -> list[float]:
        """A codec costs something, and a twelfth more brings it back."""
        progress(sum(len(exercise.references) for exercise in exercises))
        return [2.0 if book is None else 2.12 - (book.value_gain - 1) * 1.5 for book in codebooks]


EXERCISE = Exercise(("one", "two"), (Task("", "one"), Task("Which?", " two")))


def test_all_uses_are_measured_and_told_of_together() -> None:
    told: list[tuple[int, int]] = []
    uses = {"said": [EXERCISE], "asked": [EXERCISE, EXERCISE]}
    trained = train_codebooks(FakeModel(), uses, [1, 2], lambda done, total: told.append((done, total)))
    assert told == [(2, 12), (6, 12), (8, 12), (12, 12)]
    assert [one.codebook.bytes_per_vector for one in trained.fitted] == [1, 2]
    assert [one.codebook.value_gain for one in trained.fitted] == pytest.approx([1.08, 1.08])
    assert trained.fitted[1].lost_share < trained.fitted[0].lost_share
    assert (trained.num_tokens, trained.nll) == (120, {"said": 2.0, "asked": 4.0})


@pytest.mark.parametrize(
    ("uses", "num_bytes", "words"),
    [({"said": [EXERCISE], "asked": []}, 1, "no exercise of asked; ask for at least 2 items"),
     ({"said": [EXERCISE]}, 4.5, "4.5 bytes a vector; a vector of 4 numbers takes at most 4"),
     ({"said": [EXERCISE]}, 0.01, "no codebook of 0.01 bytes")],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(uses: dict[str, list[Exercise]], num_bytes: float, words: str) -> None:
    model = FakeModel()
    with pytest.raises(QuantisationError, match=words):
        train_codebooks(model, uses, [0.5, num_bytes], lambda done, total: None)
    assert model.measured == (num_bytes < 1), "work was done before a bad argument was refused"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A model directory and a plan that stores memories by trellis."""
    directory = tiny_model_directory(tmp_path / "tiny")
    plan = tmp_path / "plan.json"
    plan.write_text(tiny_plan(codec=("trellis",)).to_json())

    def few(use: str, items: int, references: int, seed: int) -> list[Exercise]:
        texts = [f"Reference {number} of seed {seed} says {number * 7919}." for number in range(items)]
        return [
            Exercise((text,) * references, (Task("" if use == "recital" else "What does it say?", text),))
            for text in texts[references - 1 :: references]
        ]

    monkeypatch.setattr(command, "exercises", few)
    return directory, plan


def test_the_command_writes_a_codebook_that_fits_its_model_alone(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    directory, plan_file = tiny
    arguments = ["--model", str(directory), "--plan", str(plan_file), "--bytes", "4", "--out", str(tmp_path)]
    result = CliRunner().invoke(command.main, [*arguments, "--items", "10", "--json"])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    (book,) = report["codebooks"]
    plan, config = tiny_plan(codec=("trellis",)), read_config(directory)
    codebook = find_codebook(plan, "", tmp_path)
    assert codebook == Codebook.load(book["file"])
    assert codebook is not None
    assert (book["codebook"], book["bytes_per_vector"]) == (codebook.identity, 4)
    assert report["tokens"] == len(USES) * 10 * plan.tokens_per_memory
    assert set(report["nll"]) == set(USES)
    assert book["value_gain"] == codebook.value_gain
    weights = weights_digest(directory)
    origin = codebook_origin(plan, config, weights=weights, num_prefix_tokens=len(PREFIX_TOKENS))
    chain = resolve_chain(plan, config, origin, codebook)
    assert chain.describe()[0] == {"name": "trellis", "codebook": codebook.identity}
    for other in (replace(origin, weights=weights + "+adapter"), replace(origin, memory_layers=(1, 2))):
        with pytest.raises(CodebookError, match="train one for them"):
            resolve_chain(plan, config, other, codebook)


def test_several_sizes_are_a_file_each_and_the_same_as_alone(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    directory, plan = tiny
    arguments = ["--model", str(directory), "--plan", str(plan), "--items", "10", "--out", str(tmp_path)]
    result = CliRunner().invoke(command.main, [*arguments, "--bytes", "4,2.5"])
    assert result.exit_code == 0, result.stderr
    assert f"in {tmp_path / 'codebook-2.5.safetensors'}" in result.stdout
    assert CliRunner().invoke(command.main, [*arguments, "--bytes", "2.5"]).exit_code == 0
    alone, beside = (Codebook.load(tmp_path / f"codebook{size}.safetensors") for size in ("", "-2.5"))
    assert alone.identity == beside.identity
    assert Codebook.load(tmp_path / "codebook-4.safetensors").bytes_per_vector == 4


@pytest.mark.parametrize("sizes", ["", "x", "4,", "0", "-1", "nan", "inf", "4,4.0"])
def test_what_is_no_size_is_refused(sizes: str) -> None:
    result = CliRunner().invoke(command.main, ["--bytes", sizes])
    assert result.exit_code == 2
    assert "give one or more different numbers above 0" in " ".join(result.stderr.replace("│", " ").split())


def test_texts_are_said_again_within_one_chunk_and_questions_answered_in_as_many_as_they_need(
    tiny: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Batch] = []

    def measure(*arguments: Any) -> str:
        seen.extend(arguments[3])
        return "measured"

    monkeypatch.setattr(measured_model, "measure_sensitivity", measure)
    settings = QuantisationSettings(model=str(tiny[0]), adapter="none", batch_size=10)
    model = MeasuredModel(settings, str(tiny[1]), None)
    said = Exercise(("a" * 200, "b", "c", "d", "e"), (Task("", "a" * 200),))
    asked = Exercise(("f", "g", "h", "i", "j"), (Task("What? " * 20, " f"), Task("Which?", " g")))
    assert model.measure([said, asked, said], lambda done: None) == "measured"
    assert [len(batch.references) for batch in seen] == [10, 5]
    assert len(seen[0].references[0]) == 128
    again, first, second = seen[0].contexts
    opening = len("\n\n")  # a token a letter
    assert (len(again.tokens), again.num_scored) == (64, 64 - opening - 2)
    assert again.chunk_references == ((0, 1, 2, 3, 4),)
    assert (len(first.tokens), first.num_scored) == (opening + 120 + 2, 2)
    assert first.chunk_references == ((5, 6, 7, 8, 9),) * 2
    assert second.chunk_references == ((5, 6, 7, 8, 9),)


def test_the_command_says_in_one_line_what_is_wrong(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    directory, _ = tiny
    for arguments, words in (
        (["--out", str(tmp_path / "no" / "folder.safetensors")], "is no folder"),
        (["--bytes", "4,2", "--out", str(tmp_path / "file.safetensors")], "2 sizes are a file each; give a folder"),
        (["--plan", "paper"], "layers within the model"),
        (["--plan", str(tiny[1]), "--items", "1"], "no exercise of recital, fiction, halueval"),
    ):
        result = CliRunner().invoke(command.main, ["--model", str(directory), *arguments])
        assert result.exit_code == 1
        assert words in result.stderr
        assert result.stderr.startswith("error: ")
        assert result.stdout == ""


def test_texts_to_say_again_are_leads_and_invented_facts_in_turn() -> None:
    facts = registry.load("fiction", split="train", items=10, seed=5)
    said = exercises("recital", 10, 2, 5)
    assert [len(exercise.references) for exercise in said] == [2] * 5
    assert all(exercise.tasks == tuple(Task("", text) for text in exercise.references) for exercise in said)
    texts = [text for exercise in said for text in exercise.references]
    assert texts[1::2] == [item.references[item.gold[0]] for item in facts[:5]]
    leads = {document.text[:20] for document in wikipedia.leads() if wikipedia.split_of_lead(document) == "train"}
    assert all(text[:20] in leads for text in texts[::2])


@pytest.mark.parametrize("use", QUESTION_SETS)
def test_questions_are_of_the_training_split_and_each_finds_its_answer_among_the_references(use: str) -> None:
    items = {item.prompt: item for item in registry.load(use, split="train", items=23, seed=5)}
    asked = exercises(use, 23, 5, 5)
    assert len(asked) == 4  # 23 items give four times five, and three are left
    for exercise in asked:
        assert len(set(exercise.references)) == 5
        for text, task in zip(exercise.references, exercise.tasks, strict=True):
            item = items[task.prompt]
            assert (item.references[item.gold[0]], item.answer) == (text, task.answer)
    assert asked == exercises(use, 23, 5, 5)


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
