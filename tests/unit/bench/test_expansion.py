"""The bench of expansion runs, and claims no transfer where there is none; its figures are no test's business."""

from __future__ import annotations

import sys

import pytest

from bench import expansion


def test_on_the_processor_nothing_is_copied(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.expansion", "--repeats", "2", "--memories", "2,9"])
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    expansion.main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert rows[0] == [*expansion.TITLES, *expansion.TRANSFERS]
    assert [(row[1], row[0]) for row in rows[1:]] == [(codec, n) for codec in expansion.CODECS for n in ("2", "9")]
    assert {row[3] for row in rows[1:]} == {"alone"}
    assert {cell for row in rows[1:] for cell in row[len(expansion.TITLES) :]} == {"-"}
