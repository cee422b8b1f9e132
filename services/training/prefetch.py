"""The next steps' batches, built by other processes while a step runs: a GPU would wait for the tokenizer otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import DataLoader, Dataset

from model.training.batch import Batch
from services.training.ports import BatchSource

_STEPS_AHEAD = 4
"""Of each process."""


class Prefetched:
    """Implements BatchSource: what another source gives, in the order of the steps."""

    def __init__(self, source: BatchSource, processes: int) -> None:
        """Steps must be asked for one after the other, by one rank."""
        self._source, self._processes = source, processes
        self._ahead: Iterator[Sequence[Batch]] = iter(())
        self._next: tuple[int, int, int] | None = None

    def pieces(self, step: int, rank: int, world: int) -> Sequence[Batch]:
        """See `services.training.ports.BatchSource`."""
        if self._next != (step, rank, world):
            steps = _Steps(self._source, step, rank, world)
            # With "fork" nothing is sent to the processes, and nothing of theirs touches the device.
            self._ahead = iter(
                DataLoader(
                    steps,
                    batch_size=None,
                    num_workers=self._processes,
                    prefetch_factor=_STEPS_AHEAD,
                    multiprocessing_context="fork",
                )
            )
        self._next = (step + 1, rank, world)
        return next(self._ahead)


class _Steps(Dataset[Sequence[Batch]]):
    """The batches of each step from one on."""

    def __init__(self, source: BatchSource, first_step: int, rank: int, world: int) -> None:
        self._source, self._first_step, self._place = source, first_step, (rank, world)

    def __len__(self) -> int:
        # The loader's order needs an end; no run gets there.
        return 1 << 24

    def __getitem__(self, index: int) -> Sequence[Batch]:
        return self._source.pieces(self._first_step + index, *self._place)
