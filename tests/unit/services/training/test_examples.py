"""An item asked as in a chat: the same question and answer, in the tokens that serving gives the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from memory3.types import GenerationRequest, Message, Mode
from model.chat import ChatTemplate
from model.tokenizer import Tokenizer
from services.datasets.item import Item
from services.decoder.prompt import PromptBuilder
from services.training.config import Losses
from services.training.examples import MODES, ExampleBuilder, batch_of
from services.training.examples import Mode as TrainingMode
from tests.helpers.tiny_model import tiny_model_directory, tiny_plan

ITEM = Item(
    item_id="1",
    kind="towers",
    prompt="Question: Who built it?\nAnswer: It was built by",
    answer=" Ada",
    references=("Ada built it.", "Bo did not."),
    gold=(0,),
    wrong_references=("Cy sings.",),
    accepted=("Ada",),
    question="Who built it?",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_directory(tmp_path_factory.mktemp("model"))


@pytest.fixture
def builder(model: Path) -> ExampleBuilder:
    tokenizer = Tokenizer.load(model)
    losses = Losses(memory_distillation=1.0, teacher_reads="gold")
    return ExampleBuilder(tokenizer, tiny_plan(), losses, ChatTemplate.load(model, tokenizer))


@pytest.mark.parametrize("mode", ["memory", "rag", "none"])
def test_a_chat_is_what_serving_makes_of_the_question(model: Path, builder: ExampleBuilder, mode: TrainingMode) -> None:
    tokenizer = Tokenizer.load(model)
    prompts = PromptBuilder(tokenizer, ChatTemplate.load(model, tokenizer), tiny_plan(), 2000)
    request = GenerationRequest(
        mode=Mode[mode.upper()], messages=[Message("user", ITEM.question)], bank="" if mode == "none" else "towers"
    )
    served = prompts.build(request, ITEM.references if mode == "rag" else ())
    context = builder.build(ITEM, mode, in_chat=True).context
    assert context.tokens[: -context.num_scored] == served.tokens
    assert tokenizer.decode(list(context.targets)) == "It was built by Ada"


def test_the_teacher_is_asked_likewise_and_reads_the_gold_reference(builder: ExampleBuilder) -> None:
    taught = builder.build(ITEM, "memory", in_chat=True).context
    gold_alone = replace(ITEM, references=ITEM.references[:1])
    assert taught.teacher_tokens == builder.build(gold_alone, "rag", in_chat=True).context.tokens


def test_equal_texts_behind_others_are_references_of_their_own(model: Path) -> None:
    tokenizer, plan = Tokenizer.load(model), tiny_plan(preceding_tokens=4)
    one = replace(ITEM, preceding=("", "Ada built it."))
    other = replace(ITEM, preceding=("A tower.", "Ada built it."))
    examples = [ExampleBuilder(tokenizer, plan).build(item, "memory") for item in (one, other)]
    batch = batch_of(examples, plan.tokens_per_memory)
    built, not_built = (tuple(tokenizer.encode(text)) for text in ITEM.references)
    assert batch.references == (built, not_built, built)
    assert batch.preceding == ((), built[-4:], tuple(tokenizer.encode("A tower."))[-4:])
    assert batch.contexts[1].chunk_references == ((2, 1),) * len(batch.contexts[1].chunk_references or ())
    alone = [ExampleBuilder(tokenizer, tiny_plan()).build(item, "memory") for item in (one, other)]
    assert batch_of(alone, 6).references == (built, not_built)


@pytest.mark.parametrize("mode", MODES)
def test_what_asks_nothing_stays_as_it_is(builder: ExampleBuilder, mode: TrainingMode) -> None:
    for item in (replace(ITEM, question=""), replace(ITEM, prompt="It was built by")):
        assert builder.build(item, mode, in_chat=True) == builder.build(item, mode)
