"""The bench of replicas, small: RAM adds up where records are shared out, and what RAM has is not read from S3."""

from __future__ import annotations

import pytest

from bench.memory_replicas import PER_CALL, Size, draw, run, table

ARMS = {"1": 1, "3": 3}
SIZE = Size(records=60, payload_bytes=3_000, ram_share=0.3, requests=40, at_once=1, warm_up=2, repeats=2)


@pytest.mark.timeout(480)
def test_more_replicas_find_more_in_ram_and_read_less_from_s3() -> None:
    results = run(SIZE, ARMS, ["even"])
    one, three = results["even"]["1"], results["even"]["3"]
    assert max(one.hit_ratio) < 0.5 < min(three.hit_ratio)
    for sample in (one, three):
        for hit_ratio, s3_bytes in zip(sample.hit_ratio, sample.s3_bytes, strict=True):
            # One call at a time: two at once that miss the same memory would share its read.
            missed = round((1 - hit_ratio) * SIZE.requests * PER_CALL)
            assert s3_bytes == missed * SIZE.record_bytes
    assert "| even | 3 |" in table(results, SIZE, ARMS)


def test_a_round_is_the_same_for_all_arms_and_popular_memories_come_often() -> None:
    calls = draw(SIZE, 1.0, "round 1")
    assert calls == draw(SIZE, 1.0, "round 1") != draw(SIZE, 1.0, "round 2")
    assert all(len(set(call)) == PER_CALL for call in calls)
    even = [identity for call in draw(SIZE, 0.0, "round 1") for identity in call]
    skewed = [identity for call in calls for identity in call]
    assert max(map(skewed.count, skewed)) > 2 * max(map(even.count, even))
