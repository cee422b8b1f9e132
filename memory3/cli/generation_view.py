"""A finished generation for people: references, counts, times. Knows no client and no command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from memory3.cli.output import counted, first_words, milliseconds, plain, table
from memory3.types import FinalEvent, MemoryStatus, RecalledMemory, RecallEvent, Span

_STYLES = {MemoryStatus.READ: "green", MemoryStatus.LATE: "yellow", MemoryStatus.MISSING: "yellow"}
_WIDE = 110
"""From this many columns on there is room for the ids that `memory3 inspect` takes."""


@dataclass
class _Row:
    """One reference with the spans that recalled it; the memory of its highest score."""

    memory: RecalledMemory
    spans: list[int] = field(default_factory=list)
    attention: list[float] = field(default_factory=list)


class ReferenceTable:
    """The recalled references, each once, by first span and falling score."""

    def __init__(self, recalls: Sequence[RecallEvent], spans: Sequence[Span] = ()) -> None:
        self._rows = _merge(recalls, spans)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= _WIDE
        measured = any(row.attention for row in self._rows)
        rows = table(
            ("score", "right"),
            "status",
            "tier",
            "spans",
            *([("attention", "right")] if measured else []),
            *(["reference"] if wide else []),
            ("document", "text"),
            ("text", "text"),
        )
        for row in self._rows:
            memory = row.memory
            mean = sum(row.attention) / len(row.attention) if row.attention else None
            rows.add_row(
                f"{memory.score:.3f}",
                Text(memory.status.name.lower(), style=_STYLES.get(memory.status, "red")),
                memory.tier.name.lower() if memory.tier else "-",
                _ranges(row.spans),
                *(["" if mean is None else f"{mean:.1%}"] if measured else []),
                *([plain(memory.reference_id)] if wide else []),
                first_words(memory.title or memory.document_id),
                first_words(memory.text),
            )
        yield rows


def _merge(recalls: Sequence[RecallEvent], spans: Sequence[Span]) -> list[_Row]:
    rows: dict[str, _Row] = {}
    for recall in recalls:
        for memory in recall.memories:
            row = rows.setdefault(memory.reference_id, _Row(memory))
            row.spans.append(recall.span)
            if memory.score > row.memory.score:
                row.memory = memory
    for span in spans:
        for reference_id, mass in zip(span.reference_ids, span.attention_mass, strict=False):
            if reference_id in rows:
                rows[reference_id].attention.append(mass)
    return list(rows.values())


def _ranges(numbers: Sequence[int]) -> str:
    """0, 1, 2, 4 as "0-2,4"."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def counts(final: FinalEvent) -> list[str]:
    """What was counted, a line a subject; recalls only where there were any."""
    usage = final.usage
    references = f", {usage.num_reference_tokens} of them references" if usage.num_reference_tokens else ""
    lines = [
        f"{counted(usage.num_prompt_tokens, 'prompt token')}{references}, {usage.num_output_tokens} generated, "
        f"ended by {final.finish_reason.name.lower()}, seed {final.seed}"
    ]
    if usage.num_recalls:
        lines.append(
            f"{counted(usage.num_recalls, 'recall')}: {counted(usage.num_memories_read, 'memory', 'memories')} read, "
            f"{usage.num_memories_late} late, {usage.num_memories_missing} missing"
        )
    if usage.num_recalls_failed:
        lines.append(
            f"retrieval failed or was late in {usage.num_recalls_failed} of {counted(usage.num_recalls, 'recall')}; "
            "the answer went on without"
        )
    return lines


def times(final: FinalEvent, client_ttft_ns: int) -> Table:
    """Time by stage, named like the spans; the client's own time to the first token beside the server's."""
    timing = final.timing
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row(
        Text("time", style="bold"),
        f"total {milliseconds(timing.total_ns)} ms: queue {milliseconds(timing.queue_ns)}, "
        f"prefill {milliseconds(timing.prefill_ns)}, decode {milliseconds(timing.decode_ns)}",
    )
    grid.add_row(
        Text("first token", style="bold"),
        f"{milliseconds(timing.ttft_ns)} ms (seen here after {milliseconds(client_ttft_ns)} ms)",
    )
    gaps = final.usage.num_output_tokens - 1
    if gaps > 0 and timing.decode_ns > 0:
        grid.add_row(
            Text("speed", style="bold"),
            f"{milliseconds(timing.decode_ns // gaps)} ms a token, {gaps * 1e9 / timing.decode_ns:.1f} tokens/s",
        )
    if final.usage.num_recalls:
        grid.add_row(
            Text("recall", style="bold"),
            f"{milliseconds(timing.recall_ns)} ms: retrieve {milliseconds(timing.retrieve_ns)}, "
            f"fetch {milliseconds(timing.fetch_ns)}, load {milliseconds(timing.load_ns)} "
            f"(waited {milliseconds(timing.stalled_ns)} ms)",
        )
    return grid
