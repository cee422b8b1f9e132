"""Means, errors, paired differences and the closed gap, against numbers reckoned by hand."""

from __future__ import annotations

import dataclasses

import pytest

from services.evaluation.figures import ItemResult, summarise
from services.evaluation.modes import Mode

BLANK = ItemResult("item", "kind", 0.0, 4, False, None, None, None, None, None)


def rows(nlls: list[float], **changes: object) -> list[ItemResult]:
    return [dataclasses.replace(BLANK, nll=nll, **changes) for nll in nlls]  # type: ignore[arg-type]


def test_mean_and_standard_error() -> None:
    figures = summarise({Mode.MEMORY: rows([1.0, 2.0, 3.0, 4.0])}, 0)[Mode.MEMORY]
    assert figures.nll == 2.5
    assert figures.nll_se == pytest.approx((5 / 3) ** 0.5 / 2)
    assert figures.nll_difference is None
    assert figures.gap_closed is None
    assert (figures.items, figures.tokens_per_answer) == (4, 4)


def test_difference_to_none_is_paired() -> None:
    figures = summarise({Mode.NONE: rows([5.0, 9.0]), Mode.MEMORY: rows([4.0, 8.0])}, 0)
    assert figures[Mode.MEMORY].nll_difference == -1
    assert figures[Mode.MEMORY].nll_difference_se == 0
    assert figures[Mode.NONE].nll_difference == 0


def test_gap_closed() -> None:
    results = {
        Mode.NONE: rows([5.0, 5.5, 4.5, 5.0]),
        Mode.RAG: rows([1.0, 1.5, 0.5, 1.0]),
        Mode.MEMORY: rows([2.0, 2.5, 1.5, 2.0]),
    }
    figures = summarise(results, 0)
    assert figures[Mode.NONE].gap_closed == 0
    assert figures[Mode.RAG].gap_closed == 1
    assert figures[Mode.MEMORY].gap_closed == 0.75
    assert figures[Mode.MEMORY].gap_closed_low == pytest.approx(0.75)


def test_the_interval_holds_the_share_and_depends_on_the_seed_alone() -> None:
    results = {
        Mode.NONE: rows([5.0, 6.5, 3.5, 4.0, 5.2]),
        Mode.RAG: rows([1.0, 0.5, 1.5, 2.0, 0.1]),
        Mode.MEMORY: rows([2.0, 4.5, 2.5, 1.0, 3.0]),
    }
    first, again, other = (summarise(results, seed)[Mode.MEMORY] for seed in (1, 1, 2))
    assert first.gap_closed_low < first.gap_closed < first.gap_closed_high  # type: ignore[operator]
    assert first == again
    assert first.gap_closed_low != other.gap_closed_low


def test_there_is_no_gap_where_text_does_not_help() -> None:
    figures = summarise({Mode.NONE: rows([1.0, 2.0]), Mode.RAG: rows([2.0, 3.0])}, 0)
    assert figures[Mode.RAG].gap_closed is None


def test_a_gap_within_its_error_is_none_to_close() -> None:
    """Its share would be some thousand per cent of next to nothing."""
    results = {Mode.NONE: rows([4.0, 5.0, 6.0]), Mode.RAG: rows([5.0, 5.0, 4.9]), Mode.MEMORY: rows([4.0, 4.0, 4.0])}
    assert summarise(results, 0)[Mode.MEMORY].gap_closed is None


def test_shares() -> None:
    results = rows([1.0], em=True, contains=True, is_choice_right=True, is_summed_choice_right=False)
    results += rows([1.0, 1.0, 1.0], contains=False, is_choice_right=False, is_summed_choice_right=True)
    figures = summarise({Mode.NONE: results}, 0)[Mode.NONE]
    assert (figures.em, figures.contains, figures.choice_accuracy) == (0.25, 0.25, 0.25)
    assert figures.em_se == figures.choice_accuracy_se == pytest.approx((0.25 * 0.75 / 4) ** 0.5)
    assert figures.choice_accuracy_summed == 0.75


def test_what_was_not_measured_is_none() -> None:
    figures = summarise({Mode.NONE: rows([1.0])}, 0)[Mode.NONE]
    assert figures.contains is None
    assert figures.choice_accuracy is None
    assert figures.nll_se is None
