"""What the training of a codebook needs from others: a model that tells how its memories lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from model.codec.codebook import CodebookOrigin
from model.quantisation.sensitivity import Sensitivity

Progress = Callable[[int, int], None]
"""(done, total) references."""


class Model(Protocol):
    """A checkpoint under a memory plan."""

    @property
    def origin(self) -> CodebookOrigin:
        """What a codebook of it is trained for."""

    @property
    def tokens_per_memory(self) -> int:
        """The shortest reference that fills a memory."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a reference, at most as many as the plan allows."""

    def measure(
        self, references: Sequence[Sequence[int]], num_recited: int, seed: int, progress: Progress
    ) -> Sensitivity:
        """See `model.quantisation.sensitivity`."""
