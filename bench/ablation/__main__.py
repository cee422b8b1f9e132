"""What each choice of a memory plan is worth: one axis at a time around a default plan, on two sets, with plots.

    python -m bench.ablation --items 48                 # the untrained model; goes on if it was stopped
    python -m bench.ablation --items 48 --adapter auto  # with the shipped adapter, beside it on the same page
    python -m bench.ablation --axes layers,tokens --sets fiction
    python -m bench.ablation --page-only                                 # page and picture from the results again

Axes: layers, tokens, selection, group, preceding, memories, positions, gap, sink. Each cell is appended to --results as
soon as it is measured. The page and its picture show everything in that file.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.ablation.chart import draw
from bench.ablation.measure import Ablation, Model, sample_of
from bench.ablation.page import page
from bench.ablation.results import BASELINES, Results, Subject
from bench.ablation.variations import MAX_MEMORIES, TITLES, Value, Variation, axes
from bench.machine import heading
from model.directory import NONE
from model.plan import MemoryPlan
from services.common.config import load as load_settings
from services.datasets.item import DatasetError, Item
from services.datasets.registry import load as load_items
from services.datasets.registry import names
from services.evaluation.config import EvaluationSettings
from services.evaluation.loading import Checkpoint, Choices, check, load

SETS = ("fiction", "continuation")


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", default=",".join(SETS), help="question sets with given references (%(default)s)")
    parser.add_argument("--axes", default=",".join(TITLES), help="which to move (all)")
    parser.add_argument("--items", type=int, default=48, help="items of each set (%(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="of the sample (%(default)s)")
    parser.add_argument("--model", help="model directory (the packaged one)")
    parser.add_argument(
        "--adapter", default=NONE, help="folder of an adapter, or auto: the shipped one; its memory plan is the default"
    )
    parser.add_argument("--plan", help="default plan: preset or JSON file (the adapter's, or the evaluation's)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=1, help="of torch (%(default)s)")
    parser.add_argument(
        "--results", type=Path, default=Path("docs/results/ablation.jsonl"), help="JSONL file (%(default)s)"
    )
    parser.add_argument("--page", type=Path, default=Path("docs/ablation.md"), help="Markdown page (%(default)s)")
    parser.add_argument("--page-only", action="store_true", help="measure nothing")
    return parser.parse_args(given)


def main() -> None:
    arguments = arguments_of()
    results = Results.read(arguments.results)
    try:
        if not arguments.page_only:
            run(arguments, results)
    except (ValueError, DatasetError, OSError) as error:
        sys.exit(f"error: {error}")
    if not results.subjects:
        sys.exit(f"error: {arguments.results} holds no results; run without --page-only")
    picture = arguments.page.parent / "images" / f"{arguments.page.stem}.png"
    draw(results, picture)
    arguments.page.write_text(page(results, f"images/{picture.name}"), encoding="utf-8")
    print(f"written: {arguments.page}, {picture}")


def run(arguments: argparse.Namespace, results: Results) -> None:
    """Measure what is wanted and not there yet."""
    chosen = _chosen("axis", arguments.axes, tuple(TITLES))
    sets = {name: _items(name, arguments) for name in _chosen("set", arguments.sets, names())}
    checkpoint = _checkpoint(arguments)
    checked = checkpoint.checked
    # Every head keeps alike, without a scorer: axes pick layers and tokens of memories written for all layers.
    plan, config = checked.plan.unfitted(), checked.config
    subject = Subject(
        name="untrained" if checked.adapter is None else f"adapter {checked.adapter.name}",
        weights=checkpoint.under(plan).fingerprint,
        plan=plan.to_json(),
        num_layers=config.num_layers,
        items=arguments.items,
        seed=arguments.seed,
        heading=f"{heading()} · {checked.directory.name}, {arguments.dtype}, on {checked.machine}",
    )
    results.add(subject)
    values = [value for axis in chosen for value in axes(plan, config.num_layers)[axis]]
    variations = list({value.variation.key: value.variation for value in values}.values())
    _measure(checkpoint, plan, variations, sets, results, subject, values)


def _measure(
    checkpoint: Checkpoint,
    plan: MemoryPlan,
    variations: list[Variation],
    sets: dict[str, list[Item]],
    results: Results,
    subject: Subject,
    values: list[Value],
) -> None:
    labels = {value.variation.key: value.label for value in values}
    console = Console(stderr=True)
    keys = {Variation(plan).key, *labels, *BASELINES}
    total = sum(not results.has(subject, name, key, sample_of(items)) for name, items in sets.items() for key in keys)
    console.print(f"{total} cells to measure, {len(sets) * len(keys) - total} are there")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Cells come in bursts, those of one writing together: only a long view tells the speed.
    with Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=1e6) as progress:
        task = progress.add_task("", total=total)
        for name, items in sets.items():

            def done(key: str, name: str = name) -> None:
                cell, label = results.cell(subject, name, key), labels.get(key, key if key in BASELINES else "default")
                assert cell is not None
                progress.update(task, advance=1, description=f"{name}: {label}")
                if not console.is_terminal:
                    place = progress.tasks[0]
                    left = "" if place.time_remaining is None else f", {place.time_remaining / 60:.0f} min left"
                    console.print(f"{place.completed:.0f}/{total} {name}: {label}: NLL {cell.mean:.3f}{left}")

            Ablation(
                Model(checkpoint.transformer, checkpoint.tokenizer),
                plan,
                items,
                results=results,
                subject=subject,
                set_name=name,
                done=done,
            ).run(variations)


def _items(name: str, arguments: argparse.Namespace) -> list[Item]:
    items = load_items(name, split="held-out", items=arguments.items, seed=arguments.seed, references=MAX_MEMORIES)
    if not all(item.references and item.wrong_references for item in items):
        raise ValueError(f"set {name!r} leaves references to retrieval; choose sets with given ones, as fiction")
    return items


def _checkpoint(arguments: argparse.Namespace) -> Checkpoint:
    changes = {
        "model": arguments.model,
        "adapter": arguments.adapter,
        "dtype": arguments.dtype,
        "torch_threads": arguments.threads,
    }
    settings = load_settings(EvaluationSettings).model_copy(
        update={name: value for name, value in changes.items() if value is not None}
    )
    return load(settings, check(settings, Choices(plan=arguments.plan)))


def _chosen(noun: str, given: str, known: tuple[str, ...]) -> list[str]:
    chosen = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise ValueError(f"no {noun} {', '.join(unknown) or 'given'}; choose among {', '.join(known)}")
    return chosen


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
