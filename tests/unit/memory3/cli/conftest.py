"""A recording server and a terminal that talks to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.recording_servicer import RecordingServer, recording_server_in_thread
from tests.helpers.terminal import Terminal


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with recording_server_in_thread() as recording:
        yield recording


@pytest.fixture
def terminal(server: RecordingServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(server, capsys, monkeypatch)
