"""A whole ablation on the tiny model: what is measured, what a stopped run goes on with, and the page."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.ablation.chart import draw
from bench.ablation.measure import Ablation, Model, picked
from bench.ablation.page import page, points
from bench.ablation.results import Cell, Results, Subject, closed
from bench.ablation.variations import Variation, axes
from model.context import ContextOpening
from model.memory.writer import MemoryWriter
from model.runner import ModelRunner
from model.scoring import AnswerScorer, ForcedAnswer
from model.tokenizer import Tokenizer
from services.datasets.item import Item
from tests.helpers.tiny_model import tiny_model_directory, tiny_plan, tiny_transformer

PLAN = tiny_plan(memory_layers=(2, 3), memories_per_chunk=2)
SUBJECT = Subject("untrained", "weights", PLAN.to_json(), 4, items=3, seed=7, heading="today, a machine")
VALUES = [value for name in ("layers", "memories", "preceding", "gap", "sink") for value in axes(PLAN, 4)[name]]


def items(count: int = 3) -> list[Item]:
    source = random.Random(5)

    def text(length: int) -> str:
        return "".join(source.choices("abcdefgh ", k=length))

    return [
        Item(
            item_id=str(index),
            kind="noise",
            prompt=text(20),
            answer=" " + text(3 + index),
            references=tuple(text(30 + index) for _ in range(10)),
            gold=(4,),
            wrong_references=tuple(text(25) for _ in range(10)),
            accepted=(),
            preceding=tuple(text(40 + index) for _ in range(10)),
            wrong_preceding=tuple(text(40) for _ in range(10)),
        )
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tiny_transformer(), Tokenizer.load(tiny_model_directory(tmp_path_factory.mktemp("model"))))


def ablation(model: Model, results: Results, done: list[str]) -> Ablation:
    results.add(SUBJECT)
    return Ablation(
        model, PLAN, items(), results=results, subject=SUBJECT, set_name="noise", done=done.append
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Results:
    results, done = Results(tmp_path_factory.mktemp("results") / "ablation.jsonl"), list[str]()
    ablation(model, results, done).run([value.variation for value in VALUES])
    assert len(done) == len(set(done)) == len(results.cells)
    return results


@pytest.mark.parametrize("seen", [0, 32])
def test_a_cell_is_what_serving_reads(model: Model, measured: Results, seen: int) -> None:
    plan = replace(PLAN, preceding_tokens=seen)
    tokenizer, opening = model.tokenizer, ContextOpening(model.tokenizer, PLAN).tokens(reads_memories=True)
    prefix = tokenizer.encode_special(PLAN.prefix)
    runner = ModelRunner(model.transformer, plan, prefix_tokens=prefix, num_slots=1, max_context_tokens=64)
    writer = MemoryWriter(model.transformer, plan, runner.prefix)
    expected = []
    for item in items():
        read, before = (
            [tokenizer.encode(texts[index]) for index in (0, 4)] for texts in (item.references, item.preceding)
        )
        memories = tuple(writer.write(read, preceding=before))
        context = (*opening, *tokenizer.encode(item.prompt))
        answer = ForcedAnswer(context, tuple(tokenizer.encode(item.answer)), (memories,))
        nll = AnswerScorer(runner).score([answer])[0].nll
        expected.append(sum(nll) / len(nll))
    cell = measured.cell(SUBJECT, "noise", Variation(plan).key)
    assert cell is not None
    torch.testing.assert_close(torch.tensor(cell.nll), torch.tensor(expected), atol=1e-4, rtol=1e-4)


def test_no_two_values_read_the_same(measured: Results) -> None:
    """A variation that changed nothing would show as an equal cell."""
    keys = {value.variation.key for value in VALUES}
    assert len({measured.cells[SUBJECT.key, "noise", key].mean for key in keys}) == len(keys)
    baselines = [measured.cells[SUBJECT.key, "noise", key].mean for key in ("none", "rag", "memory-wrong")]
    assert len(set(baselines)) == 3


def test_a_stopped_run_measures_only_what_is_missing(model: Model, measured: Results, tmp_path: Path) -> None:
    file = tmp_path / "ablation.jsonl"
    lines = measured.path.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:6]) + lines[6][: len(lines[6]) // 2])  # killed while it wrote
    results, done = Results.read(file), list[str]()
    assert len(results.cells) == 5
    ablation(model, results, done).run([value.variation for value in VALUES])
    again = Results.read(file)
    assert again.cells.keys() == measured.cells.keys()
    assert len(done) == len(measured.cells) - 5
    for key, cell in again.cells.items():
        assert cell.nll == pytest.approx(measured.cells[key].nll, abs=1e-5)
    untouched = file.read_bytes()
    ablation(model, again, []).run([value.variation for value in VALUES])
    assert file.read_bytes() == untouched


def test_a_changed_set_is_measured_anew(model: Model, tmp_path: Path) -> None:
    results = Results(tmp_path / "ablation.jsonl")
    ablation(model, results, []).run([])
    before = dict(results.cells)
    changed = [replace(item, prompt=item.prompt + "x") for item in items()]
    Ablation(model, PLAN, changed, results=results, subject=SUBJECT, set_name="noise").run([])
    assert results.cells.keys() == before.keys()
    assert all(cell.nll != before[key].nll for key, cell in results.cells.items())
    stale = before[SUBJECT.key, "noise", Variation(PLAN).key]
    results.add(stale)
    assert results.cell(SUBJECT, "noise", stale.key) is None  # no longer the baseline's items


def test_the_page_and_its_picture(measured: Results, tmp_path: Path) -> None:
    text = page(measured, "images/ablation.png")
    assert "### Memory layers" in text
    assert "### Selection of tokens" not in text  # only the default is there
    assert "| **2-3** |" in text
    assert "| references as text |" in text
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|") and " ± " in line}
    assert columns == {4, 6}
    draw(measured, tmp_path / "images" / "ablation.png")
    assert (tmp_path / "images" / "ablation.png").stat().st_size > 10_000


def test_the_page_says_where_a_set_was_measured_if_not_with_the_first(measured: Results) -> None:
    assert "Of noise" not in page(measured, "images/ablation.png")
    results = Results.read(measured.path)
    moved = replace(next(iter(measured.cells.values())), heading="tomorrow, another machine")
    results.cells[moved.subject, moved.set_name, moved.key] = moved
    assert "Of noise: tomorrow, another machine." in page(results, "images/ablation.png")


def test_points_need_their_baselines(tmp_path: Path) -> None:
    results = Results(tmp_path / "a.jsonl")
    results.add(SUBJECT)
    results.add(Cell(SUBJECT.key, "noise", Variation(PLAN).key, [1.0, 2.0], [True, False]))
    assert points(results, SUBJECT, "noise", "layers") == []


def test_other_samples_and_weights_are_other_subjects() -> None:
    keys = {SUBJECT.key, replace(SUBJECT, weights="x").key, replace(SUBJECT, seed=8).key, replace(SUBJECT, items=4).key}
    assert len(keys) == 4
    assert replace(SUBJECT, heading="tomorrow").key == SUBJECT.key


class TestFigures:
    def cell(self, *nll: float) -> Cell:
        return Cell("", "", "", list(nll), [False] * len(nll))

    def test_paired_difference(self) -> None:
        assert self.cell(2, 4, 6).beyond(self.cell(1, 3, 5)) == (1, 0)
        mean, error = self.cell(2, 4).beyond(self.cell(1, 1))
        assert (mean, error) == (2, pytest.approx(1.0))

    def test_share_of_the_gap(self) -> None:
        none, rag = self.cell(4, 6), self.cell(2, 2)
        assert closed(rag, none, rag) == (1, 0)
        assert closed(none, none, rag) == (0, 0)
        share, error = closed(self.cell(3, 5), none, rag)
        assert share == pytest.approx(1 / 3)
        assert error == pytest.approx(1 / 9)  # residuals 1/3 and -1/3 of a gap of 3


def test_references_that_hold_the_answer_are_never_left_out() -> None:
    item = items(1)[0]
    assert picked(item, 1) == (item.passages[4],)
    assert picked(item, 3) == (item.passages[0], item.passages[1], item.passages[4])
    assert picked(item, 10) == item.passages
    text = replace(item, gold=tuple(range(10)))
    assert picked(text, 2) == item.passages[8:]  # what stands directly before
