"""Telemetry is a contract: every name is documented, and every name is used."""

from __future__ import annotations

from pathlib import Path

from memory3 import semconv

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "telemetry.md").read_text()
CODE = "\n".join(
    path.read_text()
    for folder in ("memory3", "services")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "semconv.py" and "api" not in path.parts
)
NAMES = {name: value for name, value in vars(semconv).items() if name.isupper()}


def test_every_name_is_documented() -> None:
    values = {name: value[0] if isinstance(value, tuple) else value for name, value in NAMES.items()}
    assert [name for name, value in values.items() if f"`{value}`" not in PAGE and value not in PAGE.split()] == []


def test_every_metric_is_documented_with_its_unit() -> None:
    metrics = [value for value in NAMES.values() if isinstance(value, tuple)]
    assert [name for name, unit, _ in metrics if f"| `{name}` | {unit} |" not in PAGE] == []


def test_every_name_is_used() -> None:
    assert [name for name in NAMES if f"semconv.{name}" not in CODE] == []
