"""An evaluation's results for people and scripts: terminal table, Markdown, JSON, items as JSON Lines.

Decides nothing; figures come from `figures`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.evaluation.figures import Figures, ItemResult
from services.evaluation.modes import READINGS, Mode

_NLL_DIGITS = 6
_Cell = Callable[[Mode, Figures], str]


@dataclass(frozen=True)
class Header:
    """What the figures are of. Figures without it mean nothing."""

    date: str
    """UTC."""
    machine: str
    model: str
    adapter: str | None
    """SHA-256 of the adapter's weights."""
    plan: str
    """The plan's name."""
    memory_layers: str
    tokens_per_memory: int
    memories_per_chunk: int
    codec: str
    memory_bytes: float | None
    """Mean size of the records written; None if none were."""
    dtype: str
    model_fingerprint: str
    set: str
    split: str
    items: int
    seed: int
    generated_tokens: int
    """Tokens generated for `contains` at most; 0: nothing was generated."""
    truncated_references: float
    """Share of the references read that were longer than the plan allows, and cut."""
    seconds: float
    plan_json: str

    def lines(self) -> list[str]:
        """For people."""
        adapter = f"adapter {self.adapter[:12]}" if self.adapter else "no adapter"
        record = f", {self.memory_bytes:,.0f} bytes a memory" if self.memory_bytes else ""
        generated = (
            f"at most {self.generated_tokens} tokens generated" if self.generated_tokens else "nothing generated"
        )
        return [
            f"{self.set}, {self.split} split, {self.items} items, seed {self.seed}; {generated}; "
            f"{self.truncated_references:.1%} of the references were cut",
            f"{self.model}, {adapter}, {self.dtype}; plan {self.plan}: layers {self.memory_layers}, "
            f"{self.tokens_per_memory} tokens a memory, {self.memories_per_chunk} memories a chunk",
            f"codec {self.codec}{record}",
            f"{self.date} UTC, {self.machine}, {self.seconds:.0f} s",
        ]


@dataclass(frozen=True)
class Report:
    """One evaluation."""

    header: Header
    figures: Mapping[Mode, Figures]
    results: Mapping[Mode, Sequence[ItemResult]]
    """What the figures sum up; items in the same order in every mode."""

    def to_json(self) -> dict[str, Any]:
        """`header`; `modes`: mode -> figures by name; `items`: id, and NLL by mode: pairs evaluations."""
        return {
            "header": dataclasses.asdict(self.header),
            "modes": {mode.value: dataclasses.asdict(figures) for mode, figures in self.figures.items()},
            "items": [_nlls(self.results, rows) for rows in zip(*self.results.values(), strict=True)],
        }


def _nlls(modes: Iterable[Mode], rows: Sequence[ItemResult]) -> dict[str, Any]:
    """One item's row in each mode."""
    nll = {mode.value: round(row.nll, _NLL_DIGITS) for mode, row in zip(modes, rows, strict=True)}
    return {"item_id": rows[0].item_id, "nll": nll}


def print_report(report: Report, console: Console) -> None:
    """The table, with what it is of."""
    for line in report.header.lines():
        console.print(escape(line), style="dim")
    columns = _columns(report)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, _ in columns:
        table.add_column(name, justify="left" if name == "mode" else "right", no_wrap=True)
    for mode, figures in report.figures.items():
        table.add_row(*(cell(mode, figures) for _, cell in columns))
    console.print(table)
    console.print(_EXPLANATION, style="dim")


_EXPLANATION = "nll: nats per answer token, mean over items ± standard error; less is better (docs/evaluation.md)"


def markdown(report: Report) -> str:
    """The same as Markdown, with the meaning of each mode."""
    columns = _columns(report)
    rows = [
        "| " + " | ".join(name for name, _ in columns) + " |",
        "|" + "|".join(" --- " if name == "mode" else " ---: " for name, _ in columns) + "|",
        *(
            "| " + " | ".join(cell(mode, figures) for _, cell in columns) + " |"
            for mode, figures in report.figures.items()
        ),
    ]
    modes = [f"- `{mode}`: {READINGS[mode].meaning}" for mode in report.figures]
    head = [f"## {report.header.set}", "", *(f"{line}  " for line in report.header.lines()), ""]
    return "\n".join([*head, *rows, "", *modes, "", _EXPLANATION + "."]) + "\n"


def details(results: Mapping[Mode, Sequence[ItemResult]]) -> str:
    """One JSON object a line for each mode and item."""
    return "".join(
        json.dumps({"mode": mode.value, **dataclasses.asdict(result)}, ensure_ascii=False) + "\n"
        for mode, rows in results.items()
        for result in rows
    )


def _columns(report: Report) -> list[tuple[str, _Cell]]:
    """Name and cell of each column; one that is empty in every row is left out."""
    columns: list[tuple[str, _Cell]] = [
        ("mode", lambda mode, figures: mode.value),
        ("nll", lambda mode, figures: _with_error(figures.nll, figures.nll_se)),
        ("to none", lambda mode, figures: _with_error(figures.nll_difference, figures.nll_difference_se, sign="+")),
        ("gap closed", lambda mode, figures: _interval(figures)),
        ("em", lambda mode, figures: _percent(figures.em)),
        ("contains", lambda mode, figures: _percent(figures.contains)),
        ("choice", lambda mode, figures: _percent(figures.choice_accuracy, figures.choice_accuracy_se)),
        ("choice (sum)", lambda mode, figures: _percent(figures.choice_accuracy_summed)),
    ]
    return [
        (name, cell) for name, cell in columns if any(cell(mode, figures) for mode, figures in report.figures.items())
    ]


def _with_error(value: float | None, error: float | None, sign: str = "") -> str:
    if value is None:
        return ""
    return f"{value:{sign}.3f}" + (f" ± {error:.3f}" if error is not None else "")


def _percent(value: float | None, error: float | None = None) -> str:
    if value is None:
        return ""
    return f"{value:.1%}" + (f" ± {100 * error:.1f}" if error is not None else "")


def _interval(figures: Figures) -> str:
    if figures.gap_closed is None:
        return ""
    if figures.gap_closed_low is None or figures.gap_closed_high is None:
        return f"{figures.gap_closed:.0%}"
    return f"{figures.gap_closed:.0%} ({100 * figures.gap_closed_low:.0f}..{100 * figures.gap_closed_high:.0f})"
