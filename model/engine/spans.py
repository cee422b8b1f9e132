"""Spans of one sequence: which context tokens read which memories, asked for, delivered, read.

    context     | prompt chunk 0 | prompt chunk 1 | partial |  64 generated  |  64 generated  | ...
    span        |       0        |       1        |    2    |       3        |       4        |
    recall      |      own       |      own       |   own   |  inherits 2's  |      own       |

A prompt chunk lies on the grid of query chunks; generated spans are counted from the end of the prompt. Token i of the
context reads the memories of the span it lies in. Knows no tensors: memories are carried, never opened.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from model.engine.events import SpanRecord, SpanStarted
from model.memory.explicit_memory import ExplicitMemory


@dataclass(slots=True)
class Span:
    """One span on its way from a query to attention. Times are nanoseconds of the engine's clock."""

    index: int
    start_token: int
    source: int
    """The span whose recall this one reads; itself if it asks on its own."""
    requested_ns: int | None = None
    delivered_ns: int | None = None
    started_ns: int | None = None
    stalled_ns: int = 0
    memories: tuple[ExplicitMemory, ...] = ()
    """Held from delivery until they lie in the cache."""
    reference_ids: tuple[str, ...] = ()
    attention_sums: tuple[float, ...] = ()
    """For each reference, its share of attention summed over the measurements."""
    num_measurements: int = 0
    """1 for a prompt chunk, one for each token of a generated span."""

    @property
    def is_awaited(self) -> bool:
        """Whether memories were asked for and have not come."""
        return self.requested_ns is not None and self.delivered_ns is None


class SpanLedger:
    """All spans of one memory-reading sequence, in order; a span's index is its place in `spans`."""

    def __init__(self, num_prompt_tokens: int, has_query: Sequence[bool], chunk_tokens: int, now_ns: int) -> None:
        """`has_query` says for each prompt chunk whether it asks on its own; those are marked as requested now."""
        self._num_prompt_tokens = num_prompt_tokens
        self._chunk_tokens = chunk_tokens
        self.num_prompt_spans = len(has_query)
        self.spans: list[Span] = []
        for index, asks in enumerate(has_query):
            source = index if asks or index == 0 else self.spans[-1].source
            requested_ns = now_ns if asks else None
            self.spans.append(Span(index, index * chunk_tokens, source, requested_ns))
        self.spans.append(Span(len(has_query), num_prompt_tokens, self.spans[-1].source))
        self._num_prompt_awaited = sum(has_query)

    def request(self, now_ns: int) -> Span:
        """Opens the next generated span, which asks on its own."""
        index = len(self.spans)
        start_token = self._num_prompt_tokens + (index - self.num_prompt_spans) * self._chunk_tokens
        span = Span(index, start_token, index, now_ns)
        self.spans.append(span)
        return span

    def next_boundary(self) -> int:
        """Tokens generated when the first span not yet opened would start."""
        return (len(self.spans) - self.num_prompt_spans) * self._chunk_tokens

    def deliver(self, index: int, memories: tuple[ExplicitMemory, ...], now_ns: int) -> bool:
        """Takes the memories of a span; False if nobody awaits them."""
        if not (0 <= index < len(self.spans) and self.spans[index].is_awaited):
            return False
        span = self.spans[index]
        span.delivered_ns = now_ns
        span.memories = memories
        span.reference_ids = tuple(memory.reference_id for memory in memories)
        if index < self.num_prompt_spans:
            self._num_prompt_awaited -= 1
        return True

    @property
    def is_prompt_awaited(self) -> bool:
        """Whether a prompt chunk still awaits its memories."""
        return self._num_prompt_awaited > 0

    def generated_span_at(self, token: int) -> int:
        """The span of a context token behind the prompt."""
        return self.num_prompt_spans + (token - self._num_prompt_tokens) // self._chunk_tokens

    def starting_at(self, token: int) -> Span | None:
        """The generated span that starts exactly at this context token, if one is open."""
        index = self.generated_span_at(token)
        if not self.num_prompt_spans <= index < len(self.spans):
            return None
        return self.spans[index] if self.spans[index].start_token == token else None

    def memories_of(self, index: int) -> tuple[ExplicitMemory, ...]:
        """What the span reads, inherited or its own."""
        return self.spans[self.spans[index].source].memories

    def start(self, index: int, sequence_id: str, now_ns: int) -> SpanStarted:
        """Marks a span as read from now on."""
        span = self.spans[index]
        source = self.spans[span.source]
        span.started_ns = now_ns
        span.reference_ids = source.reference_ids
        return SpanStarted(
            sequence_id=sequence_id,
            span=index,
            start_token=span.start_token,
            reference_ids=span.reference_ids,
            inherited_from=span.source if span.source != index else None,
            requested_ns=span.requested_ns,
            delivered_ns=span.delivered_ns,
            started_ns=now_ns,
            stalled_ns=span.stalled_ns,
        )

    def measure(self, index: int, shares: Sequence[float]) -> None:
        """Adds the attention shares (one for each memory) of one model call; a prompt chunk never spans two calls."""
        span = self.spans[index]
        sums = span.attention_sums or (0.0,) * len(span.reference_ids)
        # There are as many shares as memories may be; those behind the delivered ones are 0.
        span.attention_sums = tuple(old + share for old, share in zip(sums, shares, strict=False))
        span.num_measurements += 1

    def release(self, up_to: int) -> None:
        """Lets go of the memories of spans before `up_to`: they lie in the cache or are past."""
        for span in self.spans[:up_to]:
            span.memories = ()

    @property
    def num_recalls(self) -> int:
        """Spans for which a recall was asked."""
        return sum(span.requested_ns is not None for span in self.spans)

    def records(self, num_cached_tokens: int) -> tuple[SpanRecord, ...]:
        """What each span read whose first token is among the `num_cached_tokens` that ran."""
        ends = [span.start_token for span in self.spans[1:]] + [num_cached_tokens]
        return tuple(
            SpanRecord(
                span=span.index,
                start_token=span.start_token,
                end_token=min(end, num_cached_tokens),
                reference_ids=span.reference_ids,
                attention_mass=tuple(total / span.num_measurements for total in span.attention_sums),
            )
            for span, end in zip(self.spans, ends, strict=True)
            if span.start_token < num_cached_tokens
        )
