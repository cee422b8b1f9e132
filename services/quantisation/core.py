"""Exercises -> a codebook: what memories are read for, how the model suffers by their errors, and what comes of it.

Knows texts and arrays; tensors stand behind the port.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from model.codec.trellis_code import MAX_BITS
from model.quantisation.fit import Fitted, fit_codebook
from model.quantisation.sensitivity import Sensitivity, mix
from services.quantisation.exercises import Exercise
from services.quantisation.ports import Model


class QuantisationError(Exception):
    """What was asked cannot be done; the message names the value and the remedy."""


@dataclass(frozen=True)
class Trained:
    """A codebook, and what its training saw."""

    fitted: Fitted
    num_vectors: int
    """For each layer and head, keys and values each."""
    nll: Mapping[str, float]
    """Of each use's answers, per token."""


def train_codebook(
    model: Model,
    uses: Mapping[str, Sequence[Exercise]],
    bytes_per_vector: float,
    progress: Callable[[int, int], None],
) -> Trained:
    """`uses`: name -> exercises; each use counts alike. `progress(done, total)` counts references.

    Raises QuantisationError if there are too few of them, or no room for so many bytes.
    """
    most = model.head_dim * MAX_BITS / 8
    if bytes_per_vector > most:
        raise QuantisationError(
            f"{bytes_per_vector:g} bytes a vector; a vector of {model.head_dim} numbers takes at most {most:g}"
        )
    empty = [name for name, exercises in uses.items() if not exercises]
    if empty:
        raise QuantisationError(
            f"no exercise of {', '.join(empty)}; ask for at least {model.memories_per_chunk} items, as many as are "
            "read beside each other"
        )
    total = sum(len(one.references) for exercises in uses.values() for one in exercises)
    measured: dict[str, Sensitivity] = {}
    before = 0
    for name, exercises in uses.items():
        measured[name] = model.measure(exercises, partial(_told, progress, before, total))
        before += sum(len(one.references) for one in exercises)
    mixed = mix(list(measured.values()))
    try:
        fitted = fit_codebook(mixed.vectors_2LKND, mixed.fisher_2LKDD, model.origin, bytes_per_vector)
    except ValueError as error:
        raise QuantisationError(f"no codebook of {bytes_per_vector} bytes a vector: {error}") from error
    return Trained(fitted, mixed.vectors_2LKND.shape[3], {name: one.nll for name, one in measured.items()})


def _told(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)
