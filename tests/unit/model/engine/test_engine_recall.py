"""When memories are asked for, which tokens read them, and what happens when they are late."""

import weakref

import pytest

from model.engine.engine import Engine
from model.engine.events import Finished, FinishReason, RecallNeeded, SpanQuery, SpanStarted, TokenReady
from model.engine.task import GenerationTask
from model.memory.explicit_memory import ExplicitMemory
from tests.helpers.mock_runner import (
    Context,
    MockRunner,
    Ticks,
    deliver_all,
    finished_of,
    mock_engine,
    mock_memory,
    mock_recall,
    run_all,
    tokens_of,
)


def _task(num_prompt: int, max_tokens: int, task_id: str = "s", **fields: object) -> GenerationTask:
    prompt = tuple(index % 250 for index in range(num_prompt))
    values = {"is_content": (True,) * num_prompt, **fields}
    return GenerationTask(id=task_id, prompt_tokens=prompt, max_tokens=max_tokens, **values)  # type: ignore[arg-type]


def _by_span(_: str, query: SpanQuery) -> tuple[ExplicitMemory, ...]:
    return (mock_memory(f"m{query.span}"),)


def _spans_read(context: Context) -> list[tuple[str, ...]]:
    return [references for _, references in context]


@pytest.mark.parametrize("num_prompt", [1, 63, 64, 65, 128, 200])
def test_the_whole_prompt_is_asked_for_in_one_event(num_prompt: int) -> None:
    events = mock_engine(MockRunner()).add(_task(num_prompt, 1))
    assert len(events) == 1
    assert isinstance(events[0], RecallNeeded)
    assert [query.span for query in events[0].spans] == list(range((num_prompt + 63) // 64))


def test_nothing_runs_before_the_prompts_memories_are_there() -> None:
    runner = MockRunner()
    engine = mock_engine(runner)
    engine.add(_task(100, 4))
    assert engine.is_stalled
    assert engine.step() == []
    engine.deliver("s", 1, ())
    assert engine.is_stalled
    engine.deliver("s", 0, ())
    assert not engine.is_stalled
    engine.step()
    assert runner.calls == [("prefill", {0: 100})]


@pytest.mark.parametrize("num_prompt", [1, 63, 64, 65, 128])
def test_each_token_reads_the_memories_of_its_span(num_prompt: int) -> None:
    runner = MockRunner()
    run_all(mock_engine(runner), [_task(num_prompt, 200)], _by_span)
    num_chunks = (num_prompt + 63) // 64
    expected = [(f"m{index // 64}",) for index in range(num_prompt)]
    expected += [(f"m{num_chunks - 1}",)] * 64  # the first generated span inherits
    expected += [(f"m{num_chunks + 1}",)] * 64
    expected += [(f"m{num_chunks + 2}",)] * 64
    expected += [(f"m{num_chunks + 3}",)] * 7  # token 200 is drawn and never runs
    assert _spans_read(runner.contexts[0]) == expected


def test_a_128_in_128_out_run_recalls_three_times() -> None:
    """Paper 7.5."""
    events = run_all(mock_engine(MockRunner()), [_task(128, 128)])
    assert finished_of(events, "s").num_recalls == 3


def test_spans_are_told_before_their_first_token_and_in_the_final_event() -> None:
    events = run_all(mock_engine(MockRunner()), [_task(70, 70)], _by_span)
    started = [event for event in events if isinstance(event, SpanStarted)]
    assert [(e.span, e.start_token, e.reference_ids, e.inherited_from) for e in started] == [
        (0, 0, ("m0",), None),
        (1, 64, ("m1",), None),
        (2, 70, ("m1",), 1),
        (3, 134, ("m3",), None),
    ]
    # Token 65 is the first drawn from logits that read span 3.
    assert events.index(started[3]) == events.index([e for e in events if isinstance(e, TokenReady)][65]) - 1
    records = finished_of(events, "s").spans
    assert [(r.span, r.start_token, r.end_token, r.reference_ids) for r in records] == [
        (0, 0, 64, ("m0",)),
        (1, 64, 70, ("m1",)),
        (2, 70, 134, ("m1",)),
        (3, 134, 139, ("m3",)),
    ]


@pytest.mark.parametrize(("ahead", "num_generated"), [(8, 56), (0, 64), (63, 1), (20, 44)])
def test_the_next_recall_is_asked_ahead_of_the_boundary_with_the_last_64_tokens(ahead: int, num_generated: int) -> None:
    engine = mock_engine(MockRunner(), recall_ahead_tokens=ahead)
    task = _task(80, 80)
    events = run_all(engine, [task])
    asked = [index for index, event in enumerate(events) if isinstance(event, RecallNeeded)]
    assert len(asked) == 2
    recall = events[asked[1]]
    assert isinstance(recall, RecallNeeded)
    tokens_before = tokens_of(events[: asked[1]], "s")
    assert len(tokens_before) == num_generated
    assert recall.spans == (SpanQuery(3, (*task.prompt_tokens, *tokens_before)[-64:]),)


@pytest.mark.parametrize(("max_tokens", "num_recalls"), [(1, 1), (64, 1), (65, 1), (66, 2), (129, 2), (130, 3)])
def test_no_recall_for_a_span_that_no_token_would_read(max_tokens: int, num_recalls: int) -> None:
    events = run_all(mock_engine(MockRunner()), [_task(10, max_tokens)])
    finished = finished_of(events, "s")
    assert finished.num_recalls == num_recalls
    assert finished.num_output_tokens == max_tokens
    assert len(finished.spans) == num_recalls + (max_tokens > 1)


def test_a_full_context_counts_like_max_tokens() -> None:
    runner = MockRunner(max_context_tokens=75)
    events = run_all(mock_engine(runner), [_task(10, 500)])
    assert finished_of(events, "s").num_output_tokens == 65
    assert finished_of(events, "s").num_recalls == 1
    assert finished_of(events, "s").reason is FinishReason.LENGTH


def test_a_prompt_chunk_without_content_reads_what_the_chunk_before_it_reads() -> None:
    runner = MockRunner()
    is_content = (True,) * 64 + (False,) * 70
    events = run_all(mock_engine(runner), [_task(134, 2, is_content=is_content)], _by_span)
    assert _spans_read(runner.contexts[0]) == [("m0",)] * 135
    started = [event for event in events if isinstance(event, SpanStarted)]
    assert [event.inherited_from for event in started] == [None, 0, 0, 0]
    assert finished_of(events, "s").num_recalls == 1


def test_a_prompt_without_content_runs_at_once_and_asks_while_it_generates() -> None:
    runner = MockRunner()
    events = run_all(mock_engine(runner), [_task(10, 70, is_content=(False,) * 10)], _by_span)
    assert [event.spans[0].span for event in events if isinstance(event, RecallNeeded)] == [2]
    assert _spans_read(runner.contexts[0]) == [()] * 74 + [("m2",)] * 5


def test_a_sequence_that_reads_no_memories_asks_for_none() -> None:
    runner = MockRunner()
    events = run_all(mock_engine(runner), [_task(200, 200, reads_memories=False)])
    assert not [event for event in events if isinstance(event, RecallNeeded | SpanStarted)]
    assert finished_of(events, "s").spans == ()
    assert set(_spans_read(runner.contexts[0])) == {()}


def test_fewer_memories_or_none_are_read_as_delivered() -> None:
    runner = MockRunner()
    events = run_all(
        mock_engine(runner), [_task(64, 70)], lambda _, query: _by_span("", query) if query.span == 0 else ()
    )
    assert _spans_read(runner.contexts[0]) == [("m0",)] * 128 + [()] * 5
    assert finished_of(events, "s").spans[-1].reference_ids == ()


def _step_until_recalling(engine, recall=_by_span) -> None:  # type: ignore[no-untyped-def]
    """Delivers all but generated spans of sequence "late"."""
    for _ in range(200):
        if engine.num_recalling:
            return
        events = engine.step()
        deliver_all(
            engine, [e for e in events if not (isinstance(e, RecallNeeded) and e.sequence_id == "late")], recall
        )
    raise AssertionError("no sequence ever stopped for its memories")


def test_a_late_memory_stops_one_sequence_and_never_the_batch() -> None:
    runner = MockRunner()
    engine = mock_engine(runner)
    for task in (_task(64, 200, "late"), _task(64, 300, "other")):
        deliver_all(engine, engine.add(task), _by_span)
    _step_until_recalling(engine)
    assert len(runner.contexts[0]) == 128  # exactly at the boundary
    for _ in range(100):
        deliver_all(engine, engine.step(), _by_span)
    assert (engine.num_recalling, engine.num_running) == (1, 1)
    assert len(runner.contexts[0]) == 128
    assert len(runner.contexts[1]) > 200
    assert not engine.deliver("late", -1, ())
    assert engine.deliver("late", 2, (mock_memory("at last"),))
    assert engine.num_recalling == 0
    events = run_all(engine, recall=_by_span)
    assert _spans_read(runner.contexts[0])[126:130] == [("m0",)] * 2 + [("at last",)] * 2
    assert finished_of(events, "late").num_output_tokens == 200


def test_a_memory_that_is_late_changes_nothing_but_time() -> None:
    prompt = run_all(mock_engine(MockRunner()), [_task(64, 200, "late")])
    engine = mock_engine(MockRunner())
    deliver_all(engine, engine.add(_task(64, 200, "late")), mock_recall)
    tokens: list[int] = []
    pending: list[RecallNeeded] = []
    while engine.has_work:
        if engine.is_stalled:
            deliver_all(engine, pending, mock_recall)
            pending.clear()
        events = engine.step()
        pending += [event for event in events if isinstance(event, RecallNeeded)]
        tokens += tokens_of(events, "late")
    assert tokens == tokens_of(prompt, "late")


def test_an_early_memory_waits_for_the_boundary() -> None:
    runner = MockRunner()
    run_all(mock_engine(runner, recall_ahead_tokens=63), [_task(64, 130)], _by_span)
    assert _spans_read(runner.contexts[0])[:128] == [("m0",)] * 128
    assert _spans_read(runner.contexts[0])[128:] == [("m2",)] * 64 + [("m3",)] * 1


def test_deliveries_nobody_awaits_are_ignored_and_counted() -> None:
    engine = mock_engine(MockRunner())
    assert not engine.deliver("nobody", 0, ())
    engine.add(_task(64, 2))
    engine.add(_task(64, 2, "plain", reads_memories=False))
    assert not engine.deliver("plain", 0, ())
    assert not engine.deliver("s", 1, ())  # inherits
    assert not engine.deliver("s", 7, ())
    assert not engine.deliver("s", -1, ())
    assert engine.deliver("s", 0, (mock_memory("first"),))
    assert not engine.deliver("s", 0, (mock_memory("second"),))
    events = run_all(engine)
    assert finished_of(events, "s").spans[0].reference_ids == ("first",)
    assert not engine.deliver("s", 0, ())
    assert engine.num_ignored_deliveries == 7


def test_more_memories_than_rows_are_refused() -> None:
    engine = mock_engine(MockRunner())
    engine.add(_task(10, 2))
    with pytest.raises(ValueError, match=r"6 memories .* at most 5"):
        engine.deliver("s", 0, tuple(mock_memory(str(index)) for index in range(6)))


def test_a_memory_of_another_shape_is_refused_when_it_is_delivered_and_ends_nothing() -> None:
    engine = mock_engine(MockRunner())
    engine.add(_task(10, 2))
    with pytest.raises(ValueError, match="'other' has shape"):
        engine.deliver("s", 0, (mock_memory("other", head_dim=4),))
    assert engine.deliver("s", 0, ())
    assert finished_of(run_all(engine), "s").reason is FinishReason.LENGTH


def test_sequences_cross_their_boundaries_out_of_step() -> None:
    """Each runs in a batch exactly as it runs alone, though all swap at other times."""
    tasks = [_task(17 * index + 1, 100 + 13 * index, f"s{index}") for index in range(7)]
    runner = MockRunner(num_slots=3)
    together = run_all(mock_engine(runner, prefill_tokens_per_step=64), tasks)
    for task in tasks:
        alone = run_all(mock_engine(MockRunner()), [task])
        assert tokens_of(together, task.id) == tokens_of(alone, task.id)
        assert finished_of(together, task.id).spans == finished_of(alone, task.id).spans


def test_a_long_prompt_in_pieces_reads_the_same_as_in_one() -> None:
    whole, pieces = MockRunner(), MockRunner()
    run_all(mock_engine(whole, prefill_tokens_per_step=512), [_task(300, 3)], _by_span)
    run_all(mock_engine(pieces, prefill_tokens_per_step=128), [_task(300, 3)], _by_span)
    assert [call[1] for call in pieces.calls[:3]] == [{0: 128}, {0: 128}, {0: 44}]
    assert whole.contexts == pieces.contexts


def test_attention_is_reported_only_to_who_asked() -> None:
    tasks = [_task(100, 70, "asks", report_attention=True), _task(100, 70, "silent")]
    events = run_all(mock_engine(MockRunner()), tasks)
    assert [record.attention_mass for record in finished_of(events, "asks").spans] == [(0.5, 0.25)] * 4
    assert [record.attention_mass for record in finished_of(events, "silent").spans] == [()] * 4


def test_times_say_what_a_recall_cost() -> None:
    clock = Ticks()
    engine = mock_engine(MockRunner(), clock)
    engine.add(_task(64, 80, "late"))
    clock.now_ns += 1000
    engine.deliver("late", 0, ())
    clock.now_ns += 100
    events = engine.step()
    (prompt,) = [event for event in events if isinstance(event, SpanStarted)]
    assert prompt.stalled_ns == pytest.approx(1000, abs=5)
    assert prompt.delivered_ns is not None
    assert prompt.requested_ns is not None
    assert prompt.delivered_ns - prompt.requested_ns == pytest.approx(1000, abs=5)
    assert prompt.started_ns - prompt.delivered_ns == pytest.approx(100, abs=5)
    _step_until_recalling(engine)
    clock.now_ns += 500
    engine.deliver("late", 2, ())
    events = run_all(engine)
    (generated,) = [event for event in events if isinstance(event, SpanStarted)]
    assert generated.stalled_ns == pytest.approx(500, abs=5)
    assert finished_of(events, "late").timings.stalled_ns == pytest.approx(1500, abs=10)


def _stalled_ns(engine: Engine, sequence_id: str) -> int:
    """How long a sequence had stalled, told by cancelling it."""
    finished = engine.cancel(sequence_id)
    assert finished is not None
    return finished.timings.stalled_ns


def test_waiting_for_a_slot_is_no_stall() -> None:
    clock = Ticks()
    engine = mock_engine(MockRunner(num_slots=1), clock)
    deliver_all(engine, engine.add(_task(10, 50, "first")), mock_recall)
    engine.step()
    engine.add(_task(10, 5, "second"))
    clock.now_ns += 1000  # both its recall and the slot are missing: the slot is what counts
    deliver_all(engine, [RecallNeeded("second", (SpanQuery(0, (1,)),))], mock_recall)
    timings = finished_of(run_all(engine), "second").timings
    assert timings.stalled_ns == 0
    assert timings.first_scheduled_ns is not None
    assert timings.first_scheduled_ns - timings.queued_ns > 1000


def test_a_slot_that_another_will_take_is_not_free_to_stall_for() -> None:
    clock = Ticks()
    engine = mock_engine(MockRunner(num_slots=1), clock)
    engine.add(_task(10, 50, "first", reads_memories=False))
    engine.add(_task(10, 5, "second"))
    clock.now_ns += 1000
    assert _stalled_ns(engine, "second") == 0


@pytest.mark.parametrize("ends", ["by itself", "cancelled"])
def test_the_stall_begins_when_the_slot_becomes_free(ends: str) -> None:
    clock = Ticks()
    engine = mock_engine(MockRunner(num_slots=1), clock)
    engine.add(_task(10, 1, "first", reads_memories=False))
    engine.add(_task(10, 5, "second"))
    clock.now_ns += 1000
    if ends == "cancelled":
        engine.cancel("first")
    else:
        engine.step()
    clock.now_ns += 500
    assert _stalled_ns(engine, "second") == pytest.approx(500, abs=10)


def test_the_stall_ends_when_somebody_else_takes_the_slot() -> None:
    clock = Ticks()
    engine = mock_engine(MockRunner(num_slots=1), clock)
    engine.add(_task(10, 5, "second"))
    clock.now_ns += 500
    engine.add(_task(10, 50, "first", reads_memories=False))
    engine.step()
    clock.now_ns += 1000
    assert _stalled_ns(engine, "second") == pytest.approx(500, abs=10)


def test_memories_are_let_go_once_they_lie_in_the_cache() -> None:
    held: weakref.WeakSet[ExplicitMemory] = weakref.WeakSet()

    def recall(_: str, query: SpanQuery) -> tuple[ExplicitMemory, ...]:
        memory = mock_memory(f"m{query.span}")
        held.add(memory)
        return (memory,)

    engine = mock_engine(MockRunner())
    deliver_all(engine, engine.add(_task(128, 200)), recall)
    assert len(held) == 2
    engine.step()
    assert len(held) == 0
    for _ in range(64):
        deliver_all(engine, engine.step(), recall)
    assert len(held) == 1
    engine.step()
    assert len(held) == 0


def test_a_sequence_that_stalls_when_it_is_cancelled_has_its_wait_counted() -> None:
    clock = Ticks()
    engine = mock_engine(MockRunner(), clock)
    engine.add(_task(10, 5))
    clock.now_ns += 1000
    finished = engine.cancel("s")
    assert isinstance(finished, Finished)
    assert finished.timings.stalled_ns == pytest.approx(1000, abs=5)
    assert finished.spans == ()
