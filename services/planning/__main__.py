"""Composition root of a plan: `memory3 plan`, or `python -m services.planning`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from model.codec.codebook import CODEBOOK_FILE
from services.common.config import load as load_settings
from services.planning import report
from services.planning.chart import MatplotlibChart
from services.planning.config import SECTIONS, PlanningSettings
from services.planning.core import STORABLE_FORMATS, Forecast, forecast
from services.planning.model_files import ModelFiles
from services.planning.ports import Chart, Models


class Count(click.ParamType[int]):
    """A whole number of at least 1 that may be written as 1.12e8."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = float(str(value).replace("_", ""))
        except ValueError:
            self.fail(f"{value!r} is no number; write it as 112000000 or 1.12e8", param, ctx)
        if not math.isfinite(number) or number < 1 or number != round(number):
            self.fail(f"{value!r} is not a whole number of at least 1", param, ctx)
        return round(number)


class Sectioned(click.Command):
    """Lists the assumptions in sections of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shown = {param.name: param.get_help_record(ctx) for param in self.get_params(ctx)}
        assumed = {name for names in SECTIONS.values() for name in names}
        sections = {"Options": [name for name in shown if name not in assumed], **SECTIONS}
        for title, names in sections.items():
            with formatter.section(title):
                formatter.write_dl([row for name in names if (row := shown[name]) is not None])


def _assumptions(command: Callable[..., None]) -> Callable[..., None]:
    """One option for each setting, with its description; what is not given keeps the environment's or the default."""
    for name, field in reversed(PlanningSettings.model_fields.items()):
        shown = f"{field.description}  [default: {field.default:,g}]"
        option = click.option(f"--{name.replace('_', '-')}", name, type=field.annotation, help=shown)
        command = option(command)
    return command


@click.command(cls=Sectioned, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", "model_name", required=True, help="paper-2.4b, smollm2-135m, tiny, or a model directory.")
@click.option("--references", type=Count(), required=True, metavar="NUMBER", help="References in the bank, as 1.12e8.")
@click.option("--plan", "plan_name", help="Memory plan: preset or JSON file.  [default: the one made for the model]")
@click.option(
    "--codebook",
    default="",
    help=f"Codebook file, for a plan with the codec trellis.  [default: {CODEBOOK_FILE} beside the plan's file]",
)
@click.option("--tokens-per-memory", type=click.IntRange(min=1), help="Tokens a memory keeps, in place of the plan's.")
@click.option(
    "--store",
    "stored_as",
    type=click.Choice(STORABLE_FORMATS),
    default="record",
    show_default=True,
    help="What the bank is stored as; record: as the plan's codec does here.",
)
@click.option(
    "--plot", "picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw to this .png, .svg or .pdf file."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
@_assumptions
def main(
    *,
    model_name: str,
    references: int,
    plan_name: str | None,
    codebook: str,
    tokens_per_memory: int | None,
    stored_as: str,
    picture: Path | None,
    as_json: bool,
    **given: float | None,
) -> None:
    """What a knowledge base costs: bytes, operations, cache hits, drives, machines, money.

    Operations and sizes are the paper's arithmetic for any model and plan. Load, hardware and prices are assumptions;
    each can be given, here or as MEMORY3_PLANNING_<NAME>.

    \b
    Examples:
      memory3 plan --model paper-2.4b --references 1.12e8
      memory3 plan --model smollm2-135m --references 12882 --plot cost.png
      memory3 plan --model ./my-model --plan plan.json --references 5e6 --store int4
      memory3 plan --model paper-2.4b --references 1.12e8 --store vq --cache-gib 512 --json
    """
    settings = _settings(given)
    try:
        result = _forecast(
            ModelFiles(codebook), model_name, plan_name, tokens_per_memory, references, stored_as, settings
        )
        if picture is not None:
            _draw(MatplotlibChart(), result, picture)
    except ValueError as error:
        if as_json:
            click.echo(json.dumps({"error": str(error)}))
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    if as_json:
        report.print_json(result)
    else:
        report.print_tables(result)
        if picture is not None:
            click.echo(f"drawn: {picture}")


def _settings(given: dict[str, float | None]) -> PlanningSettings:
    """The environment's, changed by the options. Raises click.BadParameter."""
    values = load_settings(PlanningSettings).model_dump()
    values |= {name: value for name, value in given.items() if value is not None}
    try:
        return PlanningSettings.model_validate(values)
    except ValidationError as error:
        said = [f"--{str(item['loc'][0]).replace('_', '-')} {item['input']}: {item['msg']}" for item in error.errors()]
        raise click.UsageError("; ".join(said)) from error


def _forecast(
    models: Models,
    model_name: str,
    plan_name: str | None,
    tokens_per_memory: int | None,
    references: int,
    stored_as: str,
    settings: PlanningSettings,
) -> Forecast:
    config = models.config(model_name)
    plan = models.plan(plan_name, config)
    if tokens_per_memory is not None:
        plan = replace(plan, tokens_per_memory=tokens_per_memory)
    return forecast(
        config,
        plan,
        references=references,
        record_bytes=models.record_bytes(config, plan, plan_name),
        stored_as=stored_as,
        settings=settings,
    )


def _draw(chart: Chart, result: Forecast, picture: Path) -> None:
    try:
        chart.draw(result, picture)
    except OSError as error:
        raise ValueError(f"cannot write {picture} ({error.strerror}); choose another --plot") from error


def run(arguments: Sequence[str] | None = None) -> None:
    """The command with its name."""
    main(arguments, prog_name="memory3 plan")


if __name__ == "__main__":
    run()
