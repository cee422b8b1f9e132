"""Figures of a mode from the results of its items: means with standard errors, paired differences, the closed gap.

All means are over items, each counting the same however long its answer is. Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.evaluation.modes import Mode

_RESAMPLES = 2000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ItemResult:
    """How one item fared in one mode."""

    item_id: str
    kind: str
    nll: float
    """Mean over the answer's tokens; nats."""
    num_tokens: int
    em: bool
    contains: bool | None
    """None: not generated, or the set has no accepted strings."""
    chosen: str | None
    """Of a set of choices, the one with the least NLL per token; None for free answers."""
    is_choice_right: bool | None
    is_summed_choice_right: bool | None
    """The same with the least NLL over all tokens."""
    generated: str | None


@dataclass(frozen=True)
class Figures:
    """One mode's row. A figure that cannot be is None."""

    items: int
    nll: float
    """Nats per answer token."""
    nll_se: float | None
    """Standard error; None for a single item."""
    nll_difference: float | None
    """To mode none, paired by item; negative is better."""
    nll_difference_se: float | None
    em: float
    """Share of items whose every answer token is the most likely one."""
    em_se: float
    contains: float | None
    """Share of items whose generated text holds an accepted answer."""
    contains_se: float | None
    choice_accuracy: float | None
    """Share of items whose right choice has the least NLL per token."""
    choice_accuracy_se: float | None
    choice_accuracy_summed: float | None
    """The same by NLL summed over the choice's tokens."""
    gap_closed: float | None
    """(none - mode) / (none - rag) in NLL: 0 is no better than no references, 1 as good as their text."""
    gap_closed_low: float | None
    """Interval of 95 %, by bootstrap over items."""
    gap_closed_high: float | None
    tokens_per_answer: float


def summarise(results: Mapping[Mode, Sequence[ItemResult]], seed: int) -> dict[Mode, Figures]:
    """Figures of each mode; the items of all modes stand in the same order. `seed` is the bootstrap's."""
    nlls = {mode: np.array([result.nll for result in rows]) for mode, rows in results.items()}
    return {mode: _figures(rows, nlls[mode], nlls, seed) for mode, rows in results.items()}


def _figures(rows: Sequence[ItemResult], nll: Floats, nlls: Mapping[Mode, Floats], seed: int) -> Figures:
    none, rag = nlls.get(Mode.NONE), nlls.get(Mode.RAG)
    closed = low = high = None
    if none is not None and rag is not None:
        closed, low, high = _gap_closed(nll, none, rag, seed)
    contains = [row.contains for row in rows if row.contains is not None]
    choices = [row.is_choice_right for row in rows if row.is_choice_right is not None]
    summed = [row.is_summed_choice_right for row in rows if row.is_summed_choice_right is not None]
    em = [row.em for row in rows]
    return Figures(
        items=len(rows),
        nll=float(nll.mean()),
        nll_se=_standard_error(nll),
        nll_difference=None if none is None else float((nll - none).mean()),
        nll_difference_se=None if none is None else _standard_error(nll - none),
        em=_share(em),
        em_se=_share_error(em),
        contains=_share(contains) if contains else None,
        contains_se=_share_error(contains) if contains else None,
        choice_accuracy=_share(choices) if choices else None,
        choice_accuracy_se=_share_error(choices) if choices else None,
        choice_accuracy_summed=_share(summed) if summed else None,
        gap_closed=closed,
        gap_closed_low=low,
        gap_closed_high=high,
        tokens_per_answer=float(np.mean([row.num_tokens for row in rows])),
    )


def _standard_error(values: Floats) -> float | None:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def _share_error(values: Sequence[bool]) -> float:
    share = _share(values)
    return float((share * (1 - share) / len(values)) ** 0.5)


def _gap_closed(nll: Floats, none: Floats, rag: Floats, seed: int) -> tuple[float | None, float | None, float | None]:
    """The share and its interval; None where text is not clearly better than nothing: there is no gap to close."""
    gap = float((none - rag).mean())
    if gap <= 2 * (_standard_error(none - rag) or 0.0):
        return None, None, None
    closed = float((none - nll).mean()) / gap
    picks = np.random.default_rng(seed).integers(len(nll), size=(_RESAMPLES, len(nll)))
    gaps = (none - rag)[picks].mean(axis=1)
    shares = (none - nll)[picks].mean(axis=1)[gaps > 0] / gaps[gaps > 0]
    if not len(shares):
        return closed, None, None
    low, high = np.quantile(shares, [0.025, 0.975])
    return closed, float(low), float(high)
