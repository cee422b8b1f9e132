"""How sequences begin and end: refusals, finish reasons, cancelling, failures, stamps."""

from itertools import pairwise

import pytest
import torch

from model.engine.engine import Engine, EngineOptions, UnusableLogitsError
from model.engine.events import Finished, FinishReason, RecallNeeded, TokenReady
from model.engine.task import ContextTooLongError, GenerationTask, Sampling
from tests.helpers import mock_runner
from tests.helpers.mock_runner import (
    ByteDetokenizer,
    Context,
    MockRunner,
    deliver_all,
    finished_of,
    mock_engine,
    mock_recall,
    run_all,
    text_of,
    tokens_of,
)

EOS = 0


def _task(task_id: str = "s", num_prompt: int = 5, max_tokens: int = 20, **fields: object) -> GenerationTask:
    values = {"is_content": (True,) * num_prompt, "prompt_tokens": (1,) * num_prompt, **fields}
    return GenerationTask(id=task_id, max_tokens=max_tokens, **values)  # type: ignore[arg-type]


def _says(text: str | bytes, num_prompt: int = 5) -> MockRunner:
    """A model that answers this and then ends its turn."""
    script = text.encode() if isinstance(text, str) else text

    def next_token(context: Context) -> int:
        index = len(context) - num_prompt
        return script[index] if index < len(script) else EOS

    return MockRunner(next_token=next_token)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt_tokens": (), "is_content": ()}, "0 tokens"),
        ({"is_content": (True,)}, "marks 1 tokens, the prompt has 5"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is"),
        ({"stop": ("a", "")}, "stop sequence is empty"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _task(**fields)  # type: ignore[arg-type]


def test_tasks_the_model_cannot_run_are_refused_and_leave_no_trace() -> None:
    engine = mock_engine(MockRunner(max_context_tokens=100))
    with pytest.raises(ContextTooLongError, match=r"100 tokens, the context 100.*shorten"):
        engine.add(_task(num_prompt=100))
    for token in (256, -1):
        with pytest.raises(ValueError, match=f"token {token} is not in the vocabulary of 256"):
            engine.add(_task(prompt_tokens=(1, token), is_content=(True, True)))
    assert not engine.has_work
    engine.add(_task())
    with pytest.raises(ValueError, match="'s' has not finished"):
        engine.add(_task())
    assert engine.num_waiting == 1


def test_an_id_can_be_used_again_after_its_sequence_has_ended() -> None:
    engine = mock_engine(MockRunner())
    run_all(engine, [_task()])
    assert finished_of(run_all(engine, [_task()]), "s").num_output_tokens == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefill_tokens_per_step": 0}, "positive multiple of the query chunk, 64"),
        ({"prefill_tokens_per_step": 100}, "positive multiple"),
        ({"recall_ahead_tokens": 64}, "between 0 and 63"),
        ({"recall_ahead_tokens": -1}, "between 0 and 63"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(MockRunner(), ByteDetokenizer, lambda: 0, EngineOptions(**options))


def test_end_of_sequence_ends_and_is_no_text_and_no_token() -> None:
    events = run_all(mock_engine(_says("hi")), [_task(eos_token_ids=frozenset({EOS}))])
    finished = finished_of(events, "s")
    assert (text_of(events, "s"), tokens_of(events, "s")) == ("hi", list(b"hi"))
    assert (finished.reason, finished.num_output_tokens, finished.num_prompt_tokens) == (FinishReason.END, 2, 5)


def test_an_immediate_end_is_an_empty_answer() -> None:
    events = run_all(mock_engine(_says("")), [_task(eos_token_ids=frozenset({EOS}))])
    finished = finished_of(events, "s")
    assert (text_of(events, "s"), finished.num_output_tokens) == ("", 0)
    assert finished.timings.first_token_ns is None


def test_max_tokens_end_with_length() -> None:
    events = run_all(mock_engine(_says("hello")), [_task(max_tokens=3)])
    assert text_of(events, "s") == "hel"
    assert finished_of(events, "s").reason is FinishReason.LENGTH


def test_the_context_is_filled_to_the_last_token() -> None:
    runner = MockRunner(max_context_tokens=12)
    events = run_all(mock_engine(runner), [_task(max_tokens=100)])
    assert finished_of(events, "s").num_output_tokens == 7
    assert finished_of(events, "s").reason is FinishReason.LENGTH


def test_a_stop_sequence_across_tokens_ends_and_is_no_text() -> None:
    events = run_all(mock_engine(_says("one\n\ntwo")), [_task(stop=("\n\n",))])
    finished = finished_of(events, "s")
    assert (text_of(events, "s"), finished.reason, finished.num_output_tokens) == ("one", FinishReason.STOP, 5)
    assert [event.text for event in events if isinstance(event, TokenReady)] == ["o", "n", "e", "", ""]


@pytest.mark.parametrize("eos", [frozenset({EOS}), frozenset[int]()])
def test_held_back_text_comes_out_when_no_stop_follows(eos: frozenset[int]) -> None:
    events = run_all(mock_engine(_says("one\n")), [_task(stop=("\n\n",), eos_token_ids=eos, max_tokens=4 + bool(eos))])
    assert text_of(events, "s") == "one\n"
    assert tokens_of(events, "s") == list(b"one\n")


def test_a_stop_that_the_released_rest_completes_counts() -> None:
    events = run_all(mock_engine(_says(b"a\xe4")), [_task(stop=("\ufffd",), eos_token_ids=frozenset({EOS}))])
    assert (text_of(events, "s"), finished_of(events, "s").reason) == ("a", FinishReason.STOP)


def test_a_character_is_told_with_its_last_token() -> None:
    events = run_all(mock_engine(_says("é🦊")), [_task(max_tokens=6)])
    assert [event.text for event in events if isinstance(event, TokenReady)] == ["", "é", "", "", "", "🦊"]


def test_finished_is_the_last_event_of_a_sequence() -> None:
    events = run_all(mock_engine(MockRunner()), [_task("a"), _task("b", max_tokens=90)])
    for name in "ab":
        own = [event for event in events if event.sequence_id == name]
        assert isinstance(own[0], RecallNeeded)
        assert [isinstance(event, Finished) for event in own].index(True) == len(own) - 1


def _cancelled(engine: Engine, sequence_id: str) -> Finished:
    finished = engine.cancel(sequence_id)
    assert finished is not None
    assert finished.reason is FinishReason.CANCELLED
    return finished


def test_cancel_while_waiting() -> None:
    engine = mock_engine(MockRunner())
    engine.add(_task())
    assert _cancelled(engine, "s").num_output_tokens == 0
    assert not engine.has_work
    assert not engine.deliver("s", 0, ())
    assert engine.num_ignored_deliveries == 1


def test_cancel_while_running_frees_the_slot_at_once() -> None:
    runner = MockRunner(num_slots=1)
    engine = mock_engine(runner)
    for name in "ab":
        deliver_all(engine, engine.add(_task(name)), mock_recall)
    for _ in range(3):
        engine.step()
    assert (engine.num_running, engine.num_waiting) == (1, 1)
    assert _cancelled(engine, "a").num_output_tokens == 3
    events = engine.step()
    assert [event.sequence_id for event in events if isinstance(event, TokenReady)] == ["b"]
    assert finished_of(events + run_all(engine), "b").num_output_tokens == 20


def test_cancel_in_the_middle_of_a_long_prompt() -> None:
    runner = MockRunner(num_slots=1)
    engine = mock_engine(runner, prefill_tokens_per_step=64)
    deliver_all(engine, engine.add(_task("long", num_prompt=1000)), mock_recall)
    engine.step()
    assert _cancelled(engine, "long").spans[0].end_token == 64
    assert finished_of(run_all(engine, [_task("next")]), "next").num_output_tokens == 20


def test_cancel_while_recalling() -> None:
    runner = MockRunner(num_slots=1)
    engine = mock_engine(runner)
    deliver_all(engine, engine.add(_task("s", max_tokens=100)), mock_recall)
    while not engine.num_recalling:
        engine.step()
    assert engine.is_stalled
    assert _cancelled(engine, "s").num_output_tokens == 65
    assert not engine.has_work
    assert not engine.deliver("s", 2, ())
    assert finished_of(run_all(engine, [_task("next")]), "next").num_output_tokens == 20


def test_cancel_of_an_unknown_or_ended_sequence_does_nothing() -> None:
    engine = mock_engine(MockRunner())
    assert engine.cancel("nobody") is None
    run_all(engine, [_task()])
    assert engine.cancel("s") is None


def test_a_sequence_that_ends_with_its_recall_under_way_is_done() -> None:
    engine = mock_engine(_says("x" * 60))
    deliver_all(engine, engine.add(_task(max_tokens=100, eos_token_ids=frozenset({EOS}))), mock_recall)
    events = [event for _ in range(61) for event in engine.step()]
    assert finished_of(events, "s").num_recalls == 2
    # The span that was asked for never started; the one before it ends with what ran.
    assert [(record.start_token, record.end_token) for record in finished_of(events, "s").spans] == [(0, 5), (5, 65)]
    assert not engine.has_work
    assert not engine.deliver("s", 2, ())


def test_logits_that_are_no_numbers_end_their_sequence_only(monkeypatch: pytest.MonkeyPatch) -> None:
    original = mock_runner.mock_logits

    def broken(context: Context, next_token: object = None) -> torch.Tensor:
        logits_V = original(context)
        return logits_V * torch.nan if len(context) == 12 and context[0][0] == 2 else logits_V

    monkeypatch.setattr(mock_runner, "mock_logits", broken)
    tasks = [_task("good"), _task("bad", prompt_tokens=(2,) * 5), _task("fine", num_prompt=9)]
    events = run_all(mock_engine(MockRunner()), tasks)
    bad = finished_of(events, "bad")
    assert bad.reason is FinishReason.ERROR
    assert isinstance(bad.error, UnusableLogitsError)
    assert "context token 11" in str(bad.error)
    assert bad.num_output_tokens == 7
    for name in ("good", "fine"):
        assert finished_of(events, name).reason is FinishReason.LENGTH


def _failing(kind: str, slot: int) -> MockRunner:
    runner = MockRunner(num_slots=2)

    def before_call(called: str, slots: list[int]) -> None:
        if called == kind and slot in slots:
            runner.before_call = lambda kind, slots: None
            raise RuntimeError("out of memory")

    runner.before_call = before_call
    return runner


@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_a_model_call_that_fails_ends_its_sequences_and_no_others(kind: str) -> None:
    events = run_all(mock_engine(_failing(kind, 1)), [_task(name, max_tokens=80) for name in "abc"])
    reasons = [finished_of(events, name).reason for name in "abc"]
    assert reasons == [FinishReason.ERROR, FinishReason.ERROR, FinishReason.LENGTH]
    assert str(finished_of(events, "a").error) == "out of memory"


def test_memories_that_cannot_be_swapped_in_end_their_sequence_only() -> None:
    events = run_all(mock_engine(_failing("set_memories", 1)), [_task(name, max_tokens=80) for name in "abc"])
    reasons = [finished_of(events, name).reason for name in "abc"]
    assert reasons == [FinishReason.LENGTH, FinishReason.ERROR, FinishReason.LENGTH]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.8), Sampling(1.0, top_k=9), Sampling(1.5, top_p=0.8)])
def test_a_sequence_generates_the_same_alone_and_in_a_batch(sampling: Sampling) -> None:
    tasks = [_task(f"s{n}", num_prompt=n * 30 + 1, max_tokens=70, sampling=sampling, seed=n % 3) for n in range(6)]
    together = run_all(mock_engine(MockRunner(num_slots=4)), tasks)
    for task in tasks:
        assert tokens_of(run_all(mock_engine(MockRunner()), [task]), task.id) == tokens_of(together, task.id)


def test_the_seed_decides_what_is_drawn() -> None:
    def drawn(seed: int, sampling: Sampling) -> list[int]:
        return tokens_of(run_all(mock_engine(MockRunner()), [_task(sampling=sampling, seed=seed)]), "s")

    warm = Sampling(temperature=1.0)
    assert drawn(5, warm) == drawn(5, warm)
    assert drawn(5, warm) != drawn(6, warm)
    assert drawn(5, Sampling()) == drawn(6, Sampling())
    assert len(drawn(2**64 - 1, warm)) == 20


def test_stamps_come_in_order() -> None:
    timings = finished_of(run_all(mock_engine(MockRunner()), [_task()]), "s").timings
    stamps = [
        timings.queued_ns,
        timings.first_scheduled_ns,
        timings.first_token_ns,
        timings.last_token_ns,
        timings.finished_ns,
    ]
    assert all(earlier is not None and later is not None and earlier < later for earlier, later in pairwise(stamps))
    assert timings.prefill_ns > 0
