"""The gate: `make quality`, or `python -m services.evaluation.gate`. Fails below the recorded floors.

A second composition root beside `__main__`; it needs no retrieval tier, as all its items bring their references.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from services.common.config import load as load_settings
from services.datasets import registry
from services.datasets.item import DatasetError
from services.evaluation.config import EvaluationSettings
from services.evaluation.core import EvaluationError
from services.evaluation.floors import FLOORS, SLICES, Check, Slice, compare, items_digest, record
from services.evaluation.loading import Checkpoint, Choices, check, load
from services.evaluation.measure import Task, measure
from services.evaluation.progress import Screen
from services.evaluation.report import Report


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--slice", "name", type=click.Choice(list(SLICES)), default="full", show_default=True, help="How much.")
@click.option("--set", "set_name", help="Only this set of the slice; with --record the others keep their floors.")
@click.option("--record", "is_recording", is_flag=True, help="Write what is measured now as the new floors.")
@click.option("--floors", type=click.Path(dir_okay=False, path_type=Path), default=FLOORS, help="File of the floors.")
def main(*, name: str, set_name: str | None, is_recording: bool, floors: Path) -> None:
    """Measure the shipped checkpoint, plan and codec on fixed items and compare with the recorded floors.

    \b
    Examples:
      make quality                              # ten minutes at most
      python -m services.evaluation.gate --slice ci
      python -m services.evaluation.gate --set continuation --record
      python -m services.evaluation.gate --record    # after a change that is meant to move the figures
    """
    # In bfloat16 a processor's rounding decides which tokens a memory keeps: its NLL differed by 4 % between two.
    settings = load_settings(EvaluationSettings).model_copy(update={"dtype": "float32"})
    parts = [part for part in SLICES[name] if set_name in (None, part.set)]
    if not parts:
        raise click.UsageError(f"no set {set_name!r} in the slice {name}; its sets: {_sets(name)}")
    try:
        recorded = _read(floors)
        known = recorded.get("slices", {}).get(name, {})
        if not is_recording and not known:
            raise EvaluationError(f"{floors} has no floors for the slice {name}; record some with --record")
        checkpoint = load(settings, check(settings, Choices()))
        checks: list[Check] = []
        fresh: dict[str, Any] = {}
        for part in parts:
            report, digest = _measure(checkpoint, settings, part)
            fresh[part.set] = {**record(report.figures, digest), "recorded_on": _about(report)}
            if is_recording:
                continue
            if known.get(part.set, {}).get("items_digest") != digest:
                raise EvaluationError(
                    f"the items of {part.set} are not those the floors in {floors} were recorded on; if that is meant, "
                    "record new ones with --record"
                )
            checks += compare(part.set, report.figures, known[part.set])
    except (DatasetError, EvaluationError, ValueError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    if is_recording:
        recorded.setdefault("slices", {})[name] = {**known, **fresh}
        floors.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
        click.echo(f"recorded {', '.join(fresh)} of the slice {name} in {floors}")
        return
    _print(checks)
    failed = [one for one in checks if not one.holds]
    if failed:
        click.echo(f"{len(failed)} of {len(checks)} figures are worse than recorded", err=True)
        sys.exit(1)
    click.echo(f"all {len(checks)} figures hold")


def _sets(name: str) -> str:
    return ", ".join(part.set for part in SLICES[name])


def _about(report: Report) -> dict[str, Any]:
    """What floors are of."""
    header = dataclasses.asdict(report.header)
    names = ("date", "machine", "model", "adapter", "plan", "codec", "dtype", "model_fingerprint")
    return {name: header[name] for name in names}


def _read(floors: Path) -> dict[str, Any]:
    if not floors.exists():
        return {}
    recorded = json.loads(floors.read_text(encoding="utf-8"))
    if not isinstance(recorded, dict):
        raise ValueError(f"{floors} is not a JSON object; record the floors anew with --record")
    return recorded


def _measure(checkpoint: Checkpoint, settings: EvaluationSettings, part: Slice) -> tuple[Report, str]:
    items = registry.load(
        part.set,
        split="held-out",
        items=part.items,
        seed=part.seed,
        references=checkpoint.checked.plan.memories_per_chunk,
    )
    click.echo(f"{part.set}: {part.items} items in {', '.join(part.modes)}", err=True)
    with Screen(len(items) * len(part.modes), quiet=False) as screen:
        task = Task(part.set, "held-out", items, part.seed, part.modes)
        return measure(checkpoint, settings, task, progress=screen.done), items_digest(items)


def _print(checks: list[Check]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("set", "mode", "figure"):
        table.add_column(column)
    for column in ("now", "limit", ""):
        table.add_column(column, justify="right")
    for one in checks:
        value = "none" if one.value is None else f"{one.value:.3f}"
        mark = "ok" if one.holds else "[red]worse[/]"
        table.add_row(one.set, one.mode, one.figure, value, f"{one.limit:.3f}", mark)
    Console(highlight=False, soft_wrap=True).print(table)


if __name__ == "__main__":
    main(prog_name="python -m services.evaluation.gate")
