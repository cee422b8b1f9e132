"""What containers need of every server: a health check as a program, and an end at SIGTERM before it serves."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from memory3.errors import BackendUnavailableError
from services.common.bootstrap import wait_for
from services.common.config import ServerSettings
from services.common.probe import is_serving
from services.common.server import running_server
from tests.helpers.processes import ROOT


async def test_the_probe_tells_alive_from_ready() -> None:
    async def check() -> None:
        raise BackendUnavailableError("the store is away")

    settings = ServerSettings(port=0, health_port=0, drain_seconds=0)
    async with running_server(settings, [], [check]) as server:
        port = int(server.health_address.rpartition(":")[2])
        assert await asyncio.to_thread(is_serving, port) is False
        assert await asyncio.to_thread(is_serving, port, "alive") is True
    assert await asyncio.to_thread(is_serving, port, "alive") is False


def test_sigterm_ends_a_start() -> None:
    code = (
        "from services.common.signals import *; import time; end_at_sigterm(); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM


async def test_what_comes_in_time_is_waited_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.common.bootstrap._PAUSE_S", 0.0)
    answers = iter([BackendUnavailableError("not yet"), BackendUnavailableError("not yet"), None])

    async def check() -> None:
        if (answer := next(answers)) is not None:
            raise answer

    await wait_for("the store", check, 60.0)
    assert capsys.readouterr().out.splitlines() == ["waiting for the store: not yet", "the store can be used"]
    with pytest.raises(SystemExit, match="gave up on the store after 0 s: away"):
        await wait_for("the store", _away, 0.0)


async def _away() -> None:
    raise BackendUnavailableError("away")
