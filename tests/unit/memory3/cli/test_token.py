"""`memory3 token new`, and how the command line is told its token and TLS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memory3.api.retrieval.v1 import retrieval_pb2
from memory3.errors import PermissionDeniedError
from memory3.tokens import digest, parse_entry
from tests.helpers.recording_servicer import RecordingServer
from tests.helpers.terminal import Terminal


def test_a_token_and_its_line(terminal: Terminal) -> None:
    lines = terminal.run("token", "new", "ci", "--rights", "read, write").lines
    assert [line for line in lines if line.startswith("token")] == ["token, for the caller; shown this once:"]
    entry = parse_entry(lines[-1])
    assert (entry.name, entry.sha256) == ("ci", digest(lines[1]))


def test_as_json(terminal: Terminal) -> None:
    made = terminal.run("token", "new", "ci", "--rights", "admin", "--json").json()
    assert parse_entry(made["entry"]).sha256 == digest(made["token"])


@pytest.mark.parametrize("ended", ["\n", ""])
def test_appended_to_a_file(terminal: Terminal, tmp_path: Path, ended: str) -> None:
    path = tmp_path / "access.jsonl"
    screens = []
    for name in ("one", "two"):
        screens.append(terminal.run("token", "new", name, "--rights", "read", "--access-file", str(path)))
        path.write_text(path.read_text().rstrip("\n") + ended)
    entries = [parse_entry(line) for line in path.read_text().splitlines()]
    assert [entry.sha256 for entry in entries] == [digest(screen.out.strip()) for screen in screens]


def test_the_file_is_the_owners_alone(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    terminal.run("token", "new", "ci", "--rights", "read", "--access-file", str(path))
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ci", "--rights", "read,everything"), "'everything' is no right; there are read, write, admin"),
        (("ci", "--rights", ""), "'' is no right"),
        (("not a name", "--rights", "read"), "has a name that is not"),
        (("ci",), "--rights"),
    ],
)
def test_wrong_usage_makes_nothing(terminal: Terminal, arguments: tuple[str, ...], said: str) -> None:
    screen = terminal.run("token", "new", *arguments)
    assert (screen.code, screen.out) == (2, "")
    assert said in " ".join(screen.err.replace("│", " ").split())


def test_a_file_that_cannot_be_written(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "absent" / "access.jsonl"
    screen = terminal.run("token", "new", "ci", "--rights", "read", "--access-file", str(path))
    assert (screen.code, screen.out) == (1, "")
    assert "cannot be written" in screen.err


@pytest.mark.parametrize("by", ["variable", "variable of a file", "option"])
def test_the_token_goes_with_every_call(
    terminal: Terminal, server: RecordingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by: str
) -> None:
    path = tmp_path / "caller.token"
    path.write_text("m3_hidden\n")
    arguments: list[str] = []
    match by:
        case "variable":
            monkeypatch.setenv("MEMORY3_TOKEN", "m3_hidden")
        case "variable of a file":
            monkeypatch.setenv("MEMORY3_TOKEN_FILE", str(path))
        case "option":
            monkeypatch.setenv("MEMORY3_TOKEN", "another")
            arguments = ["--token-file", str(path)]
    server.reply("RetrievalService/ListBanks", retrieval_pb2.ListBanksResponse())
    assert terminal.run("banks", *arguments).code == 0
    assert server.calls[0].metadata["authorization"] == "Bearer m3_hidden"


def test_without_a_token_none_is_sent(terminal: Terminal, server: RecordingServer) -> None:
    server.reply("RetrievalService/ListBanks", retrieval_pb2.ListBanksResponse())
    assert terminal.run("banks").code == 0
    assert "authorization" not in server.calls[0].metadata


def test_a_refused_token_is_said_in_one_line(
    terminal: Terminal, server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY3_TOKEN", "m3_hidden")
    refused = PermissionDeniedError("Delete needs the right admin, and the token of ci has read; use another token")
    server.reply("RetrievalService/ListBanks", refused)
    screen = terminal.run("banks")
    assert (screen.code, screen.out) == (1, "")
    assert screen.err == f"memory3: permission denied: {refused}\n"


def test_tls_that_cannot_be_used_is_said_before_any_call(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEMORY3_TLS_CA", str(tmp_path / "absent.crt"))
    screen = terminal.run("banks")
    assert screen.code == 1
    assert "absent.crt cannot be read" in screen.err
    monkeypatch.delenv("MEMORY3_TLS_CA")
    monkeypatch.setenv("MEMORY3_TOKEN", "m3_hidden")
    screen = terminal.run("banks", "--retrieval", "10.0.0.7:7301")
    assert screen.code == 1
    assert "plain text" in screen.err
    assert "hidden" not in json.dumps([screen.out, screen.err])
