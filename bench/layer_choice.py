"""Which layers should have memories: those that are missed most when left out, fewer in every round.

    python -m bench.layer_choice                      # the untrained model: an hour of one core
    python -m bench.layer_choice --fewest 15          # half of that
    python -m bench.layer_choice --items 4 --sets fiction  # does it run

Begins with all layers. In each round every layer of the set is left out alone; the layers whose absence costs least go.
The search sees training items only; every set of layers it passes is then measured on held-out items, beside windows of
as many layers that end with the last one. Goes on if it was stopped. Writes docs/layer-choice.md and its picture.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from bench.ablation.measure import Ablation, Model
from bench.ablation.results import Cell, Results, Subject, closed
from bench.ablation.variations import Variation
from bench.machine import heading
from model.directory import NONE
from model.plan import MemoryPlan
from services.common.config import load as load_settings
from services.datasets.item import DatasetError, Split
from services.datasets.registry import load as load_items
from services.evaluation.config import EvaluationSettings
from services.evaluation.loading import Checkpoint, Choices, check, load

ROUNDS = (20, 15, 10, 8, 6, 4)
"""Layers left after each round, of thirty; other depths in proportion."""


@dataclass(frozen=True)
class Layers:
    """A set of layers and what it is worth."""

    layers: tuple[int, ...]
    closed: dict[str, tuple[float, float]]
    """By set: share of the gap from no references to references as text, and its standard error."""


class Search:
    """Measures sets of layers on one split."""

    def __init__(self, checkpoint: Checkpoint, plan: MemoryPlan, split: Split, arguments: argparse.Namespace) -> None:
        self._checkpoint, self._plan = checkpoint, plan
        self._results = Results.read(arguments.results)
        self._items = {
            name: load_items(name, split=split, items=arguments.items, seed=arguments.seed) for name in arguments.sets
        }
        self._subject = Subject(
            name=split,
            weights=f"{checkpoint.under(plan).fingerprint} {split}",
            plan=plan.to_json(),
            num_layers=checkpoint.checked.config.num_layers,
            items=arguments.items,
            seed=arguments.seed,
            heading=heading(),
        )
        self._results.add(self._subject)

    def worth(self, candidates: Sequence[tuple[int, ...]]) -> list[Layers]:
        """Each set of layers; memories are written once for all of them."""
        variations = [Variation(replace(self._plan, memory_layers=layers)) for layers in candidates]
        for name, items in self._items.items():
            Ablation(
                Model(self._checkpoint.transformer, self._checkpoint.tokenizer),
                self._plan,
                items,
                results=self._results,
                subject=self._subject,
                set_name=name,
            ).run(variations)
        return [
            Layers(layers, {name: self._closed(name, variation.key) for name in self._items})
            for layers, variation in zip(candidates, variations, strict=True)
        ]

    def _closed(self, name: str, key: str) -> tuple[float, float]:
        cell, none, rag = (self._cell(name, one) for one in (key, "none", "rag"))
        return closed(cell, none, rag)

    def _cell(self, name: str, key: str) -> Cell:
        cell = self._results.cell(self._subject, name, key)
        assert cell is not None
        return cell


def narrowed(search: Search, num_layers: int, fewest: int = 1) -> Iterator[tuple[int, ...]]:
    """The sets of layers that the search passes, the largest first, none with less than `fewest`."""
    layers = tuple(range(num_layers))
    for of_thirty in ROUNDS:
        left = max(1, round(of_thirty * num_layers / 30))
        if left < fewest:
            return
        without = search.worth([tuple(layer for layer in layers if layer != out) for out in layers])
        missed = {
            out: -fmean(share for share, _ in one.closed.values()) for out, one in zip(layers, without, strict=True)
        }
        layers = tuple(sorted(sorted(layers, key=missed.__getitem__)[-left:]))
        print(f"{len(layers)} layers: {said(layers)}", file=sys.stderr, flush=True)
        yield layers


def said(layers: Sequence[int]) -> str:
    """`5-9, 15`: runs of layers that follow each other."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def page(chosen: Sequence[Layers], windows: Sequence[Layers], plan: MemoryPlan, arguments: argparse.Namespace) -> str:
    """The page: both families of sets, on held-out items."""
    names = list(chosen[0].closed)
    lines = [
        "# Which layers have memories",
        "",
        f"`python -m bench.layer_choice`, {heading()}. Adapter: {arguments.adapter}; {plan.tokens_per_memory} tokens "
        f"per KV head, {plan.selection}/{plan.group_combine}; {arguments.items} items of each set, seed "
        f"{arguments.seed}. Written by the script: do not edit it.",
        "",
        "The search leaves out, round by round, the layers that are missed least, on training items. The table is of "
        "held-out items: the share of the gap between no references and five as text that five memories close, ± its "
        "standard error; *last* are as many layers at the end of the model.",
        "",
        "![Share of the gap closed by number of layers](images/layer-choice.png)",
        "",
        f"| layers | which | {' | '.join(f'{name}: chosen | last' for name in names)} |",
        f"| ---: | --- | {' | '.join('---: | ---:' for _ in names)} |",
    ]
    for one, window in zip(chosen, windows, strict=True):
        shares = " | ".join(f"{_share(one.closed[name])} | {_share(window.closed[name])}" for name in names)
        lines.append(f"| {len(one.layers)} | {said(one.layers)} | {shares} |")
    return "\n".join(lines) + "\n"


def _share(closed: tuple[float, float]) -> str:
    return f"{closed[0]:.0%} ± {closed[1]:.0%}"


def draw(chosen: Sequence[Layers], windows: Sequence[Layers], file: Path) -> None:
    """The same as a picture, a panel for each set."""
    names = list(chosen[0].closed)
    figure = Figure(figsize=(5.5 * len(names), 3.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for family, label, colour in ((chosen, "chosen", "#2f6f8f"), (windows, "last", "#b8553a")):
            axes.errorbar(
                [len(one.layers) for one in family],
                [100 * one.closed[name][0] for one in family],
                yerr=[100 * one.closed[name][1] for one in family],
                marker="o",
                label=label,
                color=colour,
            )
        axes.set(title=name, xlabel="layers with memories", ylabel="gap closed, %", ylim=(-5, 105))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)


def main(given: Sequence[str] | None = None) -> None:
    """Search, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="fiction,halueval", help="question sets with given references (%(default)s)")
    parser.add_argument("--items", type=int, default=32, help="of each set and split (%(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="of the samples (%(default)s)")
    parser.add_argument("--adapter", default=NONE, help="folder of an adapter, or auto: the shipped one (%(default)s)")
    parser.add_argument("--tokens", type=int, default=16, help="kept per KV head (%(default)s)")
    parser.add_argument("--fewest", type=int, default=4, help="layers at which the search ends (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (%(default)s)")
    parser.add_argument(
        "--results", type=Path, default=Path("docs/results/layer-choice.jsonl"), help="JSONL (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of page and picture (%(default)s)")
    arguments = parser.parse_args(given)
    arguments.sets = [name.strip() for name in arguments.sets.split(",")]
    try:
        settings = load_settings(EvaluationSettings).model_copy(
            update={"adapter": arguments.adapter, "torch_threads": arguments.threads}
        )
        checkpoint = load(settings, check(settings, Choices(tokens_per_memory=arguments.tokens)))
        plan, num_layers = checkpoint.checked.plan.unfitted(), checkpoint.checked.config.num_layers
        found = [
            tuple(range(num_layers)),
            *narrowed(Search(checkpoint, plan, "train", arguments), num_layers, arguments.fewest),
        ]
        held_out = Search(checkpoint, plan, "held-out", arguments)
        last = [tuple(range(num_layers - len(layers), num_layers)) for layers in found]
        worth = held_out.worth([*found, *last])
    except (ValueError, DatasetError, OSError) as error:
        sys.exit(f"error: {error}")
    chosen, windows = worth[: len(found)], worth[len(found) :]
    draw(chosen, windows, arguments.out / "images" / "layer-choice.png")
    (arguments.out / "layer-choice.md").write_text(page(chosen, windows, plan, arguments), encoding="utf-8")
    print(f"written: {arguments.out / 'layer-choice.md'}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
