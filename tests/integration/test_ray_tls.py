"""Ray's own TLS, as docs/security.md switches it on: a certificate of the right authority opens it, no other.

Tested is Ray, not code of ours: what the page promises must hold with the Ray that is pinned.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import ray.util

from tests.helpers.certificates import Authority
from tests.helpers.ray_head import ray_head
from tests.helpers.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = 90.0
DRIVER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print("answer", ray.get(ray.remote(lambda number: 2 * number).remote(21)), flush=True)
"""
SHORT = {"RAY_gcs_rpc_server_connect_timeout_s": "3", "RAY_gcs_server_request_timeout_seconds": "5"}
"""Ray tries again for minutes; it complains after each try."""


def tls(folder: Path, authority: str) -> dict[str, str]:
    """The environment of a process whose certificate this authority signed, and that trusts no other."""
    signed_by = Authority(folder / authority, authority)
    # A node is dialled by its address, so that must be in its certificate.
    pair = signed_by.issue("node", addresses=("127.0.0.1", ray.util.get_node_ip_address()))
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(pair.cert),
        "RAY_TLS_SERVER_KEY": str(pair.key),
        "RAY_TLS_CA_CERT": str(signed_by.cert),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "the-same-for-all-0123456789",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


class Driver:
    """A process that joins and has something computed; all its words go to a file."""

    def __init__(self, address: str, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, address],
                env={**os.environ, **SHORT, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def end(self) -> None:
        self._process.kill()
        self._process.wait(10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray-tls")


@pytest.fixture(scope="module")
def environments(folder: Path) -> dict[str, dict[str, str]]:
    """Of who is asked to be let in."""
    ours = tls(folder, "ours")
    return {"ours": ours, "theirs": tls(folder, "theirs"), "plain text": {**ours, "RAY_USE_TLS": "0"}}


@pytest.fixture(scope="module")
def head(environments: dict[str, dict[str, str]]) -> Iterator[str]:
    with ray_head(environments["ours"]) as address:
        yield address


@pytest.mark.parametrize(
    ("who", "hears"),
    [("ours", "answer 42"), ("theirs", "Handshake failed"), ("plain text", "Failed to connect to GCS")],
)
async def test_only_certificates_of_the_right_authority_are_let_in(
    head: str, environments: dict[str, dict[str, str]], folder: Path, who: str, hears: str
) -> None:
    driver = Driver(head, environments[who], folder / f"{who}.log")
    try:
        await until(lambda: hears in driver.said, f"{who} hears {hears!r}", SECONDS)
        assert ("answer" in driver.said) == (who == "ours"), driver.said
    finally:
        driver.end()


@pytest.mark.parametrize("shows", ["a certificate", "none"])
def test_the_head_demands_a_certificate_of_its_clients(
    head: str, environments: dict[str, dict[str, str]], shows: str
) -> None:
    ours = environments["ours"]
    context = ssl.create_default_context(cafile=ours["RAY_TLS_CA_CERT"])
    context.set_alpn_protocols(["h2"])
    if shows == "a certificate":
        context.load_cert_chain(ours["RAY_TLS_SERVER_CERT"], ours["RAY_TLS_SERVER_KEY"])
    host, port = head.split(":")
    answer = b""
    with (
        contextlib.suppress(ssl.SSLError, ConnectionError),
        socket.create_connection((host, int(port)), 10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        answer = secured.recv(9)
    assert bool(answer) == (shows == "a certificate")
