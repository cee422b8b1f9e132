"""Composition root of a training run: `memory3 train`, or `python -m services.training` under torchrun."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click
import torch
from torch import distributed

from model.training.step import TrainingStep
from services.common.config import load as load_settings
from services.datasets.item import DatasetError
from services.training.assembly import assemble, resolve_plan
from services.training.config import ConfigError, TrainingConfig, TrainingSettings, local_rank, read_config
from services.training.core import DivergedError, Rhythm, Trainer
from services.training.curves import Curves, plot_curves
from services.training.data import Texts
from services.training.prefetch import Prefetched
from services.training.progress import Progress, duration
from services.training.run_folder import RunFolder, RunFolderError, has_run, open_folder

_SECONDS_BETWEEN_LINES = 10.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "config_name", required=True, metavar="FILE", help="A TOML file, or a preset: cpu or gpu.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the run [runs/<config>].")
@click.option("--resume", is_flag=True, help="Go on with the run in that folder, bit for bit where its state stands.")
@click.option("--steps", type=click.IntRange(min=1), help="End after this step; --resume then goes on.")
@click.option("--dry-run", is_flag=True, help="Check config, model, plan and sets, time one step, and end.")
def main(*, config_name: str, out: Path | None, resume: bool, steps: int | None, dry_run: bool) -> None:
    """Train an adapter, or a whole model, to read explicit memories.

    The config says on what, how long and how; every key stands in docs/training.md. The folder holds the curves
    (curves.jsonl, curves.png, tensorboard/), the state to resume from, and the result: adapter/, which PEFT
    reads too, or model/.

    \b
    Examples:
      memory3 train --config cpu --dry-run               # what a step costs here
      memory3 train --config cpu --out runs/first
      memory3 train --config cpu --out runs/first --resume
      torchrun --nproc-per-node 4 -m services.training --config gpu --out runs/four
    """
    settings = load_settings(TrainingSettings)
    out = out or Path("runs") / Path(config_name).stem
    try:
        config = read_config(config_name)
        rank, world = _join()
        _run(config, settings, out, resume=resume, stop_after=steps, dry_run=dry_run, place=(rank, world))
    except (ConfigError, DatasetError, RunFolderError, DivergedError, ValueError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("interrupted; the same command with --resume goes on from the last state", err=True)
        sys.exit(130)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _run(
    config: TrainingConfig,
    settings: TrainingSettings,
    out: Path,
    *,
    resume: bool,
    stop_after: int | None,
    dry_run: bool,
    place: tuple[int, int],
) -> None:
    rank, world = place
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    if config.batch.items % (world * config.batch.accumulation):
        raise ConfigError(
            f"batch.items is {config.batch.items}, no multiple of {world} processes x accumulation "
            f"{config.batch.accumulation}; change one of them"
        )
    resolve_plan(config)
    texts = Texts(config)
    assembled = assemble(config, settings, _device(settings.device))
    module = TrainingStep(
        assembled.transformer,
        assembled.plan,
        assembled.tokenizer.encode_special(assembled.plan.prefix),
        teacher_is_base=config.losses.teacher == "base",
    )
    source = texts.source(assembled)
    rhythm = Rhythm(
        steps=config.steps,
        stop_after=3 if dry_run else min(stop_after or config.steps, config.steps),
        evaluate_every=config.evaluation.every,
        checkpoint_every=config.checkpoint_every,
    )
    trainer = Trainer(
        module,
        config.optimizer,
        Prefetched(source, settings.loaders) if settings.loaders else source,
        rhythm=rhythm,
        autocast=config.method == "full" and config.precision == "bfloat16",
        rank=rank,
        world=world,
    )
    if dry_run:
        _dry_run(trainer, config.steps)
        return
    has_state = open_folder(out, config, assembled.plan, resume=resume) if rank == 0 else has_run(out)
    folder = RunFolder(out, trainer.parameters, trainer.optimizer, assembled.export, assembled.result)
    first_step = folder.restore() if has_state else 0
    if rank > 0:
        trainer.run(first_step, Nowhere(), Nowhere())
        return
    num_trained = sum(parameter.numel() for parameter in trainer.parameters.values())
    click.echo(f"{num_trained:,} trained parameters, {config.steps} steps from {first_step}, into {out}")
    curves = Curves(out, first_step)
    progress = Progress(curves, config.steps, click.echo, seconds=_SECONDS_BETWEEN_LINES)
    try:
        trainer.run(first_step, progress, folder, texts.measure(assembled, module))
    finally:
        curves.close()
        plot_curves(out)
    click.echo(f"done: {out / assembled.result}, curves in {out / 'curves.png'}")


def _dry_run(trainer: Trainer, steps: int) -> None:
    """Three steps into nowhere; the first is slower than the others."""
    timed = _Timed()
    trainer.run(0, timed, Nowhere())
    seconds = min(timed.seconds)
    whole = duration(steps * seconds)
    click.echo(f"config, model, plan and sets fit; {seconds:.1f} s a step: {steps} steps take {whole}")


class _Timed:
    """Implements Recorder: keeps how long steps took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def record(self, _: int, values: Mapping[str, float]) -> None:
        self.seconds.append(values["seconds"])


class Nowhere:
    """Implements Recorder and StateStore: keeps nothing."""

    def record(self, _: int, __: Mapping[str, float]) -> None:
        """Nothing."""

    def save(self, _: int) -> None:
        """Nothing."""


def _join() -> tuple[int, int]:
    """Rank and number of processes; torchrun's group is joined."""
    if not distributed.is_torchelastic_launched():
        return 0, 1
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return distributed.get_rank(), distributed.get_world_size()


def _device(name: str) -> str:
    if name != "auto":
        return name
    return f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main(prog_name="memory3 train")
