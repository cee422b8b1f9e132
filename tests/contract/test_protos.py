"""The contracts: linted, formatted, compatible with the baseline, and the committed stubs are those of the protos."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from memory3.api.common.v1 import common_pb2
from memory3.api.decoder.v1 import decoder_pb2
from memory3.api.memory.v1 import memory_pb2
from memory3.api.retrieval.v1 import retrieval_pb2

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
BUF = Path(sys.executable).parent / "buf"


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_committed_stubs_are_fresh() -> None:
    done = run(sys.executable, "tools/generate_stubs.py", "--check", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("lint",), ("format", "--diff", "--exit-code"), ("breaking", "--against", "baseline.binpb")],
    ids=["lint", "format", "breaking"],
)
def test_buf_is_content(arguments: tuple[str, ...]) -> None:
    done = run(str(BUF), *arguments, cwd=PROTOS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_removed_field_would_be_noticed(tmp_path: Path) -> None:
    for path in [*PROTOS.rglob("*.proto"), PROTOS / "buf.yaml"]:
        copy = tmp_path / path.relative_to(PROTOS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text().replace("  string title = 4;\n", ""))
    done = run(str(BUF), "breaking", "--against", str(PROTOS / "baseline.binpb"), cwd=tmp_path)
    assert done.returncode != 0
    assert "title" in done.stdout


def test_every_unary_answer_says_how_long_it_took() -> None:
    """GenerateOnce and the streams carry a Timing of their own kind; BatchGet says it item by item."""
    untimed = []
    for services in (common_pb2, retrieval_pb2, memory_pb2, decoder_pb2):
        for service in services.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                fields = method.output_type.fields_by_name
                if not set(fields.keys()) & {"total_ns", "timing", "final", "elapsed_ns"}:
                    untimed.append(method.full_name)
    assert untimed == []
