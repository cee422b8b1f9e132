"""Greedy, temperature, top-k, top-p, seeds."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.engine.sampler import make_generator, sample
from model.engine.task import Sampling

PROBABILITIES = [0.05, 0.4, 0.3, 0.15, 0.1]
LOGITS = torch.tensor(PROBABILITIES).log()


def _draws(sampling: Sampling, count: int = 4000, logits_V: torch.Tensor = LOGITS) -> Counter[int | None]:
    generator = make_generator(7)
    return Counter(sample(logits_V[None], [sampling], [generator])[0] for _ in range(count))


def _share(draws: Counter[int | None], token: int) -> float:
    return draws[token] / draws.total()


def test_greedy_takes_the_most_likely() -> None:
    assert sample(torch.stack([LOGITS, LOGITS.flip(0)]), [Sampling()] * 2, [None] * 2) == [1, 3]


def test_temperature_1_draws_by_the_models_probabilities() -> None:
    draws = _draws(Sampling(temperature=1.0))
    for token, probability in enumerate(PROBABILITIES):
        assert _share(draws, token) == pytest.approx(probability, abs=0.03)


def test_a_high_temperature_levels_and_a_low_one_sharpens() -> None:
    assert _share(_draws(Sampling(temperature=10.0)), 0) == pytest.approx(
        0.05**0.1 / sum(p**0.1 for p in PROBABILITIES), abs=0.03
    )
    assert set(_draws(Sampling(temperature=1e-3), 200)) == {1}


def test_a_vanishing_temperature_is_greedy_and_not_nan() -> None:
    assert set(_draws(Sampling(temperature=1e-45), 20)) == {1}


def test_top_k_keeps_the_k_most_likely_in_their_proportion() -> None:
    draws = _draws(Sampling(temperature=1.0, top_k=2))
    assert set(draws) == {1, 2}
    assert _share(draws, 1) == pytest.approx(4 / 7, abs=0.03)


def test_top_k_beyond_the_vocabulary_keeps_all() -> None:
    assert set(_draws(Sampling(temperature=1.0, top_k=99))) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.05, {1}), (0.39, {1}), (0.5, {1, 2}), (0.84, {1, 2, 3}), (0.9, {1, 2, 3, 4})]
)
def test_top_p_keeps_the_smallest_set_with_at_least_that_mass(top_p: float, kept: set[int]) -> None:
    assert set(_draws(Sampling(temperature=1.0, top_p=top_p))) == kept


def test_top_p_applies_to_what_top_k_left() -> None:
    # Of 0.4 and 0.3, renormalised, the first holds 0.571.
    assert set(_draws(Sampling(temperature=1.0, top_k=2, top_p=0.57))) == {1}
    assert set(_draws(Sampling(temperature=1.0, top_k=2, top_p=0.58))) == {1, 2}


def test_top_p_of_a_flat_distribution_reaches_beyond_the_likely_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nucleus larger than what is sorted first must not be cut short."""
    monkeypatch.setattr(torch, "rand", lambda *size, generator, dtype: torch.full(size, 0.999, dtype=dtype))
    (token,) = _draws(Sampling(temperature=1.0, top_p=0.9), 1, torch.linspace(0.0, -1e-3, 10_000))
    assert token == pytest.approx(0.999 * 9000, abs=20)


def test_top_p_stops_at_exactly_that_mass() -> None:
    assert len(_draws(Sampling(temperature=1.0, top_p=0.5), 500, torch.zeros(4))) == 2


def test_impossible_tokens_are_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([-math.inf, 0.0, -math.inf, 0.0, -math.inf])
    assert set(_draws(Sampling(temperature=1.0), 500, logits)) == {1, 3}
    monkeypatch.setattr(torch, "rand", lambda *size, generator, dtype: torch.zeros(size, dtype=dtype))
    assert set(_draws(Sampling(temperature=1.0), 1, logits)) == {1}


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.7, top_p=0.9), Sampling(1.0, 3), Sampling(1.0)]
)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_unusable_logits_are_told_and_do_not_touch_the_rows_beside(sampling: Sampling, bad: float) -> None:
    broken = LOGITS.clone()
    broken[3] = bad
    alone = sample(LOGITS[None], [sampling], [make_generator(1)])
    assert sample(torch.stack([broken, LOGITS]), [sampling] * 2, [make_generator(2), make_generator(1)]) == [
        None,
        *alone,
    ]


def test_rows_without_a_possible_token_are_unusable() -> None:
    assert sample(torch.full((1, 5), -math.inf), [Sampling(temperature=1.0)], [make_generator(0)]) == [None]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.5, 1.0, 2.0]),
            st.sampled_from([0, 1, 5, 300]),
            st.sampled_from([0.0, 0.3, 0.9, 1.0]),
            st.integers(0, 2**64 - 1),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_row_draws_the_same_alone_and_in_a_batch(rows: list[tuple[float, int, float, int]]) -> None:
    logits_BV = torch.randn(len(rows), 1000, generator=torch.Generator().manual_seed(3))
    samplings = [Sampling(*row[:3]) for row in rows]
    batch_generators = [make_generator(row[3]) for row in rows]
    batch = [sample(logits_BV, samplings, batch_generators) for _ in range(3)]
    for index, row in enumerate(rows):
        generator = make_generator(row[3])
        alone = [sample(logits_BV[index : index + 1], [samplings[index]], [generator])[0] for _ in range(3)]
        assert alone == [tokens[index] for tokens in batch]


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 1.1},
        {"top_p": -0.1},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Sampling(**values)  # type: ignore[arg-type]
