"""What the training of a codebook needs from others: a model that tells how its memories lie and are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from model.codec.codebook import Codebook, CodebookOrigin
from model.quantisation.sensitivity import Sensitivity
from services.quantisation.exercises import Exercise

Progress = Callable[[int], None]
"""References done."""


class Model(Protocol):
    """A checkpoint under a memory plan."""

    @property
    def origin(self) -> CodebookOrigin:
        """What a codebook of it is trained for."""

    @property
    def head_dim(self) -> int:
        """Numbers of a key or value vector."""

    @property
    def memories_per_chunk(self) -> int:
        """How many memories one reader has beside each other."""

    def measure(self, exercises: Sequence[Exercise], progress: Progress) -> Sensitivity:
        """See `model.quantisation.sensitivity`."""

    def nll(
        self, exercises: Sequence[Exercise], codebooks: Sequence[Codebook | None], progress: Progress
    ) -> list[float]:
        """See `model.quantisation.gain`."""
