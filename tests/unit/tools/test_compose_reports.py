"""What `make test-compose` holds against an image, and against answers given while a container was restarted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tools import image_rules, load_report

LABELS = {f"org.opencontainers.image.{name}": "x" for name in ("description", "version", "revision")}
GOOD_INSIDE: dict[str, Any] = {
    "uid": 10001, "modules": ["obstore"], "tools": [], "top": ["bin", "data", "opt"], "opt": ["memory3"],
    "services": ["common", "memory"], "bytecode": True, "nvidia": False,
    "left_over": [], "keys": [], "writable": ["/data", "/tmp"],
}  # fmt: skip


def about(**config: Any) -> dict[str, Any]:
    good = {
        "User": "10001:10001",
        "Labels": {**LABELS, "org.opencontainers.image.title": "memory3-memory"},
        "Healthcheck": {"Test": ["CMD"]},
        "ExposedPorts": {"7302/tcp": {}, "7310/tcp": {}},
        "Env": ["PATH=/opt/memory3/bin", "MEMORY3_MEMORY_HEALTH_PORT=7310"],
    }
    return {"Config": good | config}


def test_a_good_image_passes() -> None:
    assert image_rules.wrong("memory", about(), GOOD_INSIDE, "", 84) == []


@pytest.mark.parametrize(
    ("inside", "word"),
    [
        ({"uid": 0}, "root"),
        ({"modules": ["obstore", "torch"]}, "torch"),
        ({"tools": ["gcc"]}, "gcc"),
        ({"top": ["data", "wheels"]}, "wheels"),
        ({"opt": ["memory3", "venv"]}, "venv"),
        ({"services": ["common", "decoder", "memory"]}, "decoder"),
        ({"nvidia": True}, "CUDA"),
        ({"bytecode": False}, "bytecode"),
        ({"left_over": ["/etc/pip.conf"]}, "pip.conf"),
        ({"keys": ["/data/tls.key"]}, "tls.key"),
        ({"writable": ["/data", "/opt"]}, "/opt"),
    ],
)
def test_what_should_not_be_inside_is_named(inside: dict[str, Any], word: str) -> None:
    (wrong,) = image_rules.wrong("memory", about(), GOOD_INSIDE | inside, "", 84)
    assert word in wrong


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"User": ""}, "root"),
        ({"Labels": LABELS}, "title"),
        ({"Labels": {"org.opencontainers.image.title": "memory3-memory"}}, "revision"),
        ({"Healthcheck": None}, "health check"),
        ({"ExposedPorts": {"7302/tcp": {}}}, "7302"),
        ({"Env": ["PIP_CERT=/etc/host-ca.crt"]}, "pip's settings"),
        ({"Env": ["MEMORY3_MEMORY_S3_SECRET_KEY=abc"]}, "secret"),
    ],
)
def test_what_is_wrong_about_the_image_is_named(config: dict[str, Any], word: str) -> None:
    (wrong,) = image_rules.wrong("memory", about(**config), GOOD_INSIDE, "", 84)
    assert word in wrong
    assert "abc" not in wrong


def test_size_and_traces_of_the_build_are_told() -> None:
    size, history = image_rules.wrong("memory", about(), GOOD_INSIDE, "COPY host-ca.crt", 900)[::-1]
    assert "900 MB" in size
    assert "history" in history


def line(at: float, **seen: Any) -> dict[str, Any]:
    return {"at": at, "s": 1.5, **seen}


GOOD = {"read": 5, "of": 5}
LOST = {"error": "BACKEND_UNAVAILABLE", "retriable": True, "message": "the worker is gone"}


def test_answers_are_read_in_order_from_then_on() -> None:
    text = "\n".join(["a warning", *(json.dumps(line(at, **GOOD)) for at in (12.0, 9.0, 11.0))])
    assert [seen["at"] for seen in load_report.answers(text, 10.0)] == [11.0, 12.0]


def test_well_means_several_good_answers_in_a_row() -> None:
    good = [line(float(at), **GOOD) for at in range(4)]
    assert load_report.is_well(good)
    assert not load_report.is_well(good[:3])
    assert not load_report.is_well([*good, line(5.0, **LOST)])
    assert not load_report.is_well([*good, line(5.0, read=0, of=5)])


def test_an_error_that_says_to_try_again_is_allowed_where_the_decoder_is_away() -> None:
    seen = [line(101.0, **LOST), line(103.5, **LOST), line(104.0, **GOOD)]
    report = load_report.summary("ray-worker", seen, 100.0)
    assert report["failed"] == {"BACKEND_UNAVAILABLE": 2}
    assert report["troubled_s"] == 3.5
    assert report["wrong"] == []


@pytest.mark.parametrize(("name", "retriable"), [("memory", True), ("decoder", False)])
def test_no_other_error_is(name: str, retriable: bool) -> None:
    report = load_report.summary(name, [line(101.0, **(LOST | {"retriable": retriable}))], 100.0)
    assert report["wrong"] == ["BACKEND_UNAVAILABLE: the worker is gone"]


def test_fewer_memories_are_counted_and_not_held_against_it() -> None:
    report = load_report.summary("memory", [line(101.0, read=2, of=5), line(102.0, read=0, of=0)], 100.0)
    assert report["with_fewer_memories"] == 2
    assert report["wrong"] == []
