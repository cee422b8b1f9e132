"""The whole system with mutual TLS and tokens: real processes, ingested into and asked from the command line.

And the secrets of it: in no log, no span, no command line of a process, no word to the caller.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from memory3.client import Client
from memory3.errors import BackendUnavailableError
from memory3.rights import Right
from memory3.tokens import new_token
from tests.helpers.certificates import Authority, Pair
from tests.helpers.decoder_stack import BANK, TEXTS, DecoderStack, decoder_stack
from tests.helpers.otlp_receiver import OtlpReceiver, otlp_receiver
from tests.helpers.processes import ROOT, ServiceProcess

SERVICE_RIGHTS = (Right.READ, Right.WRITE)
CALLERS = {"operator": tuple(Right), "reader": (Right.READ,)}
TIERS = ("retrieval", "memory", "decoder")


@dataclass
class Secured:
    """The started system, its secrets, and a person at the terminal."""

    stack: DecoderStack
    folder: Path
    receiver: OtlpReceiver
    certificates: dict[str, Pair]
    tokens: dict[str, str]
    words: list[str] = field(default_factory=list)
    """All that was said to callers."""

    def memory3(self, *arguments: str, caller: str = "", certificate: bool = True) -> subprocess.CompletedProcess[str]:
        """Type a command as this caller, or as nobody."""
        pair = self.certificates["caller"]
        environment = {
            **os.environ,
            "NO_COLOR": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.endpoint,
            **{f"MEMORY3_{tier.upper()}": getattr(self.stack, tier).address for tier in TIERS},
            "MEMORY3_INGEST_DATA_DIR": str(self.folder / "ingest"),
            "MEMORY3_INGEST_TOKENIZER": str(self.folder / "tiny-model"),
            "MEMORY3_TLS_CA": str(self.folder / "ca.crt"),
        }
        if certificate:
            environment |= {"MEMORY3_TLS_CLIENT_CERT": str(pair.cert), "MEMORY3_TLS_CLIENT_KEY": str(pair.key)}
        if caller:
            environment["MEMORY3_TOKEN_FILE"] = str(self.folder / f"{caller}.token")
        done = subprocess.run(
            [sys.executable, "-m", "memory3.cli", *arguments],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        self.words += [done.stdout, done.stderr]
        return done

    def generate(self, prompt: str) -> list[dict[str, Any]]:
        """The memories that one generation recalled."""
        arguments = ["generate", prompt, "--bank", BANK, "--max-tokens", "4", "--recall-deadline-ms", "20000", "--json"]
        done = self.memory3(*arguments, caller="reader")
        assert done.returncode == 0, done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines()]
        return [memory for event in events if event["event"] == "recall" for memory in event["memories"]]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    certificates, tokens, env = _prepare(folder)
    with otlp_receiver() as receiver:
        exported = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        with decoder_stack(folder, "local", env={**env, **exported}) as stack:
            yield Secured(stack, folder, receiver, certificates, tokens)


def _prepare(folder: Path) -> tuple[dict[str, Pair], dict[str, str], dict[str, str]]:
    """Certificates, tokens, and the settings of the tiers, all in files of the folder."""
    authority = Authority(folder)
    certificates = {name: authority.issue(name) for name in (*TIERS, "caller")}
    tokens, lines = {}, []
    for name, rights in {**CALLERS, "decoder": SERVICE_RIGHTS}.items():
        tokens[name], entry = new_token(name, rights)
        lines.append(entry.to_json())
        (folder / f"{name}.token").write_text(tokens[name] + "\n")
    (folder / "access.jsonl").write_text("\n".join(lines))
    env = {}
    for tier in TIERS:
        env |= {
            f"MEMORY3_{tier.upper()}_{name}": value
            for name, value in {
                "TLS_CERT": str(certificates[tier].cert),
                "TLS_KEY": str(certificates[tier].key),
                "TLS_CLIENT_CA": str(authority.cert),
                "ACCESS_FILE": str(folder / "access.jsonl"),
                "HEALTH_PORT": "0",
                "LOG_LEVEL": "DEBUG",
            }.items()
        }
    env |= {
        "MEMORY3_DECODER_TLS_CA": str(authority.cert),
        "MEMORY3_DECODER_TLS_CLIENT_CERT": str(certificates["decoder"].cert),
        "MEMORY3_DECODER_TLS_CLIENT_KEY": str(certificates["decoder"].key),
        "MEMORY3_DECODER_TOKEN_FILE": str(folder / "decoder.token"),
    }
    return certificates, tokens, env


def test_the_whole_job_as_callers_with_rights(secured: Secured) -> None:
    texts = secured.folder / "texts"
    texts.mkdir()
    for number, text in enumerate(TEXTS[:4]):
        (texts / f"{number}.txt").write_text(text)

    refused = secured.memory3("ingest", str(texts), "--bank", BANK, caller="reader")
    assert refused.returncode == 1
    assert "needs the right write, and the token of reader has read" in refused.stdout + refused.stderr
    done = secured.memory3("ingest", str(texts), "--bank", BANK, caller="operator")
    assert done.returncode == 0, done.stderr

    memories = secured.generate(TEXTS[0])
    assert memories
    assert {memory["status"] for memory in memories} == {"read"}

    refused = secured.memory3("delete", "--bank", BANK, "--all", "--yes", caller="reader")
    assert refused.returncode == 1
    assert "permission denied" in refused.stderr
    info = secured.memory3("info", caller="reader")
    assert info.returncode == 0, info.stderr
    assert info.stdout.count(" serving") == 3


@pytest.mark.parametrize(
    ("caller", "certificate", "said"),
    [("", True, "unauthenticated: the call has no token"), ("reader", False, "backend unavailable")],
    ids=["no token", "no certificate"],
)
def test_who_is_missing_something_is_told_so(secured: Secured, caller: str, certificate: bool, said: str) -> None:
    refused = secured.memory3("banks", caller=caller, certificate=certificate)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_renewed_certificates_and_tokens_need_no_restart(secured: Secured) -> None:
    # Another authority, other certificates, another token for the decoder: all in the files of before.
    authority = Authority(secured.folder)
    for name, pair in secured.certificates.items():
        authority.issue(name, into=pair)
    access = secured.folder / "access.jsonl"
    kept = [line for line in access.read_text().splitlines() if '"decoder"' not in line]
    secured.tokens["decoder again"], entry = new_token("decoder", SERVICE_RIGHTS)
    access.write_text("\n".join([*kept, entry.to_json()]))
    (secured.folder / "decoder.token").write_text(secured.tokens["decoder again"])
    memories = secured.generate(TEXTS[1])
    assert memories
    assert {memory["status"] for memory in memories} == {"read"}


def test_no_secret_is_anywhere(secured: Secured) -> None:
    secrets = list(secured.tokens.values())
    for pair in secured.certificates.values():
        secrets += [line for line in pair.key.read_text().splitlines() if not line.startswith("-")]
    places = {f"log of {tier}": getattr(secured.stack, tier).log for tier in TIERS}
    for tier in TIERS:
        process = Path(f"/proc/{getattr(secured.stack, tier).pid}")
        places[f"command line of {tier}"] = (process / "cmdline").read_text()
        places[f"environment of {tier}"] = (process / "environ").read_text()
    places["words to callers"] = "".join(secured.words)
    places["spans"] = "".join(map(repr, secured.receiver.spans()))
    assert len(secured.words) > 8
    assert len({span.service for span in secured.receiver.spans()}) >= 3
    assert [(place, "…") for place, text in places.items() if any(secret in text for secret in secrets)] == []


@pytest.fixture
def unused_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("tier", ["memory", "retrieval"])
def test_credentials_from_files_are_in_no_word_of_a_tier_whose_store_is_away(
    tmp_path: Path, unused_address: str, tier: str
) -> None:
    secrets = {name: f"hidden-{name}" for name in ("access", "secret", "milvus")}
    for name, text in secrets.items():
        (tmp_path / name).write_text(text + "\n")
    env = {
        "memory": {
            "MEMORY3_MEMORY_STORE_URI": f"s3://records?endpoint=http://{unused_address}",
            "MEMORY3_MEMORY_S3_ACCESS_KEY_FILE": str(tmp_path / "access"),
            "MEMORY3_MEMORY_S3_SECRET_KEY_FILE": str(tmp_path / "secret"),
        },
        "retrieval": {
            "MEMORY3_RETRIEVAL_MILVUS_URI": f"http://{unused_address}",
            "MEMORY3_RETRIEVAL_MILVUS_TOKEN_FILE": str(tmp_path / "milvus"),
            "MEMORY3_RETRIEVAL_EMBEDDER": "hash",
        },
    }[tier]
    common = {f"MEMORY3_{tier.upper()}_PORT": "0", f"MEMORY3_{tier.upper()}_LOG_LEVEL": "DEBUG"}
    process = ServiceProcess(f"services.{tier}", {**common, **env}, tmp_path / "log")
    try:
        process.start(wait_serving=False)
        with grpc.insecure_channel(process.address) as channel:
            status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20).status
        assert status == health_pb2.HealthCheckResponse.NOT_SERVING
        said = (Path(f"/proc/{process.pid}") / "cmdline").read_text() + asyncio.run(_asked(tier, process.address))
    finally:
        process.stop()
    assert "does not answer" in process.log
    assert [name for name, text in secrets.items() if text in process.log + said] == []


async def _asked(tier: str, address: str) -> str:
    """What a tier answers that cannot reach its store."""
    async with Client(memory=address, retrieval=address, retry=False) as client:
        call = client.memory.stat("bank", "f" * 32, ["a" * 32]) if tier == "memory" else client.retrieval.list_banks()
        with pytest.raises(BackendUnavailableError) as caught:
            await call
    return repr(caught.value)
