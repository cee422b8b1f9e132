"""A memory plan by the name a person gives: a preset, or a JSON file. Knows no model and no tensors."""

from __future__ import annotations

from pathlib import Path

from model.plan import MemoryPlan
from model.presets import memory_plan


def read_plan(name_or_path: str) -> MemoryPlan:
    """A preset, or the plan in a JSON file (by its ending, `.json`). Raises ValueError."""
    path = Path(name_or_path).expanduser()
    if path.suffix != ".json":
        return memory_plan(name_or_path)
    try:
        return MemoryPlan.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"memory plan {path} cannot be read ({error.strerror}); give a preset or a JSON file"
        ) from error
    except ValueError as error:
        raise ValueError(f"memory plan {path}: {error}") from error
