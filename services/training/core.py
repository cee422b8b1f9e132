"""The training loop: batches in, weights moved, figures out. Knows no text, no files and no terminal.

What happens in a step depends on the step's number and the state alone, so a run that was killed goes on bit for bit
from its last state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.training.batch import Batch
from model.training.schedule import warmup_stable_decay
from model.training.step import TrainingStep
from services.training.config import OptimizerOptions
from services.training.ports import BatchSource, Recorder, StateStore


@dataclass(frozen=True)
class Rhythm:
    """How long a run is, and what happens on the way; steps."""

    steps: int
    stop_after: int
    """Steps after which this process ends; the schedule is that of all steps."""
    evaluate_every: int
    checkpoint_every: int


class DivergedError(RuntimeError):
    """The loss is no number any more."""


class Trainer:
    """One process of a run."""

    def __init__(
        self,
        step_module: TrainingStep,
        optimizer_options: OptimizerOptions,
        source: BatchSource,
        *,
        rhythm: Rhythm,
        autocast: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`autocast`: compute in bfloat16 though the weights are float32. `world` processes: torch.distributed must be
        initialised, and the weights equal in all of them."""
        self._module, self._options = step_module, optimizer_options
        self._source, self._rhythm = source, rhythm
        self._rank, self._world, self._autocast = rank, world, autocast
        self.parameters = {name: value for name, value in step_module.named_parameters() if value.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=optimizer_options.learning_rate,
            betas=(optimizer_options.beta1, optimizer_options.beta2),
            weight_decay=optimizer_options.weight_decay,
        )
        self._forward: nn.Module = step_module if world == 1 else DistributedDataParallel(step_module)

    def run(
        self,
        first_step: int,
        recorder: Recorder,
        states: StateStore,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        """Steps from `first_step` (0 for a new run) to the end. `evaluate` gives the figures of the held-out slice.

        Raises DivergedError when the loss is no number; the last state then is one from before.
        """
        rhythm, step = self._rhythm, first_step
        if step == 0 and evaluate is not None:
            recorder.record(0, evaluate())
        while step < rhythm.stop_after:
            values = self._step(step)
            step += 1
            is_last = step == rhythm.steps
            if evaluate is not None and (step % rhythm.evaluate_every == 0 or is_last):
                values |= evaluate()
            recorder.record(step, values)
            if step % rhythm.checkpoint_every == 0 or is_last or step == rhythm.stop_after:
                states.save(step)

    def _step(self, step: int) -> dict[str, float]:
        began = time.perf_counter()
        rate = self._options.learning_rate * warmup_stable_decay(
            step,
            steps=self._rhythm.steps,
            warmup_steps=self._options.warmup_steps,
            decay_steps=round(self._options.decay_share * self._rhythm.steps),
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        pieces = self._source.pieces(step, self._rank, self._world)
        loss = 0.0
        sums: dict[str, list[float]] = {}
        for number, piece in enumerate(pieces):
            is_last = number == len(pieces) - 1
            with self._without_exchange() if not is_last else nullcontext(), self._precision():
                total, cross_entropy_J, kl_J = self._forward(piece)
                mean = total / (len(piece.contexts) * len(pieces))
                mean.backward()
            loss += mean.item()
            _add_figures(sums, piece, cross_entropy_J, kl_J)
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} in step {step}; lower optimizer.learning_rate or optimizer.clip")
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self._options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        seconds = time.perf_counter() - began
        return {
            "loss": loss,
            **{name: total / count for name, (total, count) in sums.items()},
            "gradient": float(norm),
            "learning_rate": rate,
            "seconds": seconds,
            "tokens_per_second": sum(piece.num_tokens for piece in pieces) * self._world / seconds,
        }

    def _without_exchange(self) -> AbstractContextManager[None]:
        forward = self._forward
        return forward.no_sync() if isinstance(forward, DistributedDataParallel) else nullcontext()

    def _precision(self) -> AbstractContextManager[None]:
        device = self._module.transformer.device.type
        return torch.autocast(device, torch.bfloat16) if self._autocast else nullcontext()


def _add_figures(sums: dict[str, list[float]], piece: Batch, cross_entropy_J: Tensor, kl_J: Tensor) -> None:
    """Sums and numbers of tokens for the curves: answers that read memories apart from the others."""
    is_reading_J = [context.reads_memories for context in piece.contexts for _ in range(context.num_scored)]
    rows = zip(is_reading_J, cross_entropy_J.tolist(), kl_J.tolist(), strict=True)
    for is_reading, cross_entropy, kl in rows:
        kind = "reading" if is_reading else "plain"
        for name, value in ((f"nll_{kind}", cross_entropy), (f"kl_{kind}", kl)):
            total = sums.setdefault(name, [0.0, 0.0])
            total[0] += value
            total[1] += 1


@torch.no_grad()
def mean_nll(step_module: TrainingStep, batches: Iterable[Batch]) -> float:
    """Negative log-likelihood per scored token of all batches; nats."""
    losses: list[float] = []
    for batch in batches:
        _, cross_entropy_J, _ = step_module(batch)
        losses += cross_entropy_J.tolist()
    return math.fsum(losses) / len(losses)
