"""Composition root of a codebook's training: `memory3 quantise`, or `python -m services.quantisation`."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model.codec.codebook import CODEBOOK_FILE
from model.directory import AUTO, NONE
from services.common.config import load as load_settings
from services.datasets.item import DatasetError
from services.quantisation.config import QuantisationSettings
from services.quantisation.core import QuantisationError, Trained, train_codebooks
from services.quantisation.exercises import USES, Exercise, exercises
from services.quantisation.measured_model import MeasuredModel


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--bytes",
    "sizes",
    default="16",
    show_default=True,
    callback=lambda context, parameter, value: _sizes(value),
    help="Bytes of one key or value, mean over both, layers and heads; several with commas: a codebook each.",
)
@click.option(
    "--items",
    type=click.IntRange(min=1),
    default=400,
    show_default=True,
    help="References of each use: texts said again, invented facts asked about, questions of HaluEval.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws them.")
@click.option("--model", help="A model directory, or `package`.")
@click.option("--adapter", help="Folder of an adapter to merge into the model, or none.")
@click.option("--plan", help="Memory plan: a preset or a JSON file; else the adapter's, else the default.")
@click.option("--tokens-per-memory", type=click.IntRange(min=1), help="Tokens a memory keeps, in place of the plan's.")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), help="Number format of the model.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help=f"File to write, or a folder for {CODEBOOK_FILE} (of several sizes: codebook-14.safetensors, ...).  "
    "[default: the folder of --adapter, else this one]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
def main(
    *,
    sizes: tuple[float, ...],
    items: int,
    seed: int,
    model: str | None,
    adapter: str | None,
    plan: str | None,
    tokens_per_memory: int | None,
    dtype: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Train the codebook of the codec `trellis`: memories in a few bytes a vector, for one model and memory plan.

    References are written and read, to see how keys and values lie and which of their directions the model needs; bits
    go where they save the most loss. A changed model, adapter, choice of layers or of pages needs a new codebook;
    another number of tokens per memory does not. docs/compression.md tells how, and what it costs.

    \b
    Examples:
      memory3 quantise                                    # 16 bytes a vector, writes ./codebook.safetensors
      memory3 quantise --adapter my-adapter/              # writes my-adapter/codebook.safetensors
      memory3 quantise --bytes 12 --plan my-plan.json --out small.safetensors
      memory3 quantise --bytes 16,14,12 --out books/      # three sizes of one measurement
    """
    settings = load_settings(QuantisationSettings)
    given = {"model": model, "adapter": adapter, "dtype": dtype}
    settings = settings.model_copy(update={name: value for name, value in given.items() if value is not None})
    path = out or Path("." if adapter in {None, AUTO, NONE} else str(adapter)).expanduser()
    began = time.monotonic()
    try:
        paths = _paths(path, sizes)
        measured_model = MeasuredModel(settings, plan, tokens_per_memory)
        uses = {use: exercises(use, items, measured_model.memories_per_chunk, seed) for use in USES}
        trained = _train(measured_model, uses, sizes)
        for fitted, file in zip(trained.fitted, paths, strict=True):
            fitted.codebook.save(file)
    except (DatasetError, QuantisationError, ValueError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    report = _report(trained, paths, items, time.monotonic() - began)
    click.echo(json.dumps(report) if as_json else _told(report))


def _sizes(text: str) -> tuple[float, ...]:
    try:
        sizes = tuple(float(one) for one in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or not all(0 < size < math.inf for size in sizes) or len(set(sizes)) < len(sizes):
        raise click.BadParameter(f"{text!r} is no size; give one or more different numbers above 0, as 16 or 16,14,12")
    return sizes


def _paths(path: Path, sizes: tuple[float, ...]) -> list[Path]:
    """A file for each size."""
    if len(sizes) > 1:
        if not path.is_dir():
            raise QuantisationError(f"{path} is no folder, and {len(sizes)} sizes are a file each; give a folder")
        return [path / f"codebook-{size:g}.safetensors" for size in sizes]
    if not path.parent.is_dir():
        raise QuantisationError(f"{path.parent} is no folder; make it, or give another --out")
    return [path / CODEBOOK_FILE if path.is_dir() else path]


def _train(model: MeasuredModel, uses: Mapping[str, Sequence[Exercise]], sizes: Sequence[float]) -> Trained:
    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("references"), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("references", total=None)
        return train_codebooks(model, uses, sizes, lambda done, total: bar.update(task, completed=done, total=total))


def _report(trained: Trained, paths: Sequence[Path], items: int, seconds: float) -> dict[str, Any]:
    return {
        "codebooks": [
            {
                "codebook": fitted.codebook.identity,
                "file": str(path),
                "bytes_per_vector": fitted.codebook.bytes_per_vector,
                "value_gain": fitted.codebook.value_gain,
                "lost_share": fitted.lost_share,
            }
            for fitted, path in zip(trained.fitted, paths, strict=True)
        ],
        "items": items,
        "tokens": trained.num_tokens,
        "nll": dict(trained.nll),
        "seconds": seconds,
    }


def _told(report: dict[str, Any]) -> str:
    told = ", ".join(f"{use} {nll:.2f}" for use, nll in report["nll"].items())
    books = "".join(
        "codebook {codebook} in {file}\n"
        "  {bytes_per_vector:.2f} bytes a vector, {lost_share:.2%} of the weighted error left, values read times "
        "{value_gain:.3f}\n".format(**book)
        for book in report["codebooks"]
    )
    return (
        books + "from {tokens} tokens of each layer and head; nats a token when read: {told}; {seconds:.0f} s\n"
        'to use one, name the codec "trellis" in the memory plan, and its file as MEMORY3_DECODER_CODEBOOK '
        f"({CODEBOOK_FILE} in the adapter's folder is found there)"
    ).format(**report, told=told)


if __name__ == "__main__":
    main(prog_name="memory3 quantise")
