"""Continuous batching with recall: sequences join, leave, and stop for their memories, and the batch goes on.

The engine asks for memories (`RecallNeeded`) and takes them (`deliver`); it never fetches any. It knows no network, no
clock but the one handed in, no tokenizer but the detokenizer handed in. It is plain synchronous code for one thread:
the caller runs `step` in a loop and makes all other calls between two steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from model.engine.batch import Batch
from model.engine.events import Event, Finished, FinishReason, TokenReady
from model.engine.ports import Detokenizer, Runner
from model.engine.sampler import sample
from model.engine.scheduler import DecodeStep, PrefillStep, Scheduler
from model.engine.sequence import Sequence, SequenceState
from model.engine.task import ContextTooLongError, GenerationTask
from model.memory.collate import check_memories
from model.memory.explicit_memory import ExplicitMemory


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine shares its steps. Checked when an engine is made."""

    prefill_tokens_per_step: int = 512
    """Prompt tokens that one step runs at most; a multiple of the plan's query chunk. Bounds how long a prompt holds up
    the tokens of others."""
    recall_ahead_tokens: int = 8
    """Tokens before a boundary at which the next span's memories are asked for; 0 to the query chunk less one. More
    hide a slower recall and make its query older."""


class UnusableLogitsError(ArithmeticError):
    """The model gave logits that are not numbers."""


class Engine:
    """Runs many generations on one model. Times are nanoseconds of `clock_ns`."""

    def __init__(
        self,
        runner: Runner,
        make_detokenizer: Callable[[], Detokenizer],
        clock_ns: Callable[[], int],
        options: EngineOptions | None = None,
    ) -> None:
        """`make_detokenizer` gives a fresh one for each sequence.

        Raises:
            ValueError: an option is out of its range.
        """
        options = options or EngineOptions()
        self._chunk_tokens = runner.plan.query_chunk_tokens
        if options.prefill_tokens_per_step < 1 or options.prefill_tokens_per_step % self._chunk_tokens:
            raise ValueError(
                f"prefill_tokens_per_step is {options.prefill_tokens_per_step}; "
                f"it must be a positive multiple of the query chunk, {self._chunk_tokens}"
            )
        if not 0 <= options.recall_ahead_tokens < self._chunk_tokens:
            raise ValueError(
                f"recall_ahead_tokens is {options.recall_ahead_tokens}; "
                f"it must lie between 0 and {self._chunk_tokens - 1}, one less than the query chunk"
            )
        self._runner = runner
        self._batch = Batch(runner, clock_ns)
        self._make_detokenizer = make_detokenizer
        self._clock_ns = clock_ns
        self._recall_ahead_tokens = options.recall_ahead_tokens
        self._scheduler = Scheduler(runner.num_slots, self._chunk_tokens, options.prefill_tokens_per_step)
        self.num_ignored_deliveries = 0
        """Deliveries nobody awaited: the sequence had ended, or the span has its memories already."""

    @property
    def has_work(self) -> bool:
        """Whether any sequence has not finished."""
        return bool(self._scheduler.waiting or self._scheduler.admitted)

    @property
    def is_stalled(self) -> bool:
        """Whether there is work and none of it can run until a delivery."""
        return self.has_work and not self._scheduler.can_step

    @property
    def num_waiting(self) -> int:
        """Sequences without a slot."""
        return len(self._scheduler.waiting)

    @property
    def num_running(self) -> int:
        """Sequences whose prompt or next token can run."""
        return self._num_admitted(SequenceState.RUNNING)

    @property
    def num_recalling(self) -> int:
        """Sequences that hold a slot and stand at a boundary."""
        return self._num_admitted(SequenceState.RECALLING)

    def add(self, task: GenerationTask) -> list[Event]:
        """Queues a generation. Returns the `RecallNeeded` of its prompt, if it reads memories.

        Raises:
            ContextTooLongError: the prompt leaves no room to generate.
            ValueError: the id is in use, or a token is not in the vocabulary.
        """
        if self._scheduler.get(task.id) is not None:
            raise ValueError(f"sequence {task.id!r} has not finished; give each task an id of its own")
        limit = self._runner.max_context_tokens
        if len(task.prompt_tokens) >= limit:
            raise ContextTooLongError(
                f"the prompt has {len(task.prompt_tokens)} tokens, the context {limit}, at least one of them "
                "to generate; shorten the prompt"
            )
        for token in (min(task.prompt_tokens), max(task.prompt_tokens)):
            if not 0 <= token < self._runner.vocab_size:
                raise ValueError(
                    f"token {token} is not in the vocabulary of {self._runner.vocab_size}; "
                    "encode with the model's tokenizer"
                )
        max_output_tokens = min(task.max_tokens, limit - len(task.prompt_tokens))
        sequence = Sequence(task, self._make_detokenizer(), max_output_tokens, self._chunk_tokens, self._clock_ns())
        self._scheduler.add(sequence)
        self._mark_prompt_stalls()
        recall = sequence.prompt_recall()
        return [recall] if recall is not None else []

    def deliver(self, sequence_id: str, span: int, memories: tuple[ExplicitMemory, ...]) -> bool:
        """Gives the memories of one span, best first; fewer or none if that is what came.

        Returns False, and counts it, when nobody awaits them any more.

        Raises:
            ValueError: there are more memories than the plan has rows for, or one is of another shape; nothing changed.
        """
        check_memories(memories, self._runner.plan, self._runner.config)
        sequence = self._scheduler.get(sequence_id)
        now_ns = self._clock_ns()
        if sequence is None or sequence.ledger is None or not sequence.ledger.deliver(span, memories, now_ns):
            self.num_ignored_deliveries += 1
            return False
        if sequence.state is SequenceState.RECALLING:
            sequence.end_stall(now_ns, sequence.ledger.spans[span])
            sequence.state = SequenceState.RUNNING
        elif not sequence.ledger.is_prompt_awaited:
            sequence.end_stall(now_ns, sequence.ledger.spans[0])
        return True

    def cancel(self, sequence_id: str) -> Finished | None:
        """Ends a sequence; its slot is free at once. Returns its last event, None if it has ended already."""
        sequence = self._scheduler.get(sequence_id)
        if sequence is None:
            return None
        finished = self._finish(sequence, FinishReason.CANCELLED)
        self._mark_prompt_stalls()
        return finished

    def step(self) -> list[Event]:
        """Runs one piece of prompts or one token of all that decode. Does nothing when nothing can run.

        A model call that raises ends the sequences it was made for, with `FinishReason.ERROR`, and no others.
        """
        now_ns = self._clock_ns()
        for sequence in self._scheduler.admit():
            sequence.first_scheduled_ns = now_ns
        events: list[Event] = []
        match self._scheduler.next_step():
            case PrefillStep(pieces):
                self._prefill(pieces, events)
            case DecodeStep(sequences):
                self._decode(sequences, events)
        self._mark_prompt_stalls()
        return events

    def _prefill(self, pieces: tuple[tuple[Sequence, int], ...], events: list[Event]) -> None:
        try:
            done, logits_BV = self._batch.prefill(pieces, events)
        except Exception as error:
            self._fail([sequence for sequence, _ in pieces], error, events)
            return
        if logits_BV is not None:
            self._take_tokens(done, logits_BV, events)

    def _decode(self, sequences: tuple[Sequence, ...], events: list[Event]) -> None:
        running = [sequence for sequence in sequences if self._swap_in(sequence, events)]
        if not running:
            return
        try:
            logits_BV = self._batch.decode(running)
        except Exception as error:
            self._fail(running, error, events)
            return
        self._take_tokens(running, logits_BV, events)

    def _swap_in(self, sequence: Sequence, events: list[Event]) -> bool:
        """Gives the sequence the memories its next token reads; False if it failed and ended."""
        try:
            started = self._batch.swap_in(sequence)
        except Exception as error:
            self._fail([sequence], error, events)
            return False
        if started is not None:
            events.append(started)
        return True

    def _take_tokens(self, sequences: list[Sequence], logits_BV: Tensor, events: list[Event]) -> None:
        samplings = [sequence.task.sampling for sequence in sequences]
        tokens = sample(logits_BV, samplings, [sequence.generator for sequence in sequences])
        for sequence, token in zip(sequences, tokens, strict=True):
            if token is None:
                text = f"the logits after context token {sequence.num_cached_tokens - 1} are not numbers"
                self._fail([sequence], UnusableLogitsError(text), events)
            else:
                self._take_token(sequence, token, events)

    def _take_token(self, sequence: Sequence, token: int, events: list[Event]) -> None:
        """Text, end, and what the next token needs."""
        now_ns = self._clock_ns()
        sequence_id = sequence.task.id
        if token in sequence.task.eos_token_ids:
            if rest := sequence.text.flush():
                events.append(TokenReady(sequence_id, rest, ()))
            events.append(self._finish(sequence, FinishReason.STOP if sequence.text.is_stopped else FinishReason.END))
            return
        if sequence.first_token_ns is None:
            sequence.first_token_ns = now_ns
        sequence.last_token_ns = now_ns
        sequence.output_tokens.append(token)
        text = sequence.text.push(token)
        is_full = len(sequence.output_tokens) == sequence.max_output_tokens
        if is_full:
            text += sequence.text.flush()
        events.append(TokenReady(sequence_id, text, (token,)))
        if sequence.text.is_stopped or is_full:
            reason = FinishReason.STOP if sequence.text.is_stopped else FinishReason.LENGTH
            events.append(self._finish(sequence, reason))
            return
        recall = sequence.next_recall(self._recall_ahead_tokens, now_ns)
        if recall is not None:
            events.append(recall)
        span = sequence.starting_span()
        if span is not None and span.is_awaited:
            sequence.state = SequenceState.RECALLING
            sequence.stall(now_ns)

    def _mark_prompt_stalls(self) -> None:
        """Of those that wait, tells the ones that a recall keeps from running from the ones that lack a slot."""
        now_ns = self._clock_ns()
        awaiting = [waiting for waiting in self._scheduler.waiting.values() if waiting.is_awaiting_prompt_memories]
        num_ready = len(self._scheduler.waiting) - len(awaiting)
        num_slots = max(0, self._scheduler.num_free_slots - num_ready)
        for sequence in awaiting[:num_slots]:
            sequence.stall(now_ns)
        for sequence in awaiting[num_slots:]:
            if sequence.ledger is not None:
                sequence.end_stall(now_ns, sequence.ledger.spans[0])

    def _fail(self, sequences: list[Sequence], error: Exception, events: list[Event]) -> None:
        events.extend(self._finish(sequence, FinishReason.ERROR, error) for sequence in sequences)

    def _finish(self, sequence: Sequence, reason: FinishReason, error: Exception | None = None) -> Finished:
        self._scheduler.remove(sequence)
        return sequence.finish(reason, self._clock_ns(), error)

    def _num_admitted(self, state: SequenceState) -> int:
        return sum(sequence.state is state for sequence in self._scheduler.admitted.values())
