"""What planning needs from others: the shapes of models, and someone who draws."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from model.config import ModelConfig
from model.plan import MemoryPlan
from services.planning.core import Forecast


class Models(Protocol):
    """Finds what a person names."""

    def config(self, name: str) -> ModelConfig:
        """The shape of a preset or of a model directory. Raises ValueError."""

    def plan(self, name: str | None, config: ModelConfig) -> MemoryPlan:
        """The named memory plan, or the one made for the model; it fits the model. Raises ValueError."""

    def record_bytes(self, config: ModelConfig, plan: MemoryPlan, plan_name: str | None) -> int:
        """Size of the record that the plan's codec stores for a full reference; `plan_name` as `plan` was asked for.

        Raises ValueError.
        """


class Chart(Protocol):
    """Draws a forecast."""

    def draw(self, forecast: Forecast, file: Path) -> None:
        """Write the picture, its kind by the file's ending. Raises ValueError or OSError."""
