"""Directions in which vectors are quantised: along them, errors add up to what the model loses.

The loss of a small error e of a vector is about e F e, with F the mean outer product of the loss's gradient at that
vector (the Fisher information). In the space where F is the identity, squared error is loss; there the vectors are
turned to their principal axes (the Karhunen-Loeve transform), so that their numbers are uncorrelated and few of them
matter. Plain squared error is the case F = identity.

Shape letters: A kinds of vectors (keys and values of each layer and head), N vectors of a kind, D dimensions,
I numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_IDENTITY_SHARE = 0.02
"""Share of F that is the identity: directions the gradient never pointed to are kept a little too."""
_SMALLEST_VARIANCE_SHARE = 1e-9


@dataclass(frozen=True)
class Directions:
    """A vector is its kind's mean plus the sum over I of number times basis; numbers have mean 0 and variance 1."""

    mean_AD: NDArray[np.float64]
    basis_AID: NDArray[np.float64]
    analysis_ADI: NDArray[np.float64]
    """The inverse of the basis."""
    loss_AI: NDArray[np.float64]
    """What the model loses if the number is left out; half as much squared error, half the loss."""

    def numbers_of(self, vectors_AND: NDArray[np.floating]) -> NDArray[np.float64]:
        """`[A, N, I]`."""
        numbers_ANI: NDArray[np.float64] = (vectors_AND - self.mean_AD[:, None]) @ self.analysis_ADI
        return numbers_ANI


def find_directions(vectors_AND: NDArray[np.floating], fisher_ADD: NDArray[np.floating]) -> Directions:
    """Raises ValueError if there are fewer vectors than dimensions, or if something is not finite."""
    _, num_vectors, num_dims = vectors_AND.shape
    if num_vectors <= num_dims:
        raise ValueError(
            f"{num_vectors} vectors of {num_dims} dimensions for each layer and head; give more references, so that "
            f"there are more than {num_dims}"
        )
    if not (np.isfinite(vectors_AND).all() and np.isfinite(fisher_ADD).all()):
        raise ValueError("a vector or gradient is not finite; check the weights, or compute in float32")
    mean_AD = vectors_AND.mean(axis=1, dtype=np.float64)
    basis_AID = np.empty(fisher_ADD.shape)
    analysis_ADI = np.empty(fisher_ADD.shape)
    loss_AI = np.empty(mean_AD.shape)
    for kind, fisher_DD in enumerate(fisher_ADD):
        to_loss_DD, from_loss_DD = _loss_space(fisher_DD.astype(np.float64))
        centred_ND = (vectors_AND[kind] - mean_AD[kind]) @ to_loss_DD
        variances_I, axes_DI = np.linalg.eigh(centred_ND.T @ centred_ND / num_vectors)
        largest = variances_I[-1]
        variances_I = np.maximum(variances_I, largest * _SMALLEST_VARIANCE_SHARE if largest > 0 else 1.0)[::-1]
        axes_DI = axes_DI[:, ::-1]
        deviation_I = np.sqrt(variances_I)
        analysis_ADI[kind] = to_loss_DD @ axes_DI / deviation_I
        basis_AID[kind] = deviation_I[:, None] * (axes_DI.T @ from_loss_DD)
        loss_AI[kind] = variances_I
    return Directions(mean_AD, basis_AID, analysis_ADI, loss_AI)


def _loss_space(fisher_DD: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The symmetric square root of F and its inverse."""
    num_dims = len(fisher_DD)
    mean_curvature = np.trace(fisher_DD) / num_dims
    # A layer that nothing depends on still needs a basis.
    share = _IDENTITY_SHARE * mean_curvature if mean_curvature > 0 else 1e-12
    curvatures_D, axes_DD = np.linalg.eigh(fisher_DD + share * np.eye(num_dims))
    roots_D = np.sqrt(np.maximum(curvatures_D, share / 2))
    return axes_DD * roots_D @ axes_DD.T, axes_DD / roots_D @ axes_DD.T
