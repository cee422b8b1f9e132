"""The jobs that run before the first request: bucket, collections, weights out of a bucket."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers import s3_server as s3
from tests.helpers.processes import ROOT


def job(module: str, *arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=dict(env), capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def server() -> s3.S3Server:
    with s3.s3_server() as running:
        yield running


def store(server: s3.S3Server, bucket: str, **changes: str) -> dict[str, str]:
    return {
        "MEMORY3_MEMORY_STORE_URI": server.uri(bucket),
        "MEMORY3_MEMORY_S3_ACCESS_KEY": s3.ACCESS_KEY,
        "MEMORY3_MEMORY_S3_SECRET_KEY": s3.SECRET_KEY,
        "MEMORY3_MEMORY_BOOTSTRAP_SECONDS": "30",
        **changes,
    }


@pytest.mark.s3
class TestBucket:
    def test_it_is_made_and_left_empty(self, server: s3.S3Server) -> None:
        env = store(server, "made-by-bootstrap")
        for _ in range(2):
            done = job("services.memory.bootstrap", env=env)
            assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert list(server.admin().list_objects("made-by-bootstrap", recursive=True)) == []

    def test_keys_that_may_not_write_are_named_as_the_reason(self, server: s3.S3Server) -> None:
        server.admin().make_bucket("read-only-for-some")
        keys = {
            "MEMORY3_MEMORY_S3_ACCESS_KEY": s3.READ_ONLY_ACCESS_KEY,
            "MEMORY3_MEMORY_S3_SECRET_KEY": s3.READ_ONLY_SECRET_KEY,
            "MEMORY3_MEMORY_BOOTSTRAP_SECONDS": "1",
        }
        done = job("services.memory.bootstrap", env=store(server, "read-only-for-some", **keys))
        assert done.returncode == 1
        assert "AccessDenied" in done.stderr
        assert "check the keys and their rights" in done.stderr
        assert s3.READ_ONLY_SECRET_KEY not in done.stdout + done.stderr

    def test_weights_are_copied_out(self, server: s3.S3Server, tmp_path: Path) -> None:
        admin = server.admin()
        admin.make_bucket("with-weights")
        files = {"model/config.json": b"{}", "model/model.safetensors": bytes(10_000_000), "embedder/a b.txt": b"x"}
        for name, data in files.items():
            admin.put_object("with-weights", f"weights/{name}", io.BytesIO(data), len(data))
        admin.put_object("with-weights", "elsewhere/file", io.BytesIO(b"y"), 1)
        env = store(server, "with-weights")
        for _ in range(2):
            done = job("services.memory.copy_out", "weights", str(tmp_path), env=env)
            assert done.returncode == 0, done.stderr
        found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert found == files
        assert done.stdout == "", "the second run has nothing to do"

        missing = job("services.memory.copy_out", "no-weights", str(tmp_path), env=env)
        assert missing.returncode == 1
        assert "nothing below 'no-weights'" in missing.stderr


def test_a_store_that_is_away_is_waited_for_and_named() -> None:
    env = {
        "MEMORY3_MEMORY_STORE_URI": "s3://memories?endpoint=http://127.0.0.1:1",
        "MEMORY3_MEMORY_BOOTSTRAP_SECONDS": "3",
    }
    keys = {"MEMORY3_MEMORY_S3_ACCESS_KEY": "a", "MEMORY3_MEMORY_S3_SECRET_KEY": "b"}
    done = job("services.memory.bootstrap", env={**env, **keys})
    assert done.returncode == 1
    assert "waiting for the store" in done.stdout
    assert "http://127.0.0.1:1 does not answer" in done.stderr


def test_banks_are_made_once(tmp_path: Path) -> None:
    env = {
        "MEMORY3_RETRIEVAL_MILVUS_URI": str(tmp_path / "milvus.db"),
        "MEMORY3_RETRIEVAL_EMBEDDER": "hash",
        "MEMORY3_RETRIEVAL_HASH_DIMENSION": "64",
    }
    for _ in range(2):
        done = job("services.retrieval.bootstrap", "handbook", env=env)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["the vector index can be used", "bank 'handbook' is there"]
    other = job("services.retrieval.bootstrap", "handbook", env={**env, "MEMORY3_RETRIEVAL_HASH_DIMENSION": "32"})
    assert other.returncode == 1
    assert "was made by the embedder" in other.stderr
