"""Directions in which keys and values are quantised: along them, errors add up to what the model loses.

The key and the value of a token in one head are one vector: they are made of the same hidden state and tell much about
each other, which costs bits only once. The loss of a small error e of a vector is about e F e, with F the mean outer
product of the loss's gradient at that vector (the Fisher information). In the space where F is the identity, squared
error is loss; there the vectors are turned to their principal axes (the Karhunen-Loeve transform), so that their
numbers are uncorrelated and few of them matter. Plain squared error is the case F = identity.

Shape letters: A kinds of vectors (layers and heads), N vectors of a kind, E dimensions of one (key, and behind it
value), I numbers (E of them).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_IDENTITY_SHARE = 0.02
"""Added to F, times its own mean curvature for keys and for values: directions the gradient never pointed to are kept a
little too."""
_SMALLEST_VARIANCE_SHARE = 1e-9


@dataclass(frozen=True)
class Directions:
    """A vector is its kind's mean plus the sum over I of number times basis; numbers have mean 0 and variance 1."""

    mean_AE: NDArray[np.float64]
    basis_AIE: NDArray[np.float64]
    analysis_AEI: NDArray[np.float64]
    """The inverse of the basis."""
    loss_AI: NDArray[np.float64]
    """What the model loses if the number is left out; half as much squared error, half the loss."""

    def numbers_of(self, vectors_ANE: NDArray[np.floating]) -> NDArray[np.float64]:
        """`[A, N, I]`."""
        numbers_ANI: NDArray[np.float64] = (vectors_ANE - self.mean_AE[:, None]) @ self.analysis_AEI
        return numbers_ANI


def find_directions(vectors_ANE: NDArray[np.floating], fisher_AEE: NDArray[np.floating]) -> Directions:
    """Raises ValueError if there are fewer vectors than dimensions, or if something is not finite."""
    _, num_vectors, num_dims = vectors_ANE.shape
    if num_vectors <= num_dims:
        raise ValueError(
            f"{num_vectors} vectors of {num_dims} dimensions for each layer and head; give more references, so that "
            f"there are more than {num_dims}"
        )
    if not (np.isfinite(vectors_ANE).all() and np.isfinite(fisher_AEE).all()):
        raise ValueError("a vector or gradient is not finite; check the weights, or compute in float32")
    mean_AE = vectors_ANE.mean(axis=1, dtype=np.float64)
    basis_AIE = np.empty(fisher_AEE.shape)
    analysis_AEI = np.empty(fisher_AEE.shape)
    loss_AI = np.empty(mean_AE.shape)
    for kind, fisher_EE in enumerate(fisher_AEE):
        to_loss_EE, from_loss_EE = _loss_space(fisher_EE.astype(np.float64))
        centred_NE = (vectors_ANE[kind] - mean_AE[kind]) @ to_loss_EE
        variances_I, axes_EI = np.linalg.eigh(centred_NE.T @ centred_NE / num_vectors)
        largest = variances_I[-1]
        variances_I = np.maximum(variances_I, largest * _SMALLEST_VARIANCE_SHARE if largest > 0 else 1.0)[::-1]
        axes_EI = axes_EI[:, ::-1]
        deviation_I = np.sqrt(variances_I)
        analysis_AEI[kind] = to_loss_EE @ axes_EI / deviation_I
        basis_AIE[kind] = deviation_I[:, None] * (axes_EI.T @ from_loss_EE)
        loss_AI[kind] = variances_I
    return Directions(mean_AE, basis_AIE, analysis_AEI, loss_AI)


def _loss_space(fisher_EE: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The symmetric square root of F and its inverse."""
    # Keys and values are of different size, so that the mean curvature of both would be that of values alone.
    shares = [_IDENTITY_SHARE * half.mean() for half in np.split(np.diagonal(fisher_EE), 2)]
    # A layer that nothing depends on still needs a basis.
    share_E = np.repeat([share if share > 0 else 1e-12 for share in shares], len(fisher_EE) // 2)
    curvatures_E, axes_EE = np.linalg.eigh(fisher_EE + np.diag(share_E))
    roots_E = np.sqrt(np.maximum(curvatures_E, share_E.min() / 2))
    return axes_EE * roots_E @ axes_EE.T, axes_EE / roots_E @ axes_EE.T
