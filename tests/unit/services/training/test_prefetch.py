"""Batches built ahead are the batches of each step, from whichever step a run begins."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from model.training.batch import Batch, Context
from services.training.prefetch import Prefetched


class _Source:
    """Implements BatchSource: says in its tokens what it was asked for."""

    def pieces(self, step: int, rank: int, world: int) -> Sequence[Batch]:
        if step == 13:
            raise ValueError("step 13 cannot be built")
        return [Batch((), (Context((step, rank, world), 1),), 8)]


def test_steps_come_in_order_and_from_any_step_on() -> None:
    source = Prefetched(_Source(), processes=2)
    for first in (0, 6):
        for step in range(first, first + 5):
            (piece,) = source.pieces(step, 1, 4)
            assert piece.contexts[0].tokens == (step, 1, 4)


def test_what_goes_wrong_there_is_raised_here() -> None:
    source = Prefetched(_Source(), processes=1)
    with pytest.raises(ValueError, match="step 13 cannot be built"):
        source.pieces(13, 0, 1)
