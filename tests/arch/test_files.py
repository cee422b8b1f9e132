"""The shape of the tree: the same files in every service, short files, nothing of one machine in any of them."""

from __future__ import annotations

import ast
import re
import tempfile
from pathlib import Path

import pytest

from tests.helpers.tree import JOBS, LIBRARIES, PACKAGES, ROOT, SERVERS, generated, imports, python_files, tracked

MAX_LINES = 400
EVERY = ("README.md", "__main__.py", "config.py", "core.py", "ports.py")
ENVIRONMENT_READERS = ("memory3/telemetry.py", "memory3/cli/config.py")
TEXT = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".proto", ".cfg", ".sh", ".ini", ".pyi", ""}


@pytest.mark.parametrize("service", [*SERVERS, *JOBS])
def test_every_service_has_the_same_files(service: str) -> None:
    wanted = [*EVERY, *(["servicer.py"] if service in SERVERS else [])]
    folder = ROOT / "services" / service
    assert [name for name in wanted if not (folder / name).is_file()] == []


def test_no_service_is_forgotten_here() -> None:
    folders = {path.relative_to(ROOT / "services").parts[0] for path in python_files("services")}
    assert folders - {"__init__.py"} == {*SERVERS, *JOBS, *LIBRARIES}


def test_files_stay_short() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in python_files(*PACKAGES, "tests", "tools", "bench")
    }
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in python_files(*PACKAGES, "tests", "tools", "bench")
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


def reads_environment(path: Path) -> bool:
    """Whether a file touches os.environ or os.getenv, by whatever import."""
    if {"os.environ", "os.getenv", "os.putenv"} & set(imports(path)):
        return True
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in ("environ", "getenv", "putenv", "environb")
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_the_environment_is_read_in_few_places() -> None:
    readers = {str(path.relative_to(ROOT)) for path in python_files(*PACKAGES) if reads_environment(path)}
    allowed = {*ENVIRONMENT_READERS, *(f"services/{name}/config.py" for name in (*SERVERS, *JOBS, "common"))}
    assert readers - allowed == set()


def texts() -> dict[str, str]:
    """Tracked text files, by their path from the root."""
    return {
        str(path.relative_to(ROOT)): path.read_text(errors="replace")
        for path in tracked()
        if path.suffix in TEXT and not generated(path)
    }


def test_no_file_names_a_path_of_this_machine() -> None:
    places = {str(ROOT)}
    if ROOT.parent != Path(tempfile.gettempdir()):
        places |= {str(path) for path in ROOT.parent.iterdir() if path.is_dir() and ROOT.parent != Path("/")}
    pattern = re.compile(r"(?<![\w./-])(" + "|".join(map(re.escape, sorted(places))) + r")\b")
    assert [name for name, text in texts().items() if pattern.search(text)] == []


def test_no_file_names_a_package_index() -> None:
    # Which index a machine installs from is that machine's business; requirements name packages only.
    pattern = re.compile(r"(?:index-url|find-links|trusted-host)[ =]|://[^\s/]+/(?:[^\s/]+/)*simple\b")
    here = str(Path(__file__).relative_to(ROOT))
    assert [name for name, text in texts().items() if name != here and pattern.search(text)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.environ['A']",
        "import os\nx = os.getenv('A')",
        "from os import environ",
        "from os import getenv as g",
    ],
)
def test_a_read_of_the_environment_is_seen(tmp_path: Path, code: str) -> None:
    file = tmp_path / "module.py"
    file.write_text(code)
    assert reads_environment(file)
