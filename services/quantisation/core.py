"""Exercises -> codebooks: what memories are read for, how the model suffers by their errors, and what comes of it.

Knows texts and arrays; tensors stand behind the port.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from model.codec.codebook import Codebook
from model.codec.trellis_code import MAX_BITS
from model.quantisation.fit import Fitted, fit_codebook
from model.quantisation.gain import find_value_gains
from model.quantisation.sensitivity import Sensitivity, mix
from services.quantisation.exercises import Exercise
from services.quantisation.ports import Model, Progress

_GAIN_EXERCISES = 20
"""Of each use, by which a codebook's gain is found."""


class QuantisationError(Exception):
    """What was asked cannot be done; the message names the value and the remedy."""


@dataclass(frozen=True)
class Trained:
    """Codebooks of several sizes, and what their training saw."""

    fitted: Sequence[Fitted]
    """In the order of the sizes that were asked for."""
    num_tokens: int
    """Kept, with key and value, for each layer and head."""
    nll: Mapping[str, float]
    """Of each use's answers, per token."""


def train_codebooks(
    model: Model,
    uses: Mapping[str, Sequence[Exercise]],
    sizes: Sequence[float],
    progress: Callable[[int, int], None],
) -> Trained:
    """`uses`: name -> exercises; each use counts alike. `sizes`: bytes of a vector, a codebook each.

    `progress(done, total)` counts references. Raises QuantisationError if there are too few of them, or no room for so
    many bytes.
    """
    most = model.head_dim * MAX_BITS / 8
    if (largest := max(sizes)) > most:
        raise QuantisationError(
            f"{largest:g} bytes a vector; a vector of {model.head_dim} numbers takes at most {most:g}"
        )
    empty = [name for name, exercises in uses.items() if not exercises]
    if empty:
        raise QuantisationError(
            f"no exercise of {', '.join(empty)}; ask for at least {model.memories_per_chunk} items, as many as are "
            "read beside each other"
        )
    shown = {name: exercises[:_GAIN_EXERCISES] for name, exercises in uses.items()}
    total = sum(_num_references(exercises) for exercises in (*uses.values(), *shown.values()))
    before = 0

    def told(exercises: Sequence[Exercise]) -> Progress:
        nonlocal before
        start, before = before, before + _num_references(exercises)
        return lambda done: progress(start + done, total)

    measured = {name: model.measure(exercises, told(exercises)) for name, exercises in uses.items()}
    mixed = mix(list(measured.values()))
    fitted = [_fitted(mixed, model, size) for size in sizes]

    def nll(codebooks: Sequence[Codebook | None]) -> list[float]:
        of_uses = [model.nll(exercises, codebooks, told(exercises)) for exercises in shown.values()]
        return [fmean(of_codebook) for of_codebook in zip(*of_uses, strict=True)]

    gains = find_value_gains([one.codebook for one in fitted], nll)
    fitted = [
        replace(one, codebook=replace(one.codebook, value_gain=gain)) for one, gain in zip(fitted, gains, strict=True)
    ]
    return Trained(fitted, mixed.vectors_LKNE.shape[2], {name: one.nll for name, one in measured.items()})


def _fitted(mixed: Sensitivity, model: Model, size: float) -> Fitted:
    try:
        return fit_codebook(mixed.vectors_LKNE, mixed.fisher_LKEE, model.origin, size)
    except ValueError as error:
        raise QuantisationError(f"no codebook of {size} bytes a vector: {error}") from error


def _num_references(exercises: Sequence[Exercise]) -> int:
    return sum(len(one.references) for one in exercises)
