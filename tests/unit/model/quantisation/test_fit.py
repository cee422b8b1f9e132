"""From vectors and gradients to a codebook: directions, bits and levels, each held against what it must be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from model.codec.codebook import CodebookOrigin
from model.codec.trellis import Trellis
from model.codec.trellis_code import levels_of
from model.quantisation.allocation import allocate_bits
from model.quantisation.directions import find_directions
from model.quantisation.fit import fit_codebook
from model.quantisation.levels import SAMPLE, improve_levels, normal_levels
from tests.helpers.codec_twin import undone

ORIGIN = CodebookOrigin("a" * 64, (0, 1), 10_000.0, 0)
DIM = 8
"""Of a key and a value together."""


def some_vectors(num: int = 600) -> np.ndarray:
    """`[2, 2, N, E]`, correlated and off centre."""
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((2, 2, DIM, DIM)) * np.geomspace(2, 0.1, DIM)
    vectors = 3 + rng.standard_normal((2, 2, num, DIM)) @ mixing
    return vectors.astype(np.float32)


def some_fisher() -> np.ndarray:
    """The model looks at one direction of keys and hardly at others and at values."""
    rng = np.random.default_rng(2)
    gradients = rng.standard_normal((2, 2, 50, DIM)) * np.array([10, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    return gradients.swapaxes(2, 3) @ gradients / 50


def test_directions_give_uncorrelated_numbers_and_the_vectors_back() -> None:
    vectors = some_vectors().reshape(4, -1, DIM)
    directions = find_directions(vectors, some_fisher().reshape(4, DIM, DIM))
    numbers = directions.numbers_of(vectors)
    for kind in range(4):
        covariance = numbers[kind].T @ numbers[kind] / len(numbers[kind])
        np.testing.assert_allclose(covariance, np.eye(DIM), atol=1e-3)
        back = directions.mean_AE[kind] + numbers[kind] @ directions.basis_AIE[kind]
        np.testing.assert_allclose(back, vectors[kind], atol=1e-3)
        assert (np.diff(directions.loss_AI[kind]) <= 0).all()


def test_loss_of_a_number_is_what_leaving_it_out_costs() -> None:
    vectors, fisher = some_vectors().reshape(4, -1, DIM), some_fisher().reshape(4, DIM, DIM)
    directions = find_directions(vectors, fisher)
    numbers = directions.numbers_of(vectors)
    # No direction is quite without loss: keys' and values' each by their own measure.
    least = np.repeat(np.diagonal(fisher[0]).reshape(2, -1).mean(axis=1), DIM // 2)
    curvature = fisher[0] + 0.02 * np.diag(least)
    for number in range(DIM):
        error = numbers[0][:, [number]] * directions.basis_AIE[0][number]
        cost = float(np.einsum("nd,de,ne->n", error, curvature, error).mean())
        assert cost == pytest.approx(directions.loss_AI[0][number], rel=1e-3)


def test_too_few_vectors_and_infinite_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="give more references"):
        find_directions(np.zeros((1, DIM, DIM)), np.zeros((1, DIM, DIM)))
    with pytest.raises(ValueError, match="not finite"):
        find_directions(np.full((1, 20, DIM), np.nan), np.zeros((1, DIM, DIM)))


def test_a_layer_nothing_depends_on_has_directions_all_the_same() -> None:
    directions = find_directions(np.zeros((1, 20, DIM)), np.zeros((1, DIM, DIM)))
    assert np.isfinite(directions.analysis_AEI).all()
    assert np.isfinite(directions.basis_AIE).all()


def test_bits_go_where_they_save_most() -> None:
    """Against every way to give 6 bits to 4 numbers."""
    losses, errors = np.array([5.0, 1.0, 0.3, 0.0]), [1.0, 0.33, 0.1, 0.03]
    bits = allocate_bits(losses, errors, 6)
    ways = [way for way in itertools.product(range(4), repeat=4) if sum(way) == 6]
    best = min(sum(loss * errors[b] for loss, b in zip(losses, way, strict=True)) for way in ways)
    assert sum(loss * errors[b] for loss, b in zip(losses, bits, strict=True)) == pytest.approx(best)
    assert bits.sum() == 6


@pytest.mark.parametrize("num_bits", [0, 13])
def test_bits_that_fit_nowhere_are_refused(num_bits: int) -> None:
    with pytest.raises(ValueError, match="give 1 to 12"):
        allocate_bits(np.ones(4), [1.0, 0.3, 0.1, 0.03], num_bits)


def test_levels_follow_the_numbers_and_stay_ascending() -> None:
    numbers = np.random.default_rng(3).laplace(size=SAMPLE).astype(np.float32)
    table = normal_levels()
    first = improve_levels(table, 2, numbers)
    assert improve_levels(table, 2, numbers) < first
    assert (np.diff(levels_of(table, 2)) >= 0).all()
    np.testing.assert_array_equal(levels_of(table, 3), levels_of(normal_levels(), 3))


def test_a_fitted_codebook_loses_less_of_what_counts_than_one_for_squared_error() -> None:
    vectors, fisher = some_vectors(), some_fisher()
    plain = np.broadcast_to(np.eye(DIM), fisher.shape)
    lost = []
    for curvature in (fisher, plain):
        fitted = fit_codebook(vectors, curvature, ORIGIN, bytes_per_vector=2)
        assert fitted.codebook.bytes_per_vector == 2
        stage = Trellis(fitted.codebook)
        positions = np.zeros(vectors.shape[:3], np.uint8)
        keys, values = np.split(vectors, 2, axis=3)
        decoded = undone(stage, stage.encode({"keys": keys, "values": values, "positions": positions}))
        error = np.concatenate((decoded["keys"], decoded["values"]), axis=3) - vectors
        lost.append(float(np.einsum("lkni,lkij,lknj->", error, fisher, error)))
    assert lost[0] < lost[1] / 2
    assert fit_codebook(vectors, plain, ORIGIN, 2).codebook == fitted.codebook
