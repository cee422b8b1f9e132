"""The engine on a real (tiny) model says, token for token, what the slow twin says for the whole sequence.

Batched with others, in pieces, with memories that come early, late or not at all, in slots used before.
"""

import random
from collections.abc import Sequence

import pytest
import torch

from model.engine.engine import Engine, EngineOptions
from model.engine.events import Event, RecallNeeded, SpanQuery
from model.engine.task import GenerationTask, Sampling
from model.memory.explicit_memory import ExplicitMemory
from model.naive import naive_logits
from model.runner import ModelRunner, PrefillItem
from tests.helpers.mock_runner import ByteDetokenizer, Ticks, finished_of, run_all, tokens_of
from tests.helpers.tiny_model import PREFIX_TOKENS, random_memories, random_tokens, tiny_plan, tiny_runner

CHUNK = 16
"""Short chunks: the twin is slow, and boundaries are what this is about."""


class _Library:
    """Other memories for every span of every sequence, between none and all that can be read."""

    def __init__(self, runner: ModelRunner) -> None:
        self._memories = random_memories(runner, 24, seed=5)

    def recall(self, sequence_id: str, query: SpanQuery) -> tuple[ExplicitMemory, ...]:
        return self.memories_of(sequence_id, query.span)

    def memories_of(self, sequence_id: str, span: int) -> tuple[ExplicitMemory, ...]:
        draw = random.Random(f"{sequence_id}/{span}")
        return tuple(draw.sample(self._memories, draw.choice([0, 1, 3, 5])))


def _engine(runner: ModelRunner, **options: int) -> Engine:
    options = {"prefill_tokens_per_step": 2 * CHUNK, "recall_ahead_tokens": 4, **options}
    return Engine(runner, ByteDetokenizer, Ticks(), EngineOptions(**options))


def _task(task_id: str, num_prompt: int, max_tokens: int, **fields: object) -> GenerationTask:
    prompt = tuple(random_tokens(num_prompt, seed=num_prompt))
    return GenerationTask(task_id, prompt, (True,) * num_prompt, max_tokens, **fields)  # type: ignore[arg-type]


def _twin_tokens(runner: ModelRunner, library: _Library, task: GenerationTask, output: Sequence[int]) -> list[int]:
    """What the twin would have drawn greedily after each token, given the tokens before it."""
    num_prompt, num_chunks = len(task.prompt_tokens), -(-len(task.prompt_tokens) // CHUNK)
    context = [*task.prompt_tokens, *output[:-1]]
    read: list[tuple[ExplicitMemory, ...]] = []
    for token in range(len(context)):
        span = token // CHUNK if token < num_prompt else num_chunks + (token - num_prompt) // CHUNK
        span = num_chunks - 1 if span == num_chunks else span  # the first generated span inherits
        read.append(library.memories_of(task.id, span) if task.reads_memories else ())
    logits_TV = naive_logits(
        runner.transformer, runner.plan, PREFIX_TOKENS, context, read, reads_memories=task.reads_memories
    )
    return [int(token) for token in logits_TV[num_prompt - 1 :].argmax(dim=-1)]


@pytest.fixture(scope="module")
def runner() -> ModelRunner:
    return tiny_runner(num_slots=3, plan=tiny_plan(query_chunk_tokens=CHUNK), max_context_tokens=128)


@pytest.fixture(scope="module")
def library(runner: ModelRunner) -> _Library:
    return _Library(runner)


def test_every_sequence_of_a_busy_batch_equals_the_twin(runner: ModelRunner, library: _Library) -> None:
    """More sequences than slots, all prompt lengths around the grid, some of them without memories."""
    tasks = [_task(f"s{length}", length, 40 + length % 5) for length in (1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5)]
    tasks += [_task("plain", 2 * CHUNK, 30, reads_memories=False), _task("full context", 100, 400)]
    events = run_all(_engine(runner), tasks, library.recall)
    for task in tasks:
        output = tokens_of(events, task.id)
        assert len(output) == min(task.max_tokens, 128 - len(task.prompt_tokens))
        assert output == _twin_tokens(runner, library, task, output), task.id


def test_memories_change_what_is_said(runner: ModelRunner, library: _Library) -> None:
    """Or the test above would show nothing."""
    task = _task("s", 40, 40)
    with_memories = tokens_of(run_all(_engine(runner), [task], library.recall), "s")
    without = tokens_of(run_all(_engine(runner), [task], lambda *_: ()), "s")
    assert with_memories != without


def test_late_memories_change_nothing(runner: ModelRunner, library: _Library) -> None:
    tasks = [_task(f"s{index}", 10 + 7 * index, 50) for index in range(5)]
    in_time = run_all(_engine(runner), tasks, library.recall)
    late = _run_with_late_memories(_engine(runner, recall_ahead_tokens=0), tasks, library)
    for task in tasks:
        assert tokens_of(late, task.id) == tokens_of(in_time, task.id)


def _run_with_late_memories(engine: Engine, tasks: Sequence[GenerationTask], library: _Library) -> list[Event]:
    """Each memory comes some steps after it was asked for."""
    draw = random.Random(1)
    events: list[Event] = [event for task in tasks for event in engine.add(task)]
    due: list[tuple[int, str, SpanQuery]] = []
    seen = step = 0
    while engine.has_work:
        for event in events[seen:]:
            if isinstance(event, RecallNeeded):
                due += [(step + draw.randrange(30), event.sequence_id, query) for query in event.spans]
        seen = len(events)
        for item in [item for item in due if item[0] <= step]:
            due.remove(item)
            engine.deliver(item[1], item[2].span, library.recall(item[1], item[2]))
        events += engine.step()
        step += 1
        assert step < 5000
    return events


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.9), Sampling(1.0, top_k=20, top_p=0.9)])
def test_alone_and_in_a_batch_are_the_same(runner: ModelRunner, library: _Library, sampling: Sampling) -> None:
    tasks = [_task(f"s{index}", 5 + 11 * index, 36, sampling=sampling, seed=index) for index in range(6)]
    together = run_all(_engine(runner), tasks, library.recall)
    for task in tasks:
        assert tokens_of(run_all(_engine(runner), [task], library.recall), task.id) == tokens_of(together, task.id)


def test_attention_shares_are_those_of_the_model_and_change_no_token(runner: ModelRunner, library: _Library) -> None:
    silent = _task("s", 2 * CHUNK, 20)
    asks = _task("s", 2 * CHUNK, 20, report_attention=True)
    events = run_all(_engine(runner), [asks], library.recall)
    assert tokens_of(events, "s") == tokens_of(run_all(_engine(runner), [silent], library.recall), "s")
    records = finished_of(events, "s").spans
    assert [len(record.attention_mass) for record in records] == [len(record.reference_ids) for record in records]
    assert any(record.attention_mass for record in records)
    for record in records:
        assert all(0 < share < 1 for share in record.attention_mass)
        assert sum(record.attention_mass) < 1
    # A prompt of one span, measured by the model itself.
    bare = _task("one", CHUNK, 1, report_attention=True)
    (record,) = finished_of(run_all(_engine(runner), [bare], library.recall), "one").spans
    expected = _prefill_shares(runner, bare, library.memories_of("one", 0))
    torch.testing.assert_close(torch.tensor(record.attention_mass), expected)


def _prefill_shares(runner: ModelRunner, task: GenerationTask, memories: tuple[ExplicitMemory, ...]) -> torch.Tensor:
    runner.reset(0, reads_memories=True)
    output = runner.prefill([PrefillItem(0, task.prompt_tokens, [memories])], report_attention=True)
    assert output.attention_BCM is not None
    return output.attention_BCM[0, 0, : len(memories)]
