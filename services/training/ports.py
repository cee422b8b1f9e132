"""What the training loop needs from outside: examples, and somewhere to put what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from model.training.batch import Batch


class BatchSource(Protocol):
    """What each step trains on."""

    def pieces(self, step: int, rank: int, world: int) -> Sequence[Batch]:
        """The batches of a step (from 0) that process `rank` of `world` runs one after the other; a function of these
        numbers alone. Every piece of every process has equally many contexts."""
        ...


class Recorder(Protocol):
    """Where the curves go."""

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Figures after so many steps."""
        ...


class StateStore(Protocol):
    """Where a run's state goes, so that it can be taken up again."""

    def save(self, step: int) -> None:
        """Keep the state after so many steps, durably and whole."""
        ...
