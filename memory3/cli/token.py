"""`memory3 token new`: a token for a caller, and the line that lets it in. Asks no tier."""

from __future__ import annotations

import os
from pathlib import Path

import click

from memory3.cli.output import json_option, plain, print_json, show
from memory3.rights import Right
from memory3.tokens import TokenEntry, new_token


def _rights(_: click.Context, __: click.Parameter, value: str) -> list[Right]:
    known = {right.value: right for right in Right}
    names = [name.strip() for name in value.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(f"{unknown[0]!r} is no right; there are {', '.join(known)} (separate them by commas)")
    return [known[name] for name in names]


@click.group(short_help="Make tokens for callers.")
def token() -> None:
    """Make tokens for callers of tiers that have an access file.

    \b
    Examples:
      memory3 token new laptop --rights read
      memory3 token new ci --rights read,write --json
    """


@token.command(short_help="Make a token and its line of the access file.")
@click.argument("name")
@click.option(
    "--rights",
    required=True,
    callback=_rights,
    help="What it may do, of read, write and admin, separated by commas; none includes another.",
)
@click.option(
    "--access-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append the line to this file; then the token alone is printed.",
)
@json_option
def new(name: str, rights: list[Right], access_file: Path | None, as_json: bool) -> None:
    """Make a token for the caller NAME, and the line of the access file that lets it in.

    The token is shown this once; the line has only its hash. Tiers see a changed access file at the next call. To take
    a token back, delete its line.

    \b
    Examples:
      memory3 token new laptop --rights read
      memory3 token new ci --rights read,write --access-file access.jsonl > ci.token
    """
    try:
        made, entry = new_token(name, rights)
    except ValueError as error:
        raise click.BadParameter(f"{name!r} {error}", param_hint="NAME") from error
    if access_file is not None:
        _append(access_file, entry)
    if as_json:
        print_json({"token": made, "entry": entry.to_json()})
    elif access_file is not None:
        click.echo(made)
    else:
        show(plain("token, for the caller; shown this once:"))
        click.echo(made)
        show(plain("line, for the access file of the tiers:"))
        click.echo(entry.to_json())


def _append(path: Path, entry: TokenEntry) -> None:
    """Add a line, whether or not the last one was ended. Raises ClickException."""
    try:
        # Readable by the owner alone, if it is new: hashes of tokens are not secret, names of callers may be.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            file.seek(0)
            unended = file.read()[-1:] not in (b"", b"\n")
            file.write((b"\n" if unended else b"") + entry.to_json().encode() + b"\n")
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}; name another --access-file") from error
