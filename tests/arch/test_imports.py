"""Who may import whom: the contracts of pyproject.toml, and the finer rules that import-linter cannot say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tree import JOBS, PACKAGES, ROOT, SERVERS, imports, module_name, python_files

VENDORS = {"milvus_lite", "minio", "obstore", "pymilvus", "ray", "sentence_transformers"}
"""Clients and engines of backends: a module that imports one is an adapter."""
WIRE = ("grpc", "google.protobuf", "memory3.api")
MAY_SEE_THE_WIRE = ("servicer.py", "__main__.py")


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def inside(service: str) -> dict[str, set[str]]:
    """Module of the service -> everything it imports."""
    return {module_name(path): set(imports(path)) for path in python_files(f"services/{service}")}


def adapters(service: str) -> set[str]:
    """Modules of the service that import a vendor, or a client of another tier."""
    clients = {"memory3.retrieval", "memory3.memory", "memory3.decoder"}
    return {
        name
        for name, found in inside(service).items()
        if not name.endswith("__main__") and ({item.partition(".")[0] for item in found} & VENDORS or found & clients)
    }


def reached(service: str, start: str) -> set[str]:
    """Modules of the service that `start` imports, at any distance."""
    graph = inside(service)
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        found = graph.get(waiting.pop(), set()) & set(graph)
        waiting += found - seen
        seen |= found
    return seen


@pytest.mark.parametrize("service", [*SERVERS, *JOBS])
def test_the_core_reaches_no_adapter(service: str) -> None:
    assert reached(service, f"services.{service}.core") & adapters(service) == set()


@pytest.mark.parametrize("service", [*SERVERS, *JOBS])
def test_only_the_composition_root_knows_core_and_adapters(service: str) -> None:
    known = {name: found & adapters(service) for name, found in inside(service).items()}
    core = f"services.{service}.core"
    both = [name for name, found in inside(service).items() if core in found and known[name]]
    assert [name for name in both if not name.endswith("__main__")] == []


@pytest.mark.parametrize("service", [*SERVERS, *JOBS])
def test_the_core_knows_no_wire(service: str) -> None:
    core = f"services.{service}.core"
    modules = inside(service)
    seen = {name: item for name in {core} | reached(service, core) for item in modules[name] if item.startswith(WIRE)}
    assert seen == {}


def test_protobuf_is_seen_by_the_sdk_and_the_servicers_only() -> None:
    seen = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in python_files(*PACKAGES)
        if not path.is_relative_to(ROOT / "memory3") and path.name not in MAY_SEE_THE_WIRE
        for name in imports(path)
        if name.startswith("memory3.api")
    ]
    assert seen == []


def test_the_command_line_sees_dataclasses_only() -> None:
    seen = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in python_files("memory3/cli")
        for name in imports(path)
        if name.startswith(WIRE)
    ]
    assert seen == []
