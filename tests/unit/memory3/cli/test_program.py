"""The program around the commands: help, exit codes, ctrl-C, pipes, the hand-over to the services."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from memory3.api.decoder.v1 import decoder_pb2
from memory3.cli.app import COMMANDS
from tests.helpers.recording_servicer import Hold, RecordingServer
from tests.helpers.terminal import Terminal

MEMORY3 = (sys.executable, "-m", "memory3.cli")
WORDS = [command.name for command in COMMANDS]
SERVICES = {
    "serve": "services.launch",
    "train": "services.training",
    "quantise": "services.quantisation",
    "ingest": "services.ingest",
    "plan": "services.planning",
    "eval": "services.evaluation",
}
"""Verbs that hand over, and to what."""
OWN = [command.name for command in COMMANDS if command.name not in SERVICES]
TOKEN = decoder_pb2.GenerateResponse(token=decoder_pb2.TokenEvent(text="Hello", token_ids=[1]))


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*MEMORY3, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("verb", OWN)
def test_help_teaches_with_an_example_and_offers_json(terminal: Terminal, verb: str) -> None:
    screen = terminal.run(verb, "--help")
    assert screen.code == 0
    assert f"  memory3 {verb}" in screen.out.partition("Example")[2]
    assert "--json" in screen.out
    assert max(map(len, screen.lines)) <= 84


def test_the_first_help_lists_every_verb_in_order(terminal: Terminal) -> None:
    lines = terminal.run("--help").lines
    listed = [word for line in lines if line.startswith("  ") for word in line.split()[:1] if word in WORDS]
    assert listed == WORDS
    assert WORDS[:2] == ["serve", "ingest"]
    assert not any("..." in line for line in lines[1:])  # every description fits


@pytest.mark.parametrize("verb", SERVICES)
def test_some_verbs_become_the_services_own_programs(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    became: list[list[str]] = []

    def execv(_: str, arguments: list[str]) -> None:
        became.append(arguments)

    monkeypatch.setattr(os, "execv", execv)
    terminal.run(verb, "a file", "--json", "--help", "-x", "--", "-y")
    assert became == [[sys.executable, "-m", SERVICES[verb], "a file", "--json", "--help", "-x", "--", "-y"]]


@pytest.mark.parametrize("verb", SERVICES)
def test_their_help_is_the_real_one(verb: str) -> None:
    done = subprocess.run([*MEMORY3, verb, "--help"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"memory3 {verb}" in done.stdout


def test_a_missing_services_package_is_named(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    screen = terminal.run("serve")
    assert screen.code == 1
    assert "memory3[all]" in screen.err


def test_ctrl_c_cancels_the_call_and_ends_with_130(server: RecordingServer) -> None:
    server.reply("DecoderService/Generate", TOKEN, Hold())
    process = start("generate", "hi", "--mode", "none", "--decoder", server.address)
    assert process.stdout is not None
    assert process.stdout.read(5) == "Hello"  # streamed before the end
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err.strip()) == (130, "")
    deadline = time.monotonic() + 10
    while not server.calls[0].cancelled.is_set():
        assert time.monotonic() < deadline, "the server never saw the cancel"
        time.sleep(0.01)


def test_a_reader_that_leaves_early_is_no_traceback(server: RecordingServer) -> None:
    server.reply("DecoderService/Generate", TOKEN, *[TOKEN] * 2000, Hold())
    with start("generate", "hi", "--mode", "none", "--json", "--decoder", server.address) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith('{"event": "token"')
        process.stdout.close()
        err = process.stderr.read()
        assert (process.wait(timeout=20), err) == (1, "")


def test_a_terminal_without_unicode_gets_substitutes(server: RecordingServer) -> None:
    token = decoder_pb2.GenerateResponse(token=decoder_pb2.TokenEvent(text="café", token_ids=[1]))
    final = decoder_pb2.GenerateResponse(
        final=decoder_pb2.FinalEvent(timeline=[{"name": "generate", "service": "decoder", "duration_ns": 5}])
    )
    server.reply("DecoderService/Generate", token, final)
    arguments = ["generate", "hi", "--mode", "none", "--trace", "--decoder", server.address]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    done = subprocess.run(
        [*MEMORY3, *arguments], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("caf?")
    assert "####" in done.stdout


def test_a_collector_that_is_down_costs_neither_words_nor_time(server: RecordingServer, unused_address: str) -> None:
    final = decoder_pb2.GenerateResponse(final=decoder_pb2.FinalEvent())
    server.reply("DecoderService/Generate", TOKEN, final)
    command = [*MEMORY3, "generate", "hi", "--mode", "none", "--trace", "--decoder", server.address]

    def timed(environment: dict[str, str]) -> tuple[subprocess.CompletedProcess[str], float]:
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
        return done, time.monotonic() - started

    without = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    server.reply("DecoderService/Generate", TOKEN, final)
    _, least = timed(without)
    done, seconds = timed({**without, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{unused_address}"})
    assert (done.returncode, done.stderr) == (0, "")
    assert seconds - least < 4  # the exporters' own limits add six
    trace_id = done.stdout.splitlines()[-2].removeprefix("trace ")
    assert len(trace_id) == 32
    assert server.calls[1].metadata["traceparent"].split("-")[1] == trace_id
