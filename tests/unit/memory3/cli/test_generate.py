"""`memory3 generate` on the screen and as JSON lines."""

from __future__ import annotations

import json

import pytest

from memory3 import telemetry
from memory3.api.decoder.v1 import decoder_pb2
from memory3.errors import OverloadedError
from memory3.types import (
    FinalEvent,
    FinishReason,
    GenerationEvent,
    MemoryStatus,
    RecalledMemory,
    RecallEvent,
    Span,
    Tier,
    TimelineEntry,
    Timing,
    TokenEvent,
    Usage,
    event_to_pb,
)
from tests.helpers.recording_servicer import RecordingServer
from tests.helpers.terminal import Terminal

MS = 1_000_000
ETNA, FUJI, LATE = "e" * 32, "f" * 32, "1" * 32
TIMELINE = [
    TimelineEntry("generate", "decoder", None, 0, 1000 * MS),
    TimelineEntry("queue", "decoder-worker", 0, 0, 2 * MS),
    TimelineEntry("recall", "decoder-worker", 0, 2 * MS, 98 * MS),
    TimelineEntry("retrieve", "retrieval", 2, 2 * MS, 48 * MS),
    TimelineEntry("fetch", "memory", 2, 50 * MS, 30 * MS),
    TimelineEntry("load", "decoder-worker", 2, 80 * MS, 20 * MS),
    TimelineEntry("prefill", "decoder-worker", 0, 100 * MS, 150 * MS),
    TimelineEntry("decode", "decoder-worker", 0, 250 * MS, 750 * MS),
]


def memory(reference_id: str, score: float, status: MemoryStatus, tier: Tier, **more: str) -> RecalledMemory:
    text = (
        "Mount Etna is an active volcano on the east coast of [bold]Sicily[/bold],\nItaly, between Messina and Catania."
    )
    return RecalledMemory(reference_id, "doc-1", more.get("title", "Mount Etna"), text, score, status, tier, 97_000)


def answer(**more: object) -> list[GenerationEvent]:
    etna = memory(ETNA, 0.8123, MemoryStatus.READ, Tier.WORKER)
    late = memory(LATE, 0.41, MemoryStatus.LATE, Tier.NONE, title="")
    fuji = memory(FUJI, 0.5, MemoryStatus.READ, Tier.COLD, title="Mount Fuji")
    final = FinalEvent(
        finish_reason=FinishReason.END,
        usage=Usage(70, 5, 0, 3, 1, 0, 2, 0),
        timing=Timing(1000 * MS, 2 * MS, 250 * MS, 98 * MS, 48 * MS, 30 * MS, 20 * MS, 12 * MS, 150 * MS, 750 * MS),
        spans=[Span(0, 0, 64, [ETNA], [0.25]), Span(1, 64, 75, [ETNA, FUJI], [0.15, 0.1])],
        seed=7,
        timeline=TIMELINE,
        trace_id="ab" * 16,
    )
    return [
        RecallEvent(0, 0, [etna, late], False, 98 * MS, 12 * MS),
        TokenEvent("On the east coast", [1, 2]),
        TokenEvent("", [3]),
        RecallEvent(1, 64, [etna, fuji], False, 9 * MS, 0),
        TokenEvent(" of Sicily.", [4, 5]),
        FinalEvent(**{**final.__dict__, **more}),
    ]


def prepare(server: RecordingServer, events: list[GenerationEvent]) -> None:
    server.reply("DecoderService/Generate", *map(event_to_pb, events))


def test_the_screen_of_80_columns(server: RecordingServer, terminal: Terminal) -> None:
    prepare(server, answer(spans=[]))
    screen = terminal.run("generate", "Where is Mount Etna?", "--bank", "wiki")
    assert screen.code == 0, screen.err
    assert screen.err == ""
    text, table, rest = screen.out.strip().split("\n\n", 2)
    assert text == "On the east coast of Sicily."
    assert [line.split()[:4] for line in table.splitlines()] == [
        ["score", "status", "tier", "spans"],
        ["0.812", "read", "worker", "0-1"],
        ["0.410", "late", "-", "0"],
        ["0.500", "read", "cold", "1"],
    ]
    assert "Mount Etna is an active" in table
    assert "doc-1" in table  # no title: its document stands there
    assert "70 prompt tokens, 5 generated, ended by end, seed 7" in rest
    assert "2 recalls: 3 memories read, 1 late, 0 missing" in rest
    assert "total 1,000 ms: queue 2.00, prefill 150, decode 750" in rest
    assert "188 ms a token, 5.3 tokens/s" in rest
    assert "98.0 ms: retrieve 48.0, fetch 30.0, load 20.0 (waited 12.0 ms)" in rest
    assert max(map(len, screen.lines)) <= 80


def test_a_wide_screen_has_room_for_the_ids_and_attention_is_shown_if_measured(
    server: RecordingServer, terminal: Terminal
) -> None:
    prepare(server, answer())
    terminal.width(120)
    screen = terminal.run("generate", "Where?", "--bank", "wiki", "--attention")
    assert screen.code == 0, screen.err
    row = next(line for line in screen.lines if ETNA in line)
    assert "20.0%" in row  # the mean of its two spans
    assert max(map(len, screen.lines)) <= 120
    assert server.calls[0].request.report_attention


@pytest.mark.parametrize("width", [80, 120])
def test_the_waterfall_fills_the_terminal(server: RecordingServer, terminal: Terminal, width: int) -> None:
    prepare(server, answer())
    terminal.width(width)
    screen = terminal.run("generate", "Where?", "--bank", "wiki", "--trace")
    assert server.calls[0].request.report_timeline
    bars = [line for line in screen.lines if "█" in line]
    assert [line.split()[0] for line in bars] == [entry.name for entry in TIMELINE]
    assert [len(line) - len(line.lstrip()) for line in bars] == [0, 2, 2, 4, 4, 4, 2, 2]
    assert {len(line) for line in bars} == {width}
    assert [line.rstrip().split()[-2:] for line in bars][:3] == [["1,000", "ms"], ["2.00", "ms"], ["98.0", "ms"]]
    decode, prefill = bars[-1], bars[-2]
    assert decode.count("█") / bars[0].count("█") == pytest.approx(0.75, abs=0.02)
    assert decode.index("█") in (prefill.rindex("█") + 1, prefill.rindex("█"))
    assert screen.lines[-1] == "trace " + "ab" * 16


JAEGER = "http://localhost:16686/trace/" + "ab" * 16


@pytest.mark.parametrize(
    ("environment", "options", "link"),
    [
        ({}, [], ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, [], JAEGER),
        ({"MEMORY3_TRACE_URL": "https://ui/t?id={trace_id}&x={}"}, [], "https://ui/t?id=" + "ab" * 16 + "&x={}"),
        (
            {"MEMORY3_TRACE_URL": "https://ui/{trace_id}"},
            ["--trace-url", "http://b/{trace_id}/"],
            "http://b/" + "ab" * 16 + "/",
        ),
    ],
)
def test_a_link_to_the_trace(
    server: RecordingServer,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    options: list[str],
    link: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # Whether anything is exported is not the question here, and this process has providers for once only.
    monkeypatch.setattr(telemetry, "start", lambda *_, **__: lambda: None)
    terminal.width(40)
    prepare(server, answer())
    screen = terminal.run("generate", "Where?", "--bank", "wiki", "--trace", *options)
    assert screen.out.splitlines()[-1] == (link or "trace " + "ab" * 16)
    prepare(server, answer())
    final = json.loads(
        terminal.run("generate", "?", "--bank", "wiki", "--trace", "--json", *options).out.splitlines()[-1]
    )
    assert final.get("trace_url", "") == link
    prepare(server, answer())
    assert "ab" * 16 not in terminal.run("generate", "Where?", "--bank", "wiki", *options).out


def test_a_trace_that_is_left_out_has_no_link(
    server: RecordingServer, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "left_out", lambda: True)
    prepare(server, answer())
    screen = terminal.run("generate", "?", "--bank", "wiki", "--trace", "--trace-url", "http://b/{trace_id}")
    assert "left it out" in screen.lines[-1]
    assert "http://b/" not in screen.out


def test_a_link_without_a_place_for_the_id_is_refused(terminal: Terminal) -> None:
    screen = terminal.run("generate", "hi", "--mode", "none", "--trace-url", "http://localhost:16686")
    assert (screen.code, screen.out) == (2, "")
    assert "has no {trace_id}" in screen.err


def test_json_is_one_event_a_line(server: RecordingServer, terminal: Terminal) -> None:
    prepare(server, answer())
    screen = terminal.run("generate", "Where?", "--bank", "wiki", "--json")
    events = [json.loads(line) for line in screen.out.splitlines()]
    assert [event["event"] for event in events] == ["recall", "token", "token", "recall", "token", "final"]
    assert "".join(event["text"] for event in events if event["event"] == "token") == "On the east coast of Sicily."
    assert events[0]["memories"][0]["status"] == "read"
    assert events[0]["memories"][1]["tier"] == "none"
    assert events[-1]["finish_reason"] == "end"
    assert events[-1]["usage"]["num_memories_read"] == 3
    assert events[-1]["timing"]["ttft_ns"] == 250 * MS
    assert 0 < events[-1]["client_ttft_ns"] < 60_000 * MS


def test_colours_are_for_terminals_that_want_them(server: RecordingServer, terminal: Terminal) -> None:
    prepare(server, answer())
    assert "\x1b[" not in terminal.run("generate", "Where?", "--bank", "wiki", "--trace").out
    terminal.colours(True)
    prepare(server, answer())
    assert "\x1b[3" in terminal.run("generate", "Where?", "--bank", "wiki", "--trace").out
    terminal.colours(False)
    prepare(server, answer())
    assert "\x1b[3" not in terminal.run("generate", "Where?", "--bank", "wiki", "--trace").out


def test_nothing_in_a_text_steers_the_terminal(server: RecordingServer, terminal: Terminal) -> None:
    events = answer()
    events[1] = TokenEvent("red \x1b[31m\x07 \x9b2J [bold]not bold[/bold]\tend", [1])
    prepare(server, events)
    out = terminal.run("generate", "Where?", "--bank", "wiki").out
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert "[bold]not bold[/bold]\tend" in out


def test_every_option_reaches_the_request(server: RecordingServer, terminal: Terminal) -> None:
    prepare(server, answer())
    options = (
        "--mode rag --system Short. --max-tokens 9 --temperature 0.5 --top-k 4 --top-p 0.25 --seed 3 "
        "--stop END --stop . --recall-deadline-ms 0 --document d1 --document d2"
    )
    assert terminal.run("generate", "Where?", "--bank", "wiki", *options.split()).code == 0
    expected = decoder_pb2.GenerateRequest(
        chat={"messages": [{"role": "ROLE_SYSTEM", "content": "Short."}, {"role": "ROLE_USER", "content": "Where?"}]},
        bank="wiki",
        mode=decoder_pb2.MODE_RAG,
        sampling={"temperature": 0.5, "top_k": 4, "top_p": 0.25, "seed": 3},
        max_tokens=9,
        stop=["END", "."],
        recall_deadline_ms=0,
        document_ids=["d1", "d2"],
    )
    assert server.calls[0].request == expected


def test_raw_text_without_a_bank(server: RecordingServer, terminal: Terminal) -> None:
    usage, plain = Usage(4, 1), Timing(9 * MS)
    prepare(server, [TokenEvent("x", [1]), FinalEvent(FinishReason.LENGTH, usage, plain, [], 5)])
    screen = terminal.run("generate", "Once", "--raw", "--mode", "none", "--trace")
    assert server.calls[0].request.prompt == "Once"
    assert not server.calls[0].request.sampling.HasField("seed")
    assert "ended by length" in screen.out
    assert "recall" not in screen.out
    assert "score" not in screen.out
    assert "no trace id" in screen.out


def test_a_degraded_answer_says_so(server: RecordingServer, terminal: Terminal) -> None:
    prepare(
        server,
        [TokenEvent("x", [1]), RecallEvent(0, 0, [], True, 5, 5), *answer(usage=Usage(9, 1, 0, 0, 0, 0, 2, 1))[-1:]],
    )
    out = " ".join(terminal.run("generate", "Once", "--bank", "wiki").out.split())
    assert "retrieval failed or was late in 1 of 2 recalls; the answer went on without" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["hi"], "--mode memory needs --bank NAME"),
        (["hi", "--mode", "rag"], "--mode rag needs --bank NAME"),
        (["hi", "--mode", "none", "--raw", "--system", "x"], "--system goes with --chat"),
        (["hi", "--mode", "none", "--temperature", "-1"], "-1"),
        (["hi", "--mode", "best"], "best"),
        ([], "PROMPT"),
    ],
)
def test_wrong_usage_ends_with_2(terminal: Terminal, arguments: list[str], complaint: str) -> None:
    screen = terminal.run("generate", *arguments)
    assert (screen.code, screen.out) == (2, "")
    assert complaint in screen.err


def test_an_error_is_one_line_and_ends_with_1(server: RecordingServer, terminal: Terminal) -> None:
    server.reply("DecoderService/Generate", OverloadedError("9 of 9 places\nare taken; ask again", retry_after_ms=300))
    screen = terminal.run("generate", "hi", "--bank", "wiki")
    assert (screen.code, screen.out) == (1, "")
    assert screen.err == "memory3: overloaded: 9 of 9 places are taken; ask again (try again in 300 ms)\n"


def test_an_error_with_json_is_one_object_on_stderr(server: RecordingServer, terminal: Terminal) -> None:
    server.reply("DecoderService/Generate", OverloadedError("9 of 9 places are taken", retry_after_ms=300))
    screen = terminal.run("generate", "hi", "--bank", "wiki", "--json")
    assert (screen.code, screen.out) == (1, "")
    assert json.loads(screen.err) == {
        "error": {
            "reason": "OVERLOADED",
            "message": "9 of 9 places are taken",
            "retriable": True,
            "fault": "service",
            "retry_after_ms": 300,
        }
    }
