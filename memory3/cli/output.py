"""How results and errors reach the terminal or a script. Knows no command.

People get text and tables on stdout, one line on stderr for an error. With --json stdout holds JSON and nothing else,
and an error is one JSON object on stderr.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import sys
from typing import IO, Any

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from memory3.errors import Memory3Error

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts instead of text.")
"""Gives a command the parameter `as_json`."""


def printable(text: str) -> str:
    """Text of a model or of a document without the control characters that could steer a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def jsonable(value: Any) -> Any:
    """A domain value as JSON types: dataclasses as objects, enums by their lower-case names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value


def print_json(value: Any) -> None:
    """One line of JSON on stdout, flushed: a reader at the other end of a pipe sees it now."""
    print(json.dumps(jsonable(value)), flush=True)  # noqa: T201


def print_text(text: str) -> None:
    """A piece of streamed text on stdout, without a line end, flushed."""
    sys.stdout.write(printable(text))
    sys.stdout.flush()


def show(*renderables: RenderableType) -> None:
    """Text and tables on stdout, as wide as the terminal; colours only on a terminal and without NO_COLOR."""
    console = Console(highlight=False)
    for renderable in renderables:
        console.print(renderable)


def plain(text: object, style: str = "") -> Text:
    """Text that is shown as it is: no markup, no control characters."""
    return Text(printable(str(text)), style=style)


def first_words(text: str) -> Text:
    """The beginning of a text on one line; the table cuts it at the end of its column."""
    return Text(printable(" ".join(text.split())), no_wrap=True, overflow="ellipsis")


def table(*columns: str | tuple[str, str]) -> Table:
    """An empty table in the house style: header, no frame.

    A column is a name, or a name with "right" (aligned) or "text" (gives way first when the terminal is narrow).
    """
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        name, kind = (column, "") if isinstance(column, str) else column
        made.add_column(name, justify="right" if kind == "right" else "left", no_wrap=kind != "text", overflow="fold")
    return made


def counted(count: int, thing: str, things: str = "") -> str:
    """A count with its noun: 1 document, 12,000 documents."""
    return f"{count:,} {thing if count == 1 else things or thing + 's'}"


def num_bytes(count: int) -> str:
    """A size for people: 38.5 KiB."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def milliseconds(nanoseconds: int) -> str:
    """A time for people, in milliseconds."""
    value = nanoseconds / 1e6
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


class Failure(click.ClickException):
    """An error of ours as the command line ends with it: exit code 1, one line or one JSON object on stderr."""

    exit_code = 1

    def __init__(self, error: Memory3Error, *, as_json: bool) -> None:
        super().__init__(str(error))
        self._error = error
        self._as_json = as_json

    def show(self, file: IO[Any] | None = None) -> None:
        error = self._error
        if self._as_json:
            line = json.dumps(
                {
                    "error": {
                        "reason": error.reason.name,
                        "message": str(error),
                        "retriable": error.retriable,
                        "fault": error.fault.name.lower(),
                        "retry_after_ms": error.retry_after_ms,
                    }
                }
            )
        else:
            hint = f" (try again in {error.retry_after_ms} ms)" if error.retry_after_ms is not None else ""
            what = error.reason.name.lower().replace("_", " ")
            line = f"memory3: {what}: {printable(' '.join(str(error).split()))}{hint}"
        click.echo(line, file=file or sys.stderr)
