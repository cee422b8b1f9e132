"""The group of commands, and how a run of it ends.

Exit codes: 0 done, 1 an error of ours (one line on stderr), 2 wrong usage, 130 ctrl-C.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from memory3.cli.banks import banks
from memory3.cli.config import quiet_grpc
from memory3.cli.delete import delete
from memory3.cli.documents import documents
from memory3.cli.generate import generate
from memory3.cli.info import info
from memory3.cli.inspect import inspect
from memory3.cli.launch import evaluate, ingest, plan, quantise, serve, train
from memory3.cli.retrieve import retrieve
from memory3.cli.token import token

COMMANDS = (
    serve,
    ingest,
    generate,
    retrieve,
    inspect,
    banks,
    documents,
    delete,
    info,
    plan,
    train,
    quantise,
    evaluate,
    token,
)


class InOrder(click.Group):
    """Lists the commands in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=InOrder,
    context_settings={"help_option_names": ["-h", "--help"]},
    commands=list(COMMANDS),
    epilog="\b\nStart with:\n  memory3 serve\n  memory3 ingest docs/ --bank handbook\n"
    '  memory3 generate "What is a bank?" --bank handbook',
)
@click.version_option(package_name="memory3")
def cli() -> None:
    """An LLM that answers by reading explicit memories of your documents."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; `arguments` without the program's name, those of the process by default."""
    quiet_grpc()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character shows a substitute instead of ending the run.
            stream.reconfigure(errors="replace")
    try:
        code = cli.main(arguments, prog_name="memory3", standalone_mode=False)
    except click.Abort:
        click.echo(err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader (`| head`) has gone: nobody is left to tell. Keep the interpreter's last flush from failing too.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
