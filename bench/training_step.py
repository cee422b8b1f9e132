"""Seconds of one training step on real weights: number formats, and where the way back ends.

    python -m bench.training_step --repeats 5 --threads 1

A step of 4 items with 5 references of 45 to 55 tokens each, contexts of 30 tokens of which 6 are scored, 8 tokens kept
for each memory; forward, backward and AdamW. The arms are interleaved. Beside the wall clock stands the processor time,
which the load of other programs changes less. Spread is the interquartile range over repeats.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from dataclasses import replace

import torch

from bench.machine import heading
from model.checkpoint import load_transformer
from model.directory import locate_model
from model.presets import memory_plan
from model.training.batch import Batch, Context
from model.training.lora import add_adapter
from model.training.step import TrainingStep
from services.training.config import TrainingSettings

ITEMS, REFERENCES, KEPT = 4, 5, 8
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def batch(*, taught: bool) -> Batch:
    """Random tokens in the shape of invented facts."""
    draw = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.choices(range(1000, 40_000), k=count))

    references = tuple(tokens(draw.randint(45, 55)) for _ in range(ITEMS * REFERENCES))
    contexts = []
    for item in range(ITEMS):
        answer = tokens(6)
        reads = tuple(range(item * REFERENCES, (item + 1) * REFERENCES))
        teacher = (*tokens(280), *answer) if taught else None
        contexts.append(Context((*tokens(24), *answer), 6, (reads,), teacher, 1.0, 1.0 if taught else 0.0))
    return Batch(references, tuple(contexts), KEPT)


class Arm:
    """One way to train."""

    def __init__(self, dtype: str, first_layer: int, *, taught: bool) -> None:
        teacher = ", teacher" if taught else ""
        self.name = f"{dtype}, layers {first_layer}-29{teacher}"
        transformer = load_transformer(locate_model("package", TrainingSettings().cache_dir), DTYPES[dtype])
        add_adapter(transformer, rank=16, alpha=32, first_layer=first_layer)
        plan = replace(memory_plan("smollm2-135m"), tokens_per_memory=KEPT)
        self._step = TrainingStep(transformer, plan, (0,))
        self._optimizer = torch.optim.AdamW([p for p in self._step.parameters() if p.requires_grad], lr=1e-4)
        self._batch = batch(taught=taught)
        self.num_tokens = self._batch.num_tokens
        self.wall: list[float] = []
        self.processor: list[float] = []

    def run(self) -> None:
        """One step, timed."""
        wall, processor = time.perf_counter(), time.process_time()
        loss, _, _ = self._step(self._batch)
        (loss / ITEMS).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)


def spread(values: list[float]) -> str:
    """Median and interquartile range."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its default")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arms = [
        Arm("float32", 0, taught=False),
        Arm("bfloat16", 0, taught=False),
        Arm("bfloat16", 15, taught=False),
        Arm("bfloat16", 0, taught=True),
    ]
    for repeat in range(arguments.repeats + 1):
        for arm in arms:
            arm.run()
            if repeat == 0:  # warming up
                arm.wall.clear()
                arm.processor.clear()
    print(f"{heading()} · {torch.get_num_threads()} threads · {arms[0].num_tokens} tokens a step\n")
    print("| adapter | s a step | processor s a step |\n|---|---|---|")
    for arm in arms:
        print(f"| {arm.name} | {spread(arm.wall)} | {spread(arm.processor)} |")


if __name__ == "__main__":
    main()
