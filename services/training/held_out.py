"""The held-out slice: how well the model answers with memories, without, with wrong ones, and with the text itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model.training.batch import Batch
from model.training.step import TrainingStep
from services.datasets import registry
from services.datasets.item import Item
from services.training.config import EvaluationOptions
from services.training.core import mean_nll
from services.training.examples import MODES, ExampleBuilder, batch_of
from services.training.sequences import SequenceSource

_ITEMS_AT_ONCE = 16


class HeldOut:
    """A fixed slice; calling it measures."""

    def __init__(
        self,
        step_module: TrainingStep,
        builder: ExampleBuilder,
        sets: Mapping[str, Sequence[Item]],
        tokens: Sequence[int],
    ) -> None:
        """`tokens`: memories are measured with each of these numbers of kept tokens."""
        self._module = step_module
        self._batches: dict[str, list[Batch]] = {}
        for name, items in sets.items():
            for mode in MODES:
                for kept in tokens if mode in ("memory", "wrong") else tokens[:1]:
                    label = f"eval/{name}/{mode}" + (f"/{kept}" if mode in ("memory", "wrong") else "")
                    self._batches[label] = [
                        batch_of([builder.build(item, mode) for item in items[start : start + _ITEMS_AT_ONCE]], kept)
                        for start in range(0, len(items), _ITEMS_AT_ONCE)
                    ]

    def __call__(self) -> dict[str, float]:
        """NLL per answer token by set and mode; nats. And the share of the gap from `none` to `rag` closed."""
        figures = {label: mean_nll(self._module, batches) for label, batches in self._batches.items()}
        for label in list(figures):
            name, mode = label.split("/")[1:3]
            none, rag = figures[f"eval/{name}/none"], figures[f"eval/{name}/rag"]
            if mode == "memory" and none != rag:
                figures[label.replace("/memory/", "/gap_closed/")] = (none - figures[label]) / (none - rag)
        return figures


def load_sets(options: EvaluationOptions, *, seed: int, references: int) -> dict[str, list[Item]]:
    """Held-out items of each set. Raises DatasetError."""
    if not options.items:
        return {}
    return {
        name: registry.load(name, split="held-out", items=options.items, seed=seed, references=references)
        for name in options.sets
    }


class HeldOutSequences:
    """Sequences that are not trained on; calling it measures them with memories and without."""

    def __init__(self, step_module: TrainingStep, source: SequenceSource, count: int) -> None:
        """`source`: of the held-out split, with at least `count` sequences."""
        self._module = step_module
        starts = range(0, count, _ITEMS_AT_ONCE)
        self._batches = {
            name: [
                source.batch(range(start, min(start + _ITEMS_AT_ONCE, count)), reads_memories=reads) for start in starts
            ]
            for name, reads in (("memory", True), ("none", False))
        }

    def __call__(self) -> dict[str, float]:
        """NLL per token; nats."""
        return {f"eval/text/{name}": mean_nll(self._module, batches) for name, batches in self._batches.items()}
