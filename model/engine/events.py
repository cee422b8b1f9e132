"""What the engine says. Events of one sequence come in order; `Finished` is its last.

All times are nanoseconds of the clock that was handed to the engine; they compare with each other only.
"""

from dataclasses import dataclass
from enum import Enum


class FinishReason(Enum):
    """Why a sequence ended."""

    END = "end"
    """An end-of-sequence token was drawn."""
    STOP = "stop"
    """A stop sequence appeared."""
    LENGTH = "length"
    """`max_tokens` were generated, or the context is full."""
    CANCELLED = "cancelled"
    """`Engine.cancel` was called."""
    ERROR = "error"
    """The model failed on it; see `Finished.error`."""


@dataclass(frozen=True, slots=True)
class SpanQuery:
    """What to recall memories with, for one span."""

    span: int
    """The span that will read them, from 0: prompt chunks first, then generated chunks."""
    query_tokens: tuple[int, ...]
    """1 to `query_chunk_tokens` tokens, oldest first."""


@dataclass(frozen=True, slots=True)
class RecallNeeded:
    """Recall memories for these spans and `deliver` each, whatever was found. All prompt chunks come in one event."""

    sequence_id: str
    spans: tuple[SpanQuery, ...]


@dataclass(frozen=True, slots=True)
class SpanStarted:
    """From this context token on, the sequence reads these references. Said before the first token that reads them."""

    sequence_id: str
    span: int
    start_token: int
    """First context token of the span, from 0, inclusive."""
    reference_ids: tuple[str, ...]
    """As delivered, in that order."""
    inherited_from: int | None
    """The span whose memories this one reads on; None if it had a recall of its own."""
    requested_ns: int | None
    """When `RecallNeeded` was said; None if inherited, as is the next."""
    delivered_ns: int | None
    """When the memories were delivered."""
    started_ns: int
    """When the memories were swapped in."""
    stalled_ns: int
    """How long the sequence waited for this recall though it could have run. The prompt's wait is told on span 0."""


@dataclass(frozen=True, slots=True)
class TokenReady:
    """Newly generated tokens and the text they complete."""

    sequence_id: str
    text: str
    """Complete characters that cannot be part of a stop sequence; may be empty."""
    token_ids: tuple[int, ...]
    """Tokens drawn since the event before, without end-of-sequence; empty when only held-back text is released."""


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """What one span read, known when the sequence has ended."""

    span: int
    start_token: int
    """First context token, from 0, inclusive."""
    end_token: int
    """Last context token that ran, exclusive. The last token drawn never runs and is in no span."""
    reference_ids: tuple[str, ...]
    attention_mass: tuple[float, ...]
    """Share of the span's attention that went to each reference, mean over its tokens; empty unless asked for."""


@dataclass(frozen=True, slots=True)
class SequenceTimings:
    """When and how long. A stage that was never reached is None (a time) or 0 (a duration)."""

    queued_ns: int
    """Added to the engine."""
    first_scheduled_ns: int | None
    """Given a slot."""
    first_token_ns: int | None
    last_token_ns: int | None
    finished_ns: int
    prefill_ns: int
    """Duration of the model calls that ran the prompt."""
    stalled_ns: int
    """Duration in which only a recall kept it from running, before the prompt and between tokens."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The sequence has ended and its slot is free. Exactly one for each sequence."""

    sequence_id: str
    reason: FinishReason
    spans: tuple[SpanRecord, ...]
    """Spans that were read, in order; empty for a sequence that reads no memories."""
    num_prompt_tokens: int
    num_output_tokens: int
    """Tokens generated, without end-of-sequence: the sum over all `TokenReady`."""
    num_recalls: int
    """Spans for which a recall was asked."""
    timings: SequenceTimings
    error: Exception | None = None
    """What the model raised; only with `FinishReason.ERROR`."""


Event = RecallNeeded | SpanStarted | TokenReady | Finished
