"""Who runs when, in which slot."""

import pytest

from model.engine.events import Finished, TokenReady
from model.engine.task import GenerationTask
from tests.helpers.mock_runner import MockRunner, deliver_all, finished_of, mock_engine, mock_recall, run_all


def _task(task_id: str, num_prompt: int = 10, max_tokens: int = 10, *, reads_memories: bool = False) -> GenerationTask:
    return GenerationTask(task_id, (1,) * num_prompt, (True,) * num_prompt, max_tokens, reads_memories)


def test_sequences_share_one_decode_step_for_each_token() -> None:
    runner = MockRunner()
    run_all(mock_engine(runner), [_task(name) for name in "abc"])
    assert runner.calls == [("prefill", {0: 10, 1: 10, 2: 10})] + [("decode", {0: 1, 1: 1, 2: 1})] * 9


def test_sequences_get_the_lowest_free_slot_in_the_order_they_came() -> None:
    runner = MockRunner(num_slots=2)
    engine = mock_engine(runner)
    lengths = {"a": 5, "b": 20, "c": 5, "d": 5, "e": 5}
    events = run_all(engine, [_task(name, max_tokens=length) for name, length in lengths.items()])
    ends = [event.sequence_id for event in events if isinstance(event, Finished)]
    assert ends == ["a", "c", "d", "e", "b"]
    assert [slots for kind, slots in runner.calls if kind == "prefill"] == [{0: 10, 1: 10}, {0: 10}, {0: 10}, {0: 10}]


def test_slots_are_decoded_in_ascending_order() -> None:
    """So that slots side by side are one view of the cache."""
    runner = MockRunner(num_slots=2)
    run_all(mock_engine(runner), [_task("short", max_tokens=3), _task("long", max_tokens=9), _task("next")])
    orders = [list(slots) for kind, slots in runner.calls if kind == "decode" and len(slots) == 2]
    assert len(orders) > 4
    assert all(order == [0, 1] for order in orders)


def test_a_slot_is_used_again_without_a_trace_of_who_had_it() -> None:
    runner = MockRunner(num_slots=1)
    run_all(mock_engine(runner), [_task("a", 100, reads_memories=True), _task("b", 7)])
    assert runner.contexts[0][:7] == [(1, ())] * 7
    assert len(runner.contexts[0]) == 16


def test_prompts_share_a_step_up_to_the_budget_and_pieces_end_on_the_grid() -> None:
    runner = MockRunner()
    prompts = {"a": 100, "b": 300, "c": 10}
    run_all(
        mock_engine(runner, prefill_tokens_per_step=256),
        [_task(name, num_prompt, 1) for name, num_prompt in prompts.items()],
    )
    # 156 tokens of the budget are left for b, 128 of them end on the grid; c fits into the rest.
    assert runner.calls == [("prefill", {0: 100, 1: 128, 2: 10}), ("prefill", {1: 172})]


def test_a_prompt_that_would_have_no_whole_chunk_left_waits_for_the_next_step() -> None:
    runner = MockRunner()
    run_all(mock_engine(runner, prefill_tokens_per_step=64), [_task("a", 10, 1), _task("b", 80, 1)])
    assert runner.calls == [("prefill", {0: 10}), ("prefill", {1: 64}), ("prefill", {1: 16})]


@pytest.mark.parametrize("num_prompt", [64, 65, 128, 500])
def test_a_long_prompt_delays_the_tokens_of_others_by_one_piece_at_a_time(num_prompt: int) -> None:
    runner = MockRunner(num_slots=2)
    engine = mock_engine(runner, prefill_tokens_per_step=64)
    engine.add(_task("talks", 10, 50))
    engine.step()
    engine.add(_task("long", num_prompt, 5))
    run_all(engine)
    kinds = [kind for kind, slots in runner.calls[1:] if kind == "prefill" or 0 in slots]
    assert kinds.count("prefill") == (num_prompt + 63) // 64
    assert "prefill prefill" not in " ".join(kinds)


def test_prompts_run_in_the_order_they_came_while_others_decode() -> None:
    events = run_all(mock_engine(MockRunner(), prefill_tokens_per_step=64), [_task(name, 200, 3) for name in "abcd"])
    first_tokens = list(dict.fromkeys(event.sequence_id for event in events if isinstance(event, TokenReady)))
    assert first_tokens == ["a", "b", "c", "d"]


def test_a_sequence_that_awaits_its_prompts_memories_holds_no_slot_and_keeps_its_place() -> None:
    runner = MockRunner(num_slots=1)
    engine = mock_engine(runner)
    (recall,) = engine.add(_task("first", reads_memories=True))
    for name in ("second", "third"):
        engine.add(_task(name))
    events = engine.step()
    assert [event.sequence_id for event in events] == ["second"]
    deliver_all(engine, [recall], mock_recall)
    events += run_all(engine)
    assert [event.sequence_id for event in events if isinstance(event, Finished)] == ["second", "first", "third"]


def test_counts_say_who_waits_runs_and_recalls() -> None:
    engine = mock_engine(MockRunner(num_slots=2))
    assert not engine.has_work
    assert not engine.is_stalled
    (recall,) = engine.add(_task("recalls", 64, 100, reads_memories=True))
    for name in ("runs", "waits"):
        engine.add(_task(name, max_tokens=100))
    assert (engine.num_waiting, engine.num_running, engine.num_recalling) == (3, 0, 0)
    deliver_all(engine, [recall], mock_recall)
    for _ in range(66):
        engine.step()
    assert (engine.num_waiting, engine.num_running, engine.num_recalling) == (1, 1, 1)
    assert not engine.is_stalled
    for name in ("runs", "waits"):
        engine.cancel(name)
    assert engine.is_stalled
    assert engine.step() == []


def test_an_engine_whose_slots_all_recall_is_stalled_though_others_wait() -> None:
    engine = mock_engine(MockRunner(num_slots=1))
    deliver_all(engine, engine.add(_task("recalls", 64, 100, reads_memories=True)), mock_recall)
    engine.add(_task("waits"))
    while not engine.num_recalling:
        engine.step()
    assert engine.is_stalled
    assert engine.step() == []


def test_many_short_sequences_all_end_while_a_long_one_runs() -> None:
    """Nobody starves: 40 come to 3 slots of which one is held for long."""
    tasks = [_task("long", 200, 400, reads_memories=True)]
    tasks += [
        _task(f"s{index}", 1 + index * 7 % 130, 1 + index % 9, reads_memories=index % 2 == 0) for index in range(40)
    ]
    events = run_all(mock_engine(MockRunner(num_slots=3)), tasks)
    ends = [event.sequence_id for event in events if isinstance(event, Finished)]
    assert len(ends) == 41
    assert ends[-1] == "long"
    assert all(finished_of(events, task.id).num_output_tokens == task.max_tokens for task in tasks)
