"""What a run says of itself while it goes on."""

from __future__ import annotations

import pytest

from services.ingest.report import LINE_EVERY_S, Report
from services.ingest.summary import Summary


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_rate_and_time_left_are_told_every_few_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(as_json=False, limit=None, clock=clock)
    report.start(total_bytes=1000)
    clock.now += 1
    report.note(Summary(documents=1, references=10), 10, None)
    assert capsys.readouterr().err == "", "not so soon again"
    clock.now += LINE_EVERY_S * 2 - 1
    report.note(Summary(documents=5, references=120, references_unchanged=20), 240, None)
    assert capsys.readouterr().err == "5 documents, 120 references (25%), 10.0 references/s, 30 s left\n"
    report.stop()


def test_a_limit_of_documents_is_the_end_too(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(as_json=False, limit=10, clock=clock)
    report.start(total_bytes=1_000_000)
    clock.now += 10
    report.note(Summary(documents=5, references=50), 10, None)
    assert "(50%), 5.0 references/s, 10 s left" in capsys.readouterr().err


def test_json_leaves_the_screen_alone(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(as_json=True, limit=None, clock=clock)
    report.start(total_bytes=10)
    clock.now += 60
    report.note(Summary(documents=1), 5, None)
    assert capsys.readouterr() == ("", "")
