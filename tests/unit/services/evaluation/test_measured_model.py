"""The model that is measured is the one that serves: same contexts, same memories, and its scores foretell its text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from memory3.types import GenerationRequest, Message
from memory3.types import Mode as ServedMode
from model.chat import ChatTemplate
from model.codec.chain import CodecChain
from model.engine.events import TokenReady
from model.identity import reference_id
from model.memory.writer import MemoryWriter
from model.plan import MemoryPlan
from model.prefix import encode_prefix
from model.tokenizer import Tokenizer
from services.datasets.item import Passage
from services.decoder.prompt import PromptBuilder
from services.evaluation import measured_model
from services.evaluation.measured_model import MeasuredModel
from tests.helpers.records import read
from tests.helpers.tiny_model import CHAT_TEMPLATE, PREFIX_TOKENS, tiny_model_directory, tiny_plan, tiny_transformer

PLAN = tiny_plan(max_reference_tokens=40, query_chunk_tokens=16)
TEXTS = ("The lighthouse of Varnholm.", "Its lamp burned whale oil.", "Short.")
FINGERPRINT = "0" * 32


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(tiny_model_directory(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def model(tokenizer: Tokenizer) -> MeasuredModel:
    return measured_with(tokenizer, PLAN)


def measured_with(tokenizer: Tokenizer, plan: MemoryPlan) -> MeasuredModel:
    return MeasuredModel(
        tiny_transformer(),
        tokenizer,
        plan,
        template=ChatTemplate(CHAT_TEMPLATE, tokenizer),
        codec=CodecChain.from_plan(plan),
        fingerprint=FINGERPRINT,
        num_slots=3,
        max_context_tokens=400,
        tokens_per_step=64,
        memory_bytes=20_000,
    )


@pytest.mark.parametrize(
    ("served", "references"), [(ServedMode.NONE, ()), (ServedMode.RAG, TEXTS), (ServedMode.MEMORY, ())]
)
def test_contexts_are_those_of_serving(
    model: MeasuredModel, tokenizer: Tokenizer, served: ServedMode, references: tuple[str, ...]
) -> None:
    request = GenerationRequest(served, prompt="Question: who?\nAnswer:")
    prompt = PromptBuilder(tokenizer, None, PLAN, 400).build(request, references)
    context = model.context("Question: who?\nAnswer:", references, reads_memories=served is ServedMode.MEMORY)
    assert context.tokens == prompt.tokens
    if not references:
        assert context.is_content == prompt.is_content

    asked = GenerationRequest(served, messages=(Message("user", "Who lit the lamp?"),))
    template = ChatTemplate(CHAT_TEMPLATE, tokenizer)
    prompt = PromptBuilder(tokenizer, template, PLAN, 400).build(asked, references)
    chat = model.chat("Who lit the lamp?", references, reads_memories=served is ServedMode.MEMORY)
    assert chat is not None
    assert chat.tokens == prompt.tokens
    assert sum(chat.is_content) == len("Who lit the lamp?")
    if not references:
        assert chat.is_content == prompt.is_content


def test_references_as_text_ask_for_no_memories(model: MeasuredModel) -> None:
    context = model.context("Question: who?", TEXTS, reads_memories=True)
    assert sum(context.is_content) == len("Question: who?")
    assert model.queries(context, " Ida")[-1] == "Question: who?"


def test_a_memory_is_what_the_codec_gives_back(model: MeasuredModel, tokenizer: Tokenizer) -> None:
    transformer = tiny_transformer()
    writer = MemoryWriter(transformer, PLAN, encode_prefix(transformer, PREFIX_TOKENS))
    (fresh,) = writer.write([tokenizer.encode(TEXTS[0])])
    codec = CodecChain.from_plan(PLAN)
    stored = read(codec, codec.encode(fresh.to_arrays(), FINGERPRINT, FINGERPRINT), FINGERPRINT, FINGERPRINT)
    memory = model.book.memories(map(Passage, TEXTS))[Passage(TEXTS[0])]
    torch.testing.assert_close(memory.k_LKSD, torch.from_numpy(stored.k_LKSD), atol=1e-5, rtol=0)
    assert not torch.equal(memory.k_LKSD, fresh.k_LKSD)


def test_a_text_is_written_once_while_there_is_room(model: MeasuredModel) -> None:
    model.book.memories(map(Passage, [*TEXTS, *TEXTS]))
    model.book.memories([Passage(TEXTS[0])])
    assert model.book.num_written == 3
    # Room for 20,000 bytes: some five memories of 6 tokens in 2 layers.
    model.book.memories(Passage(f"Another one, number {number}.") for number in range(20))
    model.book.memories([Passage(TEXTS[0])])
    assert model.book.num_written == 24


def test_equal_texts_behind_others_are_memories_of_their_own(tokenizer: Tokenizer) -> None:
    model = measured_with(tokenizer, replace(PLAN, preceding_tokens=32))
    alone, behind = Passage(TEXTS[1]), Passage(TEXTS[1], TEXTS[0])
    memories = model.book.memories([alone, behind])
    assert model.book.num_written == 2
    assert not torch.equal(memories[alone].v_LKSD, memories[behind].v_LKSD)
    assert memories[behind].reference_id == reference_id(TEXTS[1], TEXTS[0])


def test_the_answer_is_the_first_line_with_text(model: MeasuredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    class Said:
        """In place of an engine: says two lines, after a blank one."""

        has_work = False

        def __init__(self, *_: object) -> None:
            self._events = [TokenReady("0", text, ()) for text in ("\n", " It is", " Ida.", "\n", "Next.")]

        def add(self, _: object) -> list[TokenReady]:
            return self._events

        def step(self) -> list[TokenReady]:
            return []

    monkeypatch.setattr(measured_model, "Engine", Said)
    assert model.generate([model.context("Who?", (), reads_memories=False)], lambda _, queries: [], 9) == ["It is Ida."]


@pytest.mark.parametrize("reads_memories", [True, False])
def test_what_is_generated_scores_as_greedy(model: MeasuredModel, reads_memories: bool) -> None:
    prompts = [letter * (1 + 7 * place) for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz")]
    contexts = [model.context(prompt, (), reads_memories=reads_memories) for prompt in prompts]
    read = [*map(Passage, TEXTS)]
    texts = model.generate(contexts, lambda _, queries: [read] * len(queries), 2)
    # The random model writes random bytes and special tokens; few of its tokens are text.
    kept = [(context, text) for context, text in zip(contexts, texts, strict=True) if len(text.encode()) == 2]
    scores = model.score([(context, text, (read,) if reads_memories else None) for context, text in kept])
    assert kept
    assert all(score.is_greedy for score in scores)


def test_a_long_reference_keeps_its_beginning(model: MeasuredModel) -> None:
    assert model.cut(TEXTS[0]) == TEXTS[0]
    assert model.cut("x" * 39 + "äöü") == "x" * 39
    assert model.cut("y" * 1000) == "y" * 40


def test_a_context_that_cannot_fit_is_refused(model: MeasuredModel) -> None:
    with pytest.raises(ValueError, match="the limit is 400"):
        model.score([(model.context("x" * 500, (), reads_memories=False), " y", None)])
