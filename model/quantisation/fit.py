"""Vectors of memories and what the model loses by their errors -> a codebook. Numpy only; knows no model.

Shape letters: L memory layers, K KV heads, N tokens, E = 2*D numbers of a key and value, I numbers that they become,
A = L*K.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.codec.codebook import Codebook, CodebookOrigin
from model.codec.trellis_code import MAX_BITS
from model.quantisation.allocation import allocate_bits
from model.quantisation.directions import find_directions
from model.quantisation.levels import SAMPLE, improve_levels, normal_levels

_SEED = 0
_ALIKE = 8
"""Numbers of equal bits that are enough to fit levels to them alone."""


@dataclass(frozen=True)
class Fitted:
    """A codebook and what can be said of it without a model."""

    codebook: Codebook
    lost_share: float
    """Expected loss, as a share of what leaving all numbers out would cost."""


def fit_codebook(
    vectors_LKNE: NDArray[np.float32],
    fisher_LKEE: NDArray[np.floating],
    origin: CodebookOrigin,
    bytes_per_vector: float,
) -> Fitted:
    """`vectors_LKNE`: keys turned back to position 0, and values. `fisher_LKEE`: see `directions`.

    `bytes_per_vector` is the mean over keys and values, layers and heads; each gets as much of it as it deserves.
    Equal arguments give equal codebooks. Raises ValueError if there are too few vectors or bytes.
    """
    shape = (*vectors_LKNE.shape[:2], vectors_LKNE.shape[3])
    vectors_ANE = vectors_LKNE.reshape(-1, *vectors_LKNE.shape[2:])
    directions = find_directions(vectors_ANE, fisher_LKEE.reshape(-1, *fisher_LKEE.shape[2:]))
    numbers_AIN = directions.numbers_of(vectors_ANE).swapaxes(1, 2).astype(np.float32)
    rng = np.random.default_rng(_SEED)
    table = normal_levels()
    sample = rng.choice(numbers_AIN.ravel(), SAMPLE)
    errors = [1.0, *(improve_levels(table, bits, sample, iterations=3) for bits in range(1, MAX_BITS + 1))]
    num_bits = round(2 * bytes_per_vector * 8 * len(numbers_AIN))
    bits_AI = allocate_bits(directions.loss_AI, errors, num_bits)
    # Numbers that get many bits are distributed otherwise than those that get few: less of them is lost.
    for bits in range(1, MAX_BITS + 1):
        alike = numbers_AIN[bits_AI == bits]
        if len(alike) >= _ALIKE:
            errors[bits] = min(errors[bits - 1], improve_levels(table, bits, rng.choice(alike.ravel(), SAMPLE)))
    bits_AI = allocate_bits(directions.loss_AI, errors, num_bits)
    codebook = Codebook(
        origin,
        mean_LKE=directions.mean_AE.astype(np.float32).reshape(shape),
        basis_LKIE=directions.basis_AIE.astype(np.float32).reshape(*shape, shape[-1]),
        bits_LKI=bits_AI.reshape(shape),
        levels=table,
    )
    left_AI = directions.loss_AI * np.array(errors)[bits_AI]
    return Fitted(codebook, float(left_AI.sum() / directions.loss_AI.sum()))
