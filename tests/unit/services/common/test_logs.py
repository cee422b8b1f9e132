"""Logs are one JSON object a line."""

from __future__ import annotations

import json
import logging

from services.common.logs import JsonFormatter


def test_a_record_is_one_line_of_json_with_its_exception() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed %s", ("ä\n",), info)
    line = JsonFormatter("retrieval").format(record)
    entry = json.loads(line)
    assert "\n" not in line
    assert entry["message"] == "failed ä\n"
    assert entry["service"] == "retrieval"
    assert "ValueError" in entry["exception"]
