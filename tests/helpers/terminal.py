"""Runs the command line in this process against a recording server, and returns its screen."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import pytest

from memory3.cli import main
from tests.helpers.recording_servicer import RecordingServer


@dataclass(frozen=True)
class Screen:
    """What one run left: exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Lines of stdout without trailing blanks."""
        return [line.rstrip() for line in self.out.splitlines()]

    def json(self) -> Any:
        """Stdout as one JSON value."""
        return json.loads(self.out)


class Terminal:
    """A terminal of a given width whose three addresses are the recording server's."""

    def __init__(
        self, server: RecordingServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        self.width(80)
        monkeypatch.setattr("sys.stdin", io.StringIO())
        monkeypatch.delenv("FORCE_COLOR", raising=False)
        monkeypatch.delenv("NO_COLOR", raising=False)
        for tier in ("RETRIEVAL", "MEMORY", "DECODER"):
            monkeypatch.setenv(f"MEMORY3_{tier}", server.address)

    def width(self, columns: int) -> None:
        """Make the terminal this wide."""
        self._monkeypatch.setenv("COLUMNS", str(columns))

    def colours(self, on: bool) -> None:
        """Pretend that stdout is a colour terminal, or that the person wants none on it."""
        self._monkeypatch.setenv("FORCE_COLOR", "1")
        self._monkeypatch.setenv("TERM", "xterm-256color")
        if not on:
            self._monkeypatch.setenv("NO_COLOR", "1")

    def type(self, text: str) -> None:
        """Sit at the terminal and have this typed."""
        keyboard = io.StringIO(text)
        keyboard.isatty = lambda: True  # type: ignore[method-assign]
        self._monkeypatch.setattr("sys.stdin", keyboard)

    def run(self, *arguments: str) -> Screen:
        """Type a command and wait for its end."""
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        captured = self._capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Screen(caught.value.code, captured.out, captured.err)
