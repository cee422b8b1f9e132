"""Whatever happens in whatever order: no slot leaks, every sequence ends exactly once and reads what it should."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from model.engine.engine import Engine
from model.engine.events import Event, Finished, FinishReason, RecallNeeded, SpanQuery, SpanStarted, TokenReady
from model.engine.sequence import SequenceState
from model.engine.task import GenerationTask, Sampling
from model.memory.explicit_memory import ExplicitMemory
from tests.helpers.mock_runner import MockRunner, Ticks, mock_engine, mock_memory, run_all, tokens_of


def _recall(sequence_id: str, query: SpanQuery) -> tuple[ExplicitMemory, ...]:
    """Nothing, one or several, by the span alone, so that a run can be repeated."""
    return tuple(mock_memory(f"{sequence_id}/{query.span}/{rank}") for rank in range(query.span % 4))


class EngineMachine(RuleBasedStateMachine):
    """Adds, steps, cancels and delivers at random; recalls may be late, repeated or never answered until the end."""

    engine: Engine

    @initialize(num_slots=st.integers(1, 3), ahead=st.sampled_from([0, 8, 63]), budget=st.sampled_from([64, 128]))
    def start(self, num_slots: int, ahead: int, budget: int) -> None:
        self.runner = MockRunner(num_slots, max_context_tokens=400)
        self.options = {"recall_ahead_tokens": ahead, "prefill_tokens_per_step": budget}
        self.engine = mock_engine(self.runner, Ticks(), **self.options)
        self.tasks: dict[str, GenerationTask] = {}
        self.finished: dict[str, Finished] = {}
        self.open_recalls: list[tuple[str, SpanQuery]] = []
        self.events: list[Event] = []

    def _say(self, events: list[Event]) -> None:
        for event in events:
            assert event.sequence_id not in self.finished, "an event after the last"
            if isinstance(event, Finished):
                self.finished[event.sequence_id] = event
            elif isinstance(event, RecallNeeded):
                self.open_recalls += [(event.sequence_id, query) for query in event.spans]
        self.events += events

    @rule(
        num_prompt=st.sampled_from([1, 5, 63, 64, 65, 128, 150]),
        max_tokens=st.sampled_from([1, 2, 30, 65, 66, 140, 500]),
        reads_memories=st.booleans(),
        temperature=st.sampled_from([0.0, 1.0]),
        eos=st.frozensets(st.integers(0, 255), max_size=3),
    )
    def add(self, **fields: Any) -> None:
        task_id = f"s{len(self.tasks)}"
        num_prompt = fields["num_prompt"]
        self.tasks[task_id] = GenerationTask(
            id=task_id,
            prompt_tokens=tuple((len(self.tasks) * 31 + index) % 256 for index in range(num_prompt)),
            is_content=tuple(index % 100 < 70 for index in range(num_prompt)),
            max_tokens=fields["max_tokens"],
            reads_memories=fields["reads_memories"],
            sampling=Sampling(fields["temperature"]),
            seed=len(self.tasks),
            eos_token_ids=fields["eos"],
        )
        self._say(self.engine.add(self.tasks[task_id]))

    @rule(count=st.integers(1, 70))
    def step(self, count: int) -> None:
        for _ in range(count):
            self._say(self.engine.step())

    @rule(data=st.data())
    def deliver_one(self, data: st.DataObject) -> None:
        if self.open_recalls:
            index = data.draw(st.integers(0, len(self.open_recalls) - 1))
            sequence_id, query = self.open_recalls.pop(index)
            accepted = self.engine.deliver(sequence_id, query.span, _recall(sequence_id, query))
            assert accepted == (sequence_id not in self.finished)
            assert not self.engine.deliver(sequence_id, query.span, ())

    @rule()
    def deliver_all(self) -> None:
        while self.open_recalls:
            sequence_id, query = self.open_recalls.pop(0)
            self.engine.deliver(sequence_id, query.span, _recall(sequence_id, query))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.tasks:
            task_id = data.draw(st.sampled_from(sorted(self.tasks)))
            finished = self.engine.cancel(task_id)
            assert (finished is None) == (task_id in self.finished)
            if finished is not None:
                self._say([finished])

    @invariant()
    def slots_are_held_by_exactly_those_admitted(self) -> None:
        if not hasattr(self, "runner"):
            return
        scheduler = self.engine._scheduler
        held = [sequence.slot for sequence in scheduler.admitted.values()]
        assert sorted([*held, *scheduler._free_slots]) == list(range(self.runner.num_slots))  # type: ignore[type-var]
        assert all(sequence.slot is None for sequence in scheduler.waiting.values())
        assert all(sequence.state is SequenceState.WAITING for sequence in scheduler.waiting.values())
        assert set(self.tasks) - set(self.finished) == {*scheduler.waiting, *scheduler.admitted}
        recalling = [s for s in scheduler.admitted.values() if s.state is SequenceState.RECALLING]
        assert all(any(s.task.id == open_id for open_id, _ in self.open_recalls) for s in recalling)

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        for _ in range(10_000):
            if not self.engine.has_work:
                break
            self.deliver_all()
            self._say(self.engine.step())
        assert set(self.finished) == set(self.tasks)
        assert self.engine._scheduler.num_free_slots == self.runner.num_slots
        self._compare_with_running_alone()

    def _compare_with_running_alone(self) -> None:
        for task_id, finished in self.finished.items():
            own = [event for event in self.events if event.sequence_id == task_id]
            tokens = tokens_of(own, task_id)
            assert finished.num_output_tokens == len(tokens)
            alone = run_all(mock_engine(MockRunner(1, 400), Ticks(), **self.options), [self.tasks[task_id]], _recall)
            kinds = (SpanStarted, TokenReady)
            said = [_without_times(event) for event in own if isinstance(event, kinds)]
            expected = [_without_times(event) for event in alone if isinstance(event, kinds)]
            if finished.reason is FinishReason.CANCELLED:
                expected = expected[: len(said)]
            assert said == expected


def _without_times(event: Event) -> tuple[object, ...]:
    if isinstance(event, SpanStarted):
        return (event.span, event.start_token, event.reference_ids, event.inherited_from)
    assert isinstance(event, TokenReady)
    return (event.text, event.token_ids)


EngineMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestEngineMachine = EngineMachine.TestCase
