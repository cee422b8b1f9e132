"""One set, measured: items and a checkpoint to a report. Knows no command line and no client."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.datasets.item import Item, Split
from services.evaluation.config import EvaluationSettings
from services.evaluation.core import Evaluation
from services.evaluation.figures import summarise
from services.evaluation.loading import Checked, Checkpoint
from services.evaluation.modes import Mode
from services.evaluation.ports import ReferenceSource
from services.evaluation.report import Header, Report


@dataclass(frozen=True)
class Task:
    """What to measure."""

    set: str
    split: Split
    items: Sequence[Item]
    seed: int
    modes: Sequence[Mode]
    generated_tokens: int = 0
    """For `contains`, at most; 0 generates nothing."""


def measure(
    checkpoint: Checkpoint,
    settings: EvaluationSettings,
    task: Task,
    *,
    source: ReferenceSource | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Raises EvaluationError if the items lack what a mode needs, ValueError if one is too long for the model."""
    began = time.monotonic()
    model = checkpoint.measured(settings, task.items, task.generated_tokens)
    evaluation = Evaluation(model, task.modes, source=source, generated_tokens=task.generated_tokens)
    outcome = evaluation.run(task.items, progress)
    book = model.book
    header = _header(
        checkpoint,
        task,
        memory_bytes=book.record_bytes / book.num_written if book.num_written else None,
        truncated_share=outcome.truncated_share,
        seconds=time.monotonic() - began,
    )
    return Report(header, summarise(outcome.results, task.seed), outcome.results)


def _header(
    checkpoint: Checkpoint, task: Task, *, memory_bytes: float | None, truncated_share: float, seconds: float
) -> Header:
    checked: Checked = checkpoint.checked
    plan = checked.plan
    return Header(
        date=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M}",
        machine=checked.machine,
        model=checked.config.name or checked.directory.name,
        adapter=checkpoint.adapter_digest,
        plan=plan.name,
        memory_layers=ranges(plan.memory_layers),
        tokens_per_memory=plan.tokens_per_memory,
        memories_per_chunk=plan.memories_per_chunk,
        codec=", ".join(plan.codec),
        memory_bytes=memory_bytes,
        dtype=checked.dtype,
        model_fingerprint=checkpoint.fingerprint,
        set=task.set,
        split=task.split,
        items=len(task.items),
        seed=task.seed,
        generated_tokens=task.generated_tokens,
        truncated_references=truncated_share,
        seconds=seconds,
        plan_json=plan.to_json(),
    )


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in few words: 0-3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
