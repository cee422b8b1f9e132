"""One generation on its way through the engine: its state, its place in the cache, what it has drawn, its stamps.

Knows neither the other sequences nor the model.

    WAITING ──slot and prompt memories there──▶ RUNNING ──boundary without memories──▶ RECALLING
                                                   ▲  └──────────▶ FINISHED                │
                                                   └──────────── memories delivered ───────┘
"""

from enum import Enum

from model.engine.events import Finished, FinishReason, RecallNeeded, SequenceTimings, SpanQuery
from model.engine.ports import Detokenizer
from model.engine.query import generated_query, prompt_queries
from model.engine.sampler import make_generator
from model.engine.spans import Span, SpanLedger
from model.engine.stop import TextStream
from model.engine.task import GenerationTask


class SequenceState(Enum):
    """Where a sequence stands."""

    WAITING = "waiting"
    """Has no slot yet, or its prompt's memories have not all come."""
    RUNNING = "running"
    """Holds a slot; its prompt or its next token can run."""
    RECALLING = "recalling"
    """Holds a slot and stands at a boundary until its memories come."""
    FINISHED = "finished"
    """Ended; holds nothing."""


class Sequence:
    """A `GenerationTask` under way. Times are nanoseconds of the engine's clock."""

    def __init__(
        self, task: GenerationTask, detokenizer: Detokenizer, max_output_tokens: int, chunk_tokens: int, now_ns: int
    ) -> None:
        """`max_output_tokens` is what the task and the context allow; `chunk_tokens` the plan's query chunk."""
        self.task = task
        self.state = SequenceState.WAITING
        self.slot: int | None = None
        self.num_cached_tokens = 0
        """Context tokens that have run and lie in the cache."""
        self.output_tokens: list[int] = []
        self.max_output_tokens = max_output_tokens
        self.text = TextStream(detokenizer, task.stop)
        self.generator = make_generator(task.seed) if task.sampling.temperature > 0 else None
        self._chunk_tokens = chunk_tokens
        self._queries = prompt_queries(task.prompt_tokens, task.is_content, chunk_tokens) if task.reads_memories else []
        self.ledger = (
            SpanLedger(self.num_prompt_tokens, [query is not None for query in self._queries], chunk_tokens, now_ns)
            if task.reads_memories
            else None
        )
        self.queued_ns = now_ns
        self.first_scheduled_ns: int | None = None
        self.first_token_ns: int | None = None
        self.last_token_ns: int | None = None
        self.prefill_ns = 0
        self.stalled_ns = 0
        self.stalled_since_ns: int | None = None

    @property
    def num_prompt_tokens(self) -> int:
        """Context tokens of the prompt."""
        return len(self.task.prompt_tokens)

    @property
    def num_unrun_prompt_tokens(self) -> int:
        """Prompt tokens that have not run; 0 once it decodes."""
        return max(0, self.num_prompt_tokens - self.num_cached_tokens)

    @property
    def is_awaiting_prompt_memories(self) -> bool:
        """Whether a recall of the prompt is under way."""
        return self.ledger is not None and self.ledger.is_prompt_awaited

    def prompt_recall(self) -> RecallNeeded | None:
        """What to recall before the prompt can run: all chunks at once."""
        spans = tuple(SpanQuery(index, query) for index, query in enumerate(self._queries) if query is not None)
        return RecallNeeded(self.task.id, spans) if spans else None

    def next_recall(self, recall_ahead_tokens: int, now_ns: int) -> RecallNeeded | None:
        """Asks for the next generated span's memories once, `recall_ahead_tokens` before it starts.

        Nothing is asked when no token of that span would ever run: the last token drawn does not.
        """
        if self.ledger is None:
            return None
        boundary = self.ledger.next_boundary()
        if len(self.output_tokens) < boundary - recall_ahead_tokens or self.max_output_tokens < boundary + 2:
            return None
        span = self.ledger.request(now_ns)
        query = generated_query(self.task.prompt_tokens, self.task.is_content, self.output_tokens, self._chunk_tokens)
        return RecallNeeded(self.task.id, (SpanQuery(span.index, query),))

    def starting_span(self) -> Span | None:
        """The generated span whose first token is the next to run, if there is one."""
        return self.ledger.starting_at(self.num_cached_tokens) if self.ledger is not None else None

    def stall(self, now_ns: int) -> None:
        """From now on only a recall keeps it from running."""
        if self.stalled_since_ns is None:
            self.stalled_since_ns = now_ns

    def end_stall(self, now_ns: int, waited_for: Span | None = None) -> None:
        """The wait is over, or something else keeps it from running now; it is told with the span waited for."""
        if self.stalled_since_ns is None:
            return
        waited_ns, self.stalled_since_ns = now_ns - self.stalled_since_ns, None
        self.stalled_ns += waited_ns
        if waited_for is not None:
            waited_for.stalled_ns += waited_ns

    def finish(self, reason: FinishReason, now_ns: int, error: Exception | None = None) -> Finished:
        """Ends it; its event."""
        self.end_stall(now_ns)
        self.state = SequenceState.FINISHED
        return Finished(
            sequence_id=self.task.id,
            reason=reason,
            spans=self.ledger.records(self.num_cached_tokens) if self.ledger is not None else (),
            num_prompt_tokens=self.num_prompt_tokens,
            num_output_tokens=len(self.output_tokens),
            num_recalls=self.ledger.num_recalls if self.ledger is not None else 0,
            timings=SequenceTimings(
                queued_ns=self.queued_ns,
                first_scheduled_ns=self.first_scheduled_ns,
                first_token_ns=self.first_token_ns,
                last_token_ns=self.last_token_ns,
                finished_ns=now_ns,
                prefill_ns=self.prefill_ns,
                stalled_ns=self.stalled_ns,
            ),
            error=error,
        )
