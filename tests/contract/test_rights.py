"""The table of rights is total: every call of every contract has one, and nothing else stands in it."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pool

from memory3.api.common.v1 import common_pb2
from memory3.api.decoder.v1 import decoder_pb2
from memory3.api.memory.v1 import memory_pb2
from memory3.api.retrieval.v1 import retrieval_pb2
from memory3.rights import OPEN_METHODS, RIGHTS, Right
from tests.helpers.tree import ROOT

MODULES = (common_pb2, decoder_pb2, memory_pb2, retrieval_pb2)
METHODS = {
    f"/{service.full_name}/{method.name}"
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def test_every_call_has_a_right() -> None:
    assert set(RIGHTS) == METHODS


def test_no_contract_is_forgotten_here() -> None:
    files = {str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos").rglob("*.proto")}
    assert files == {module.DESCRIPTOR.name for module in MODULES}
    assert all(descriptor_pool.Default().FindFileByName(name) for name in files)


def test_no_call_of_ours_is_open() -> None:
    assert not [method for method in METHODS if method.startswith(OPEN_METHODS)]


@pytest.mark.parametrize(
    ("word", "right"), [("Delete", Right.ADMIN), ("Put", Right.WRITE), ("Upsert", Right.WRITE), ("Write", Right.WRITE)]
)
def test_what_changes_things_is_no_reading(word: str, right: Right) -> None:
    assert {RIGHTS[method] for method in METHODS if method.endswith(f"/{word}")} == {right}


def test_the_contracts_readme_tells_the_same() -> None:
    lines = (ROOT / "protos" / "README.md").read_text().splitlines()
    told = {}
    for right in Right:
        (line,) = [line for line in lines if line.startswith(f"| {right.value} |")]
        told |= {name.strip(" `"): right for name in line.split("|")[2].split(",")}
    assert told == {method.rpartition(".")[2].replace("/", "."): right for method, right in RIGHTS.items()}
