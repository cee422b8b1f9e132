"""The links that docs/telemetry.md gives for each trace UI: the command line takes them, and they lead to the trace."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from memory3.cli.config import TRACE_ID, TRACE_URL
from tests.helpers.recording_servicer import RecordingServer
from tests.helpers.terminal import Terminal
from tests.unit.memory3.cli.test_generate import answer, prepare

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "telemetry.md").read_text()
TEMPLATES = dict(re.findall(r"^\| (\w+(?: \w+)*)[^|]*\| `(https?://[^`]+)` \|$", PAGE, re.MULTILINE))
"""By the words that each row begins with."""
ID = "ab" * 16


def test_the_table_is_read() -> None:
    assert len(TEMPLATES) >= 4
    assert TRACE_URL in TEMPLATES.values()


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_the_command_line_makes_a_link_of_it(server: RecordingServer, terminal: Terminal, name: str) -> None:
    prepare(server, answer())
    screen = terminal.run("generate", "Where?", "--bank", "wiki", "--trace", "--trace-url", TEMPLATES[name])
    link = screen.lines[-1]
    assert link == TEMPLATES[name].replace(TRACE_ID, ID)
    address = urlsplit(link)
    if not address.query:
        assert address.path.endswith("/" + ID)
        return
    options = parse_qs(address.query, strict_parsing=True)
    assert options["schemaVersion"] == ["1"]
    (pane,) = json.loads(options["panes"][0]).values()
    assert [query["query"] for query in pane["queries"]] == [ID]
    assert pane["datasource"] in ("traces", "tempo")
