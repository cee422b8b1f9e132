"""Sequences to model calls and back: which tokens and memories go into which slot, and what attention read.

Decides nothing: the scheduler says what runs, the engine what a drawn token means. What the model raises passes.
"""

from collections.abc import Callable
from collections.abc import Sequence as Items

from torch import Tensor

from model.engine.events import Event, SpanStarted
from model.engine.ports import Runner
from model.engine.sequence import Sequence
from model.memory.explicit_memory import ExplicitMemory
from model.runner import PrefillItem


class Batch:
    """Runs sequences on a model. Legend: B sequences, C chunks touched, M memories of a chunk, V vocabulary."""

    def __init__(self, runner: Runner, clock_ns: Callable[[], int]) -> None:
        self._runner = runner
        self._chunk_tokens = runner.plan.query_chunk_tokens
        self._clock_ns = clock_ns

    def prefill(self, pieces: Items[tuple[Sequence, int]], events: list[Event]) -> tuple[list[Sequence], Tensor | None]:
        """Runs the next prompt tokens of each and says which spans start.

        Returns the sequences whose prompt is done, and their logits_BV.
        """
        started_ns = self._clock_ns()
        items = [self._prefill_item(sequence, num_tokens, started_ns, events) for sequence, num_tokens in pieces]
        reports = any(sequence.task.report_attention for sequence, _ in pieces)
        output = self._runner.prefill(items, report_attention=reports)
        duration_ns = self._clock_ns() - started_ns
        done: list[tuple[int, Sequence]] = []
        for row, (sequence, num_tokens) in enumerate(pieces):
            sequence.prefill_ns += duration_ns
            _measure(sequence, output.attention_BCM, row, self._chunks(sequence, num_tokens))
            sequence.num_cached_tokens += num_tokens
            if sequence.num_unrun_prompt_tokens == 0:
                done.append((row, sequence))
                if sequence.ledger is not None:
                    sequence.ledger.release(sequence.ledger.num_prompt_spans)
        rows = [row for row, _ in done]
        return [sequence for _, sequence in done], output.logits_BV[rows] if rows else None

    def swap_in(self, sequence: Sequence) -> SpanStarted | None:
        """If the next token starts a span, puts its memories over those in the cache."""
        span = sequence.starting_span()
        if span is None or sequence.ledger is None:
            return None
        if span.source == span.index:  # inherited memories lie in the cache already
            self._runner.set_memories(_slot(sequence), span.memories)
        sequence.ledger.release(span.index + 1)
        return sequence.ledger.start(span.index, sequence.task.id, self._clock_ns())

    def decode(self, sequences: Items[Sequence]) -> Tensor:
        """Runs the last token drawn of each; logits_BV."""
        output = self._runner.decode(
            [_slot(sequence) for sequence in sequences],
            [sequence.output_tokens[-1] for sequence in sequences],
            report_attention=any(sequence.task.report_attention for sequence in sequences),
        )
        for row, sequence in enumerate(sequences):
            if sequence.ledger is not None:
                span = sequence.ledger.generated_span_at(sequence.num_cached_tokens)
                _measure(sequence, output.attention_BCM, row, range(span, span + 1))
            sequence.num_cached_tokens += 1
        return output.logits_BV

    def _prefill_item(self, sequence: Sequence, num_tokens: int, now_ns: int, events: list[Event]) -> PrefillItem:
        begin = sequence.num_cached_tokens
        end = begin + num_tokens
        if begin == 0:
            self._runner.reset(_slot(sequence), reads_memories=sequence.task.reads_memories)
        chunks = self._chunks(sequence, num_tokens)
        chunk_memories: list[tuple[ExplicitMemory, ...]] = [() for _ in chunks]
        if sequence.ledger is not None:
            chunk_memories = [sequence.ledger.memories_of(chunk) for chunk in chunks]
            events.extend(sequence.ledger.start(chunk, sequence.task.id, now_ns) for chunk in chunks)
        return PrefillItem(_slot(sequence), sequence.task.prompt_tokens[begin:end], chunk_memories)

    def _chunks(self, sequence: Sequence, num_tokens: int) -> range:
        """The prompt chunks that its next `num_tokens` tokens touch."""
        begin = sequence.num_cached_tokens
        return range(begin // self._chunk_tokens, -(-(begin + num_tokens) // self._chunk_tokens))


def _measure(sequence: Sequence, attention_BCM: Tensor | None, row: int, spans: range) -> None:
    """Notes the attention shares of one row, if its sequence asked for them."""
    if attention_BCM is None or sequence.ledger is None or not sequence.task.report_attention:
        return
    for span, shares in zip(spans, attention_BCM[row, : len(spans)].tolist(), strict=True):
        sequence.ledger.measure(span, shares)


def _slot(sequence: Sequence) -> int:
    assert sequence.slot is not None, f"sequence {sequence.task.id} runs without a slot"
    return sequence.slot
