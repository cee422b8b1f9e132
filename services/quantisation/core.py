"""Texts -> a codebook: which references are written, which are recited, and what comes of it.

Knows texts and arrays; tensors stand behind the port.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from model.quantisation.fit import Fitted, fit_codebook
from services.quantisation.ports import Model, Progress


class QuantisationError(Exception):
    """What was asked cannot be done; the message names the value and the remedy."""


@dataclass(frozen=True)
class Request:
    """How a codebook is trained."""

    bytes_per_vector: float
    """Mean over keys and values, layers and heads."""
    num_references: int
    """References whose memories are looked at."""
    num_recited: int
    """Of these, the ones whose loss says what matters."""
    seed: int


@dataclass(frozen=True)
class Trained:
    """A codebook, and what its training saw."""

    fitted: Fitted
    num_vectors: int
    """For each layer and head, keys and values each."""
    nll: float
    """Of recited references, per token."""


def train_codebook(model: Model, texts: Iterable[str], request: Request, progress: Progress) -> Trained:
    """`texts`: references in a drawn order. Raises QuantisationError if too few of them fill a memory."""
    references: list[list[int]] = []
    for text in texts:
        tokens = model.encode(text)
        if len(tokens) > model.tokens_per_memory:
            references.append(tokens)
        if len(references) == request.num_references:
            break
    else:
        raise QuantisationError(
            f"{len(references)} references have more than {model.tokens_per_memory} tokens, {request.num_references} "
            "are wanted; ask for fewer references"
        )
    measured = model.measure(references, request.num_recited, request.seed, progress)
    try:
        fitted = fit_codebook(measured.vectors_2LKND, measured.fisher_2LKDD, model.origin, request.bytes_per_vector)
    except ValueError as error:
        raise QuantisationError(f"no codebook of {request.bytes_per_vector} bytes a vector: {error}") from error
    return Trained(fitted, measured.vectors_2LKND.shape[3], measured.nll)
