"""Composition root of an evaluation: `memory3 eval`, or `python -m services.evaluation`."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from memory3.errors import BackendUnavailableError, Memory3Error, UnknownBankError
from memory3.security import PLAIN, ChannelSecurity, SecurityError
from services.common.config import load as load_settings
from services.datasets import registry
from services.datasets.item import SPLITS, DatasetError, Split
from services.evaluation import report
from services.evaluation.config import EvaluationSettings, child_environment, tier_security
from services.evaluation.core import EvaluationError, check_modes, possible_modes
from services.evaluation.loading import Checked, Choices, check, load
from services.evaluation.measure import Task, measure
from services.evaluation.modes import READINGS, Mode
from services.evaluation.own_retrieval import own_retrieval
from services.evaluation.ports import ReferenceSource
from services.evaluation.progress import Screen
from services.evaluation.retrieved import RetrievedReferences

START = "start"
"""In place of an address: a retrieval tier of our own."""
FILE_WIDTH = 160
"""Columns where no terminal sets a limit."""
PLOT_ENDINGS = (".png", ".svg", ".pdf")
_MODES_HELP = "Modes, with commas between them, or all: " + "; ".join(
    f"{mode} ({READINGS[mode].meaning})" for mode in Mode
)


def _modes(_: click.Context, __: click.Parameter, value: str) -> tuple[Mode, ...] | None:
    if value == "all":
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    known = [mode.value for mode in Mode]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise click.BadParameter(f"{', '.join(map(repr, unknown)) or 'nothing'}; choose among {', '.join(known)}")
    return tuple(dict.fromkeys(Mode(name) for name in names))


def _set(_: click.Context, __: click.Parameter, value: str) -> str:
    if value not in registry.names():
        raise click.BadParameter(f"{value!r}; choose one of {', '.join(registry.names())}")
    return value


def _codec(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(name.strip() for name in value.split(",") if name.strip())


def _picture(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix not in PLOT_ENDINGS:
        raise click.BadParameter(f"{value}: its ending chooses the format; give one of {', '.join(PLOT_ENDINGS)}")
    if value is not None and importlib.util.find_spec("matplotlib") is None:
        raise click.BadParameter("needs the package matplotlib; install memory3[evaluation]")
    return value


@dataclass(frozen=True)
class Options:
    """What the command line said; `services.evaluation.config` holds what it may leave out."""

    set_name: str
    items: int
    seed: int
    split: Split
    modes: tuple[Mode, ...] | None
    plan: str | None
    tokens_per_memory: int | None
    references: int | None
    codec: tuple[str, ...] | None
    adapter: str | None
    model: str | None
    dtype: str | None
    generate: bool
    max_tokens: int
    retrieval: str | None
    token_file: str | None
    bank: str | None
    as_json: bool
    markdown: Path | None
    plot: Path | None
    details: Path | None


_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--set", "set_name", required=True, callback=_set, help=f"One of {', '.join(registry.names())}.")
@click.option("--items", type=click.IntRange(min=1), default=48, show_default=True, help="Items to measure.")
@click.option("--seed", type=click.IntRange(min=0), default=7, show_default=True, help="Draws the items; any will do.")
@click.option(
    "--split", type=click.Choice(SPLITS), default="held-out", show_default=True, help="Which part of the set."
)
@click.option("--modes", default="all", show_default=True, callback=_modes, help=_MODES_HELP)
@click.option("--plan", help="Memory plan: a preset or a JSON file; else the adapter's, else the default.")
@click.option("--tokens-per-memory", type=click.IntRange(min=1), help="Tokens a memory keeps, in place of the plan's.")
@click.option("--references", type=click.IntRange(min=1), help="References of an item, in place of the plan's number.")
@click.option("--codec", callback=_codec, help="Codec stages with commas between them, in place of the plan's.")
@click.option("--adapter", help="Folder of an adapter to merge into the model; none: the model as published.")
@click.option("--model", help="A model directory, or `package`.")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), help="Number format of the model.")
@click.option(
    "--generate/--no-generate", default=True, show_default=True, help="Also generate, for the figure `contains`."
)
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=32, show_default=True, help="Tokens to generate at most."
)
@click.option(
    "--retrieval", help="host:port of the retrieval tier, for sets without given references; start: one of our own."
)
@click.option("--token-file", help="File with the token for it [env MEMORY3_TOKEN_FILE; MEMORY3_TOKEN itself].")
@click.option("--bank", help="Bank to retrieve from; else the one named like the set's knowledge base.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
@click.option("--markdown", type=_FILE, help="Also write the table to this file.")
@click.option("--plot", type=_FILE, callback=_picture, help="Also draw it: .png, .svg or .pdf.")
@click.option("--details", type=_FILE, help="Also write every item's result to this file, as JSON Lines.")
def main(**given: Any) -> None:
    """Measure how well a checkpoint answers in each mode: without references, from text, from memories.

    The references of an item are read as text (rag), as explicit memories under the plan and through the codec
    (memory), or not at all (none), and the likelihood of the known answer is compared. docs/evaluation.md says what
    each figure means and what each set asks.

    \b
    Examples:
      memory3 eval --set fiction --items 48 --seed 7
      memory3 eval --set fiction --modes none,rag,memory --tokens-per-memory 8 --no-generate
      memory3 eval --set halueval --adapter my-adapter/ --json > result.json
      memory3 eval --set fiction --codec bf16 --markdown result.md --plot result.png
      memory3 eval --set fiction --plan my-plan.json --details items.jsonl
      memory3 eval --set wikipedia --retrieval start     # indexes the whole knowledge base once, some minutes
    """
    settings = load_settings(EvaluationSettings)
    over = {name: given[name] for name in ("adapter", "model", "dtype", "retrieval") if given[name] is not None}
    try:
        measured = _run(settings.model_copy(update=over), Options(**given))
        _write(measured, given["markdown"], given["plot"], given["details"])
    except (DatasetError, EvaluationError, Memory3Error, SecurityError, ValueError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    if given["as_json"]:
        sys.stdout.write(json.dumps(measured.to_json(), ensure_ascii=False) + "\n")
    else:
        width = None if sys.stdout.isatty() else FILE_WIDTH
        report.print_report(measured, Console(highlight=False, soft_wrap=True, width=width))


def _run(settings: EvaluationSettings, options: Options) -> report.Report:
    security = tier_security(options.token_file)
    security.check()
    checked = check(settings, Choices(options.plan, options.codec, options.tokens_per_memory, options.references))
    items = registry.load(
        options.set_name,
        split=options.split,
        items=options.items,
        seed=options.seed,
        references=checked.plan.memories_per_chunk,
        cache_dir=settings.data_dir,
    )
    modes = options.modes or possible_modes(items)
    check_modes(modes, items)
    checkpoint = load(settings, checked)
    with contextlib.ExitStack() as stack:
        source: ReferenceSource | None = None
        if not all(item.references for item in items):
            source = stack.enter_context(_retrieval(settings, options, checked, security))
        screen = stack.enter_context(Screen(len(items) * len(modes), quiet=options.as_json))
        generated_tokens = options.max_tokens if options.generate else 0
        task = Task(options.set_name, options.split, items, options.seed, modes, generated_tokens)
        return measure(checkpoint, settings, task, source=source, progress=screen.done)


@contextlib.contextmanager
def _retrieval(
    settings: EvaluationSettings, options: Options, checked: Checked, security: ChannelSecurity
) -> Iterator[ReferenceSource]:
    """References from the tier that is named, or from one that is started for this evaluation."""
    base = registry.knowledge_base(options.set_name)
    bank = options.bank or base.name
    with contextlib.ExitStack() as stack:
        address = settings.retrieval
        if address == START:
            address = stack.enter_context(
                own_retrieval(
                    base,
                    environment=child_environment(),
                    data_dir=settings.data_dir,
                    model=checked.directory,
                    start_seconds=settings.start_seconds,
                    say=lambda text: click.echo(text, err=True),
                )
            )
        source = RetrievedReferences(
            address,
            bank,
            checked.plan.memories_per_chunk,
            timeout_s=settings.retrieve_seconds,
            security=PLAIN if settings.retrieval == START else security,
        )
        try:
            with source:
                yield source
        except (BackendUnavailableError, UnknownBankError) as error:
            raise EvaluationError(
                f"{error}. The set {options.set_name} needs bank {bank} in a retrieval tier: start one for this "
                f"evaluation with --retrieval {START}, or ingest the knowledge base into the one at {address}"
            ) from error


def _write(measured: report.Report, markdown: Path | None, plot: Path | None, details: Path | None) -> None:
    if markdown is not None:
        markdown.write_text(report.markdown(measured), encoding="utf-8")
    if details is not None:
        details.write_text(report.details(measured.results), encoding="utf-8")
    if plot is not None:
        # Slow to import, and wanted by few.
        from services.evaluation.plot import plot as draw  # noqa: PLC0415

        draw(measured, plot)


if __name__ == "__main__":
    main(prog_name="memory3 eval")
