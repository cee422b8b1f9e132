"""A change of NLL is told item by item, with an error that the spread between items does not swell."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bench.paired import Change, change


def report(nlls: list[float]) -> dict[str, Any]:
    return {"items": [{"item_id": f"item-{place}", "nll": {"none": nll}} for place, nll in enumerate(nlls)]}


def test_the_same_share_on_every_item_has_no_error() -> None:
    found = change(report([1.0, 5.0, 3.0]), report([1.1, 5.5, 3.3]), "none")
    assert (found.items, found.before, found.after) == (3, 3.0, pytest.approx(3.3))
    assert found.share == pytest.approx(0.1)
    assert found.share_se == pytest.approx(0, abs=1e-12)


def test_the_error_is_what_repeated_samples_spread_by() -> None:
    draw = random.Random(1)
    found = []
    for _ in range(2000):
        before = [draw.uniform(1, 9) for _ in range(50)]
        found.append(change(report(before), report([nll * draw.uniform(0.8, 1.3) for nll in before]), "none"))
    shares = [one.share for one in found]
    spread = (sum((share - 0.05) ** 2 for share in shares) / len(shares)) ** 0.5
    assert sum(one.share_se for one in found) / len(found) == pytest.approx(spread, rel=0.08)


@pytest.mark.parametrize(
    ("share", "verdict"), [(-0.05, "within"), (0.0, "within"), (0.015, "open"), (0.025, "open"), (0.04, "beyond")]
)
def test_the_verdict_goes_by_the_interval(share: float, verdict: str) -> None:
    assert Change(96, 3.0, 3.0 * (1 + share), share, 0.005).verdict == verdict


def test_other_items_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="must be the same two or more"):
        change(report([1.0, 2.0]), report([1.0, 2.0, 3.0]), "none")
