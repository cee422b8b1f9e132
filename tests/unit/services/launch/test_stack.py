"""The launcher's supervision, on small stand-in modules in place of tiers."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.launch.config import LaunchSettings, TierSpec, tier_specs
from services.launch.core import LaunchError, choose_ports, running_processes, running_stack
from services.launch.process import TierProcess

LISTENS = """
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("bye", flush=True), sys.exit(0)))
held = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
print("listening", flush=True)
while True:
    time.sleep(60)
"""
DIES = 'print("the disk is on fire", flush=True); raise SystemExit(3)'
DEAF = LISTENS.replace('lambda *_: (print("bye", flush=True), sys.exit(0))', "signal.SIG_IGN")


async def can_connect(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


@pytest.fixture
def settings(tmp_path: Path) -> LaunchSettings:
    return LaunchSettings(data_dir=tmp_path / "data", start_seconds=20, drain_seconds=0.5)


@pytest.fixture
def spec(tmp_path: Path):
    def make(name: str, source: str) -> TierSpec:
        (tmp_path / f"standin_{name}.py").write_text(source)
        (port, *_) = choose_ports("127.0.0.1", 0)
        path = os.pathsep.join([str(tmp_path), str(Path.cwd())])
        return TierSpec(name, f"standin_{name}", port, {**os.environ, "PORT": str(port), "PYTHONPATH": path})

    return make


async def test_starts_all_and_stops_all(settings, spec):
    news: list[str] = []
    specs = [spec("retrieval", LISTENS), spec("decoder", LISTENS)]
    async with running_processes(settings, specs, can_connect, news.append) as stack:
        assert list(stack.addresses) == ["retrieval", "decoder"]
        assert all([await can_connect(address) for address in stack.addresses.values()])
    assert not any([await can_connect(address) for address in stack.addresses.values()])
    assert sum("ready at" in line for line in news) == 2
    assert (settings.data_dir / "logs" / "decoder.log").read_text() == "listening\nbye\n"


async def test_a_tier_that_dies_at_the_start_is_named_with_its_last_lines(settings, spec):
    with pytest.raises(LaunchError, match=r"memory ended with exit code 3(.|\n)*the disk is on fire"):
        async with running_processes(settings, [spec("retrieval", LISTENS), spec("memory", DIES)], can_connect, print):
            pytest.fail("never ready")


async def test_a_tier_that_dies_later_ends_the_watch(settings, spec):
    async with running_processes(settings, [spec("decoder", LISTENS)], can_connect, print) as stack:
        watching = asyncio.create_task(stack.watch())
        await asyncio.sleep(0)
        os.kill(stack._processes[0]._process.pid, signal.SIGKILL)
        with pytest.raises(LaunchError, match="decoder ended with signal 9"):
            await asyncio.wait_for(watching, 10)


async def test_a_tier_that_never_serves_is_named(settings, spec):
    async def never(_: str) -> bool:
        return False

    hasty = settings.model_copy(update={"start_seconds": 0.5})
    with pytest.raises(LaunchError, match="memory not ready after 0 s"):
        async with running_processes(hasty, [spec("memory", LISTENS)], never, print):
            pytest.fail("never ready")


def test_log_lines_are_shown_without_their_wrapping(tmp_path):
    process = TierProcess(TierSpec("decoder", "m", 1, {}), "127.0.0.1", tmp_path / "decoder.log")
    assert process.tail(5) == []
    record = '{"time": "t", "level": "INFO", "message": "converting"}'
    process.log.write_text(f'plain\n\n\x1b[36m(worker pid=1)\x1b[0m {record}\n{record[:-1]}\n{{"time": 1}}\n')
    assert process.tail(9) == ["plain", "INFO: converting", record[:-1], '{"time": 1}']
    assert process.tail(1) == ['{"time": 1}']


async def test_a_deaf_tier_is_killed_after_the_drain_time(settings, spec, monkeypatch):
    monkeypatch.setattr("services.launch.core.KILL_AFTER_S", 0.1)
    start = time.monotonic()
    async with running_processes(settings, [spec("decoder", DEAF)], can_connect, print) as stack:
        pass
    assert not await can_connect(stack.addresses["decoder"])
    assert time.monotonic() - start < 10


def test_a_port_in_use_is_named_with_the_remedy():
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(LaunchError, match=rf"port {port} on 127.0.0.1 is in use.*--port-base"):
            choose_ports("127.0.0.1", port)


def test_port_base_zero_takes_three_different_free_ports():
    assert len(set(choose_ports("127.0.0.1", 0))) == 3


async def test_a_second_launcher_on_the_same_data_is_refused(settings, monkeypatch):
    monkeypatch.setattr("services.launch.core.tier_specs", lambda *_: [])
    monkeypatch.setattr("services.launch.core._stop", lambda *_: asyncio.sleep(0))
    fixed = settings.model_copy(update={"port_base": 0})
    async with running_stack(fixed, can_connect, print):
        with pytest.raises(LaunchError, match="in use by another memory3 serve"):
            async with running_stack(fixed, can_connect, print):
                pytest.fail("two launchers")
    async with running_stack(fixed, can_connect, print):
        pass  # free again


async def test_a_data_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LaunchError, match=r"cannot write to .*file/data.*--data-dir"):
        async with running_stack(LaunchSettings(data_dir=tmp_path / "file" / "data"), can_connect, print):
            pytest.fail("no folder")


def test_the_users_own_places_win_and_addresses_agree(monkeypatch, tmp_path):
    monkeypatch.setenv("MEMORY3_RETRIEVAL_MILVUS_URI", "http://milvus:19530")
    monkeypatch.setenv("MEMORY3_DECODER_PORT", "9")
    specs = {s.name: s for s in tier_specs(LaunchSettings(data_dir=tmp_path), (1, 2, 3))}
    assert specs["retrieval"].env["MEMORY3_RETRIEVAL_MILVUS_URI"] == "http://milvus:19530"
    assert specs["decoder"].env["MEMORY3_DECODER_PORT"] == "3"
    assert specs["decoder"].env["MEMORY3_DECODER_RETRIEVAL_ADDRESS"] == "127.0.0.1:1"
    assert specs["decoder"].env["MEMORY3_DECODER_MEMORY_ADDRESS"] == "127.0.0.1:2"


@pytest.mark.skipif(sys.platform != "linux", reason="parent death signal is Linux's")
def test_children_end_when_the_launcher_is_killed(tmp_path):
    (tmp_path / "standin.py").write_text(LISTENS)
    (port, *_) = choose_ports("127.0.0.1", 0)
    code = (
        "import os, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-m', 'services.launch.child', str(os.getpid()), 'standin'])\n"
        "time.sleep(60)"
    )
    path = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PORT": str(port), "PYTHONPATH": path})
    try:
        _until(lambda: _listens(port))
        parent.kill()
        _until(lambda: not _listens(port))
    finally:
        parent.kill()
        parent.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _until(done, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)
