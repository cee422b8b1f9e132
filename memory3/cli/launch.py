"""`memory3 serve`, `ingest`, `plan`, `train`, `quantise` and `eval`: hand over to the services' own programs.

The SDK knows no service, so these replace the process and pass every argument on, --help too.
"""

from __future__ import annotations

import importlib.util
import os
import sys

import click

_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}


@click.command(context_settings=_PASS_ON, short_help="Run all three tiers on this machine.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Run all three tiers on this machine (`memory3 serve --help`)."""
    _become("services.launch", arguments)


@click.command(context_settings=_PASS_ON, short_help="Turn documents into references and memories.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def ingest(arguments: tuple[str, ...]) -> None:
    """Turn documents into a bank of references and memories (`memory3 ingest --help`)."""
    _become("services.ingest", arguments)


@click.command(context_settings=_PASS_ON, short_help="What a knowledge base costs, before it is built.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def plan(arguments: tuple[str, ...]) -> None:
    """Bytes, operations, drives and money of a knowledge base (`memory3 plan --help`)."""
    _become("services.planning", arguments)


@click.command(context_settings=_PASS_ON, short_help="Train a model or an adapter to read memories.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def train(arguments: tuple[str, ...]) -> None:
    """Train a model or an adapter to read memories (`memory3 train --help`)."""
    _become("services.training", arguments)


@click.command(context_settings=_PASS_ON, short_help="Train a codebook that makes memories small.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def quantise(arguments: tuple[str, ...]) -> None:
    """Train the codebook of the codec `trellis` for a model (`memory3 quantise --help`)."""
    _become("services.quantisation", arguments)


@click.command("eval", context_settings=_PASS_ON, short_help="How well a model answers from its memories.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def evaluate(arguments: tuple[str, ...]) -> None:
    """Measure a checkpoint and its memory plan on a question set (`memory3 eval --help`)."""
    _become("services.evaluation", arguments)


def _become(module: str, arguments: tuple[str, ...]) -> None:
    """Replace this process by `python -m module`; signals and exit code are then the module's own."""
    if importlib.util.find_spec("services") is None:
        raise click.ClickException("this installation has the clients only; install the services: memory3[all]")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
