"""Forced answers are scored as the engine would have generated them, and as the naive twin computes them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from model.engine.engine import Engine, EngineOptions
from model.engine.events import RecallNeeded, TokenReady
from model.engine.task import GenerationTask
from model.memory.explicit_memory import ExplicitMemory
from model.naive import memories_of_tokens, naive_logits
from model.runner import ModelRunner, PrefillItem
from model.scoring import AnswerScorer, ForcedAnswer, answer_queries
from tests.helpers.tiny_model import random_memories, random_tokens, tiny_plan, tiny_runner

CHUNK = 16
SMALL = tiny_plan(query_chunk_tokens=CHUNK, max_reference_tokens=40)
AHEAD = 4


def by_decoding(runner: ModelRunner, answer: ForcedAnswer) -> list[float]:
    """Token by token in the last slot, memories swapped where a span of the answer starts."""
    slot, spans = runner.num_slots - 1, answer.span_memories
    num_prompt = -(-len(answer.context) // CHUNK)
    runner.reset(slot, reads_memories=spans is not None)
    prompt = [()] * num_prompt if spans is None else spans[:num_prompt]
    logits = runner.prefill([PrefillItem(slot, answer.context, prompt)]).logits_BV
    nll = []
    for place, token in enumerate(answer.answer):
        nll.append(-float(logits.log_softmax(-1)[0, token]))
        if place == len(answer.answer) - 1:
            break
        if spans is not None and place and place % CHUNK == 0:
            runner.set_memories(slot, spans[num_prompt + place // CHUNK - 1])
        logits = runner.decode([slot], [token]).logits_BV
    return nll


def spans_for(
    memories: Sequence[ExplicitMemory], num_context: int, num_answer: int
) -> tuple[tuple[ExplicitMemory, ...], ...]:
    queries = answer_queries(
        [0] * num_context, [True] * num_context, [0] * num_answer, chunk_tokens=CHUNK, recall_ahead_tokens=AHEAD
    )
    return tuple(tuple(memories[span % 5 : span % 5 + 1 + span % 4]) for span in range(len(queries)))


@pytest.mark.parametrize("num_context", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("num_answer", [1, 2, 16, 17, 18, 33, 34, 50])
def test_equals_decoding_token_by_token(num_context: int, num_answer: int) -> None:
    runner = tiny_runner(plan=SMALL)
    spans = spans_for(random_memories(runner, 9), num_context, num_answer)
    answer = ForcedAnswer(tuple(random_tokens(num_context)), tuple(random_tokens(num_answer, 1)), spans)
    (score,) = AnswerScorer(runner).score([answer])
    torch.testing.assert_close(torch.tensor(score.nll), torch.tensor(by_decoding(runner, answer)), atol=2e-4, rtol=0)


@pytest.mark.parametrize("reads", [True, False])
def test_equals_the_naive_twin(reads: bool) -> None:
    runner = tiny_runner(plan=SMALL)
    context, answer = tuple(random_tokens(20)), tuple(random_tokens(9, 1))
    spans = (random_memories(runner, 3), random_memories(runner, 2, seed=1)) if reads else None
    (score,) = AnswerScorer(runner).score([ForcedAnswer(context, answer, spans)])
    tokens = [*context, *answer[:-1]]
    logits_TV = naive_logits(
        runner.transformer,
        SMALL,
        runner.prefix.tokens,
        tokens,
        memories_of_tokens(spans or [[], []], len(tokens), CHUNK),
        reads_memories=reads,
    )[len(context) - 1 :]
    expected = -logits_TV.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)]
    torch.testing.assert_close(torch.tensor(score.nll).double(), expected, atol=5e-4, rtol=0)
    assert list(score.is_greedy) == (logits_TV.argmax(-1) == torch.tensor(answer)).tolist()


def test_many_at_once_equal_each_alone() -> None:
    runner = tiny_runner(plan=SMALL, num_slots=3)
    memories = random_memories(runner, 9)
    sizes = list(itertools.product((1, 20, 40), (1, 18, 40)))
    answers = [
        ForcedAnswer(
            tuple(random_tokens(num_context, num_context)),
            tuple(random_tokens(num_answer, num_answer)),
            spans_for(memories, num_context, num_answer) if number % 3 else None,
        )
        for number, (num_context, num_answer) in enumerate(sizes)
    ]
    together = AnswerScorer(runner, tokens_per_step=90, logits_per_step=60).score(answers)
    alone = [AnswerScorer(runner).score([answer])[0] for answer in answers]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(torch.tensor(one.nll), torch.tensor(other.nll), atol=1e-4, rtol=0)
        assert one.is_greedy == other.is_greedy


def test_answers_that_share_all_but_the_last_token_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = tiny_runner(plan=SMALL)
    memories = tuple(random_memories(runner, 3))
    context = tuple(random_tokens(20))
    answers = [ForcedAnswer(context, (7, last), (memories,)) for last in (1, 2, 3)]
    alone = [AnswerScorer(runner).score([answer])[0] for answer in answers]
    prefilled: list[int] = []
    prefill = ModelRunner.prefill

    def counted(self: ModelRunner, items: Sequence[PrefillItem]) -> object:
        prefilled.append(len(items))
        return prefill(self, items)

    monkeypatch.setattr(ModelRunner, "prefill", counted)
    assert AnswerScorer(runner).score(answers) == alone
    assert prefilled == [1]


def test_one_entry_of_memories_is_read_by_all_spans() -> None:
    runner = tiny_runner(plan=SMALL)
    memories = tuple(random_memories(runner, 3))
    context, answer = tuple(random_tokens(40)), tuple(random_tokens(40, 1))
    given = AnswerScorer(runner).score(
        [ForcedAnswer(context, answer, (memories,)), ForcedAnswer(context, answer, (memories,) * 5)]
    )
    assert given[0].nll == pytest.approx(given[1].nll, abs=1e-4)


def test_spans_and_queries_are_the_engines() -> None:
    """What the engine asks for while it generates greedily is what scoring its answer asks for, and all is greedy."""
    runner = tiny_runner(plan=SMALL)
    memories = random_memories(runner, 9)
    context = tuple(random_tokens(20, 3))
    is_content = tuple(place > 2 for place in range(20))
    engine = Engine(runner, _NoText, lambda: 0, EngineOptions(CHUNK, AHEAD))
    asked: list[tuple[int, ...]] = []
    output: list[int] = []
    spans = {}
    events = engine.add(GenerationTask("one", context, is_content, max_tokens=40))
    while events or engine.has_work:
        for event in events:
            if isinstance(event, RecallNeeded):
                for span in event.spans:
                    spans[len(asked)] = tuple(memories[len(asked) : len(asked) + 3])
                    engine.deliver("one", span.span, spans[len(asked)])
                    asked.append(span.query_tokens)
            elif isinstance(event, TokenReady):
                output += event.token_ids
        events = engine.step()
    queries = answer_queries(context, is_content, output, chunk_tokens=CHUNK, recall_ahead_tokens=AHEAD)
    assert queries == asked
    assert len(queries) == 4
    (score,) = AnswerScorer(runner).score([ForcedAnswer(context, tuple(output), tuple(spans.values()))])
    assert all(score.is_greedy)


class _NoText:
    """A detokenizer whose tokens have no text."""

    def push(self, token_id: int) -> str:
        return ""

    def flush(self) -> str:
        return ""
