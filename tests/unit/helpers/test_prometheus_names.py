"""Names in Prometheus, by examples of the collector's rule."""

from __future__ import annotations

import pytest

from tests.helpers.prometheus_names import base_name, label_name


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("gen_ai.server.time_to_first_token", "s", "histogram", "gen_ai_server_time_to_first_token_seconds"),
        ("memory3.decoder.queue", "{sequence}", "gauge", "memory3_decoder_queue"),
        ("memory3.retrieval.embed.queue", "{text}", "updown", "memory3_retrieval_embed_queue"),
        ("memory3.memory.fetch", "{record}", "counter", "memory3_memory_fetch_total"),
        ("memory3.memory.fetch.bytes", "By", "counter", "memory3_memory_fetch_bytes_total"),
        ("memory3.memory.ram.limit", "By", "gauge", "memory3_memory_ram_limit_bytes"),
        ("cpu.busy", "1", "gauge", "cpu_busy_ratio"),
        ("a.total.b", "1", "counter", "a_b_total"),
    ],
)
def test_the_rule(name: str, unit: str, kind: str, expected: str) -> None:
    assert base_name(name, unit, kind) == expected


def test_an_unknown_unit_is_no_guess() -> None:
    with pytest.raises(KeyError):
        base_name("a", "furlong", "gauge")


def test_labels() -> None:
    assert label_name("memory3.error_reason") == "memory3_error_reason"
