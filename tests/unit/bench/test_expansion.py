"""The bench of expansion runs, and claims no transfer where there is none; its figures are no test's business."""

from __future__ import annotations

import sys

import pytest

from bench import expansion


def test_on_the_processor_nothing_is_copied(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.expansion", "--repeats", "2", "--memories", "2"])
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    expansion.main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows[0] == list(expansion.TITLES)
    assert [row[0] for row in rows[1:]] == list(expansion.CODECS)
    assert {tuple(row[4:]) for row in rows[1:]} == {("-", "-", "-")}
