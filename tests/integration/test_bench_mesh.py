"""The tiers in one process answer as the same tiers do over gRPC, and the bench compares like with like."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.mesh import MODES, Answer, Batch, measure, tables
from bench.mesh_arms import BASE, tiny_arms
from memory3.types import GenerationRequest, Mode, RecallEvent, Tier
from tests.helpers.decoder_stack import BANK, TEXTS


@pytest.mark.timeout(480)
async def test_one_process_answers_as_the_mesh_does(tmp_path: Path) -> None:
    async with tiny_arms(tmp_path, ray=False, worker_cache=False) as arms:
        request = GenerationRequest(Mode.MEMORY, prompt=TEXTS[3], bank=BANK, max_tokens=8, recall_deadline_ms=60_000)
        for arm in arms.values():
            found = []
            for _ in range(2):
                recalls = [event async for event in arm.ask(request) if isinstance(event, RecallEvent)]
                found.append({memory.tier for memory in recalls[0].memories})
            assert found[1] == {Tier.RAM}, "no worker's cache stands between"
            assert Tier.COLD not in found[0], "all that is read was written"
        batches = await measure(arms, BANK, TEXTS, at_once=[2], repeats=1, tokens=70)
    texts = {(batch.mode, batch.arm): [answer.text for answer in batch.answers] for batch in batches}
    for mode in MODES:
        name = mode.name.lower()
        assert texts[name, "gRPC"] == texts[name, BASE]
    assert len(set(texts["none", BASE] + texts["rag", BASE] + texts["memory", BASE])) == 6, "the modes differ"
    answers = [answer for batch in batches for answer in batch.answers]
    assert all(answer.output_tokens == 70 and answer.ttft_ms > 0 and not answer.lost for answer in answers)
    assert all(batch.cpu_ms > 0 for batch in batches)


def test_figures_are_paired_by_prompt_and_repeat() -> None:
    def batch(arm: str, repeat: int, ttfts: list[float], text: str) -> Batch:
        answers = [Answer(text, ttft, 10.0, 5, 0) for ttft in ttfts]
        return Batch("none", 2, repeat, arm, answers, tokens_s=100.0 if arm == BASE else 90.0, cpu_ms=1.0)

    # Every difference is 3, though the times themselves are far apart.
    page = tables(
        [
            batch(BASE, 0, [10, 500], "a"),
            batch("gRPC", 0, [13, 503], "a"),
            batch("gRPC", 1, [33, 73], "b"),
            batch(BASE, 1, [30, 70], "c"),
        ]
    )
    paired = page.splitlines()[-3]
    assert paired.startswith("| none | 2 | gRPC | 4 | 3.0 [3.0-3.0] | 0.0 [0.0-0.0] | -10.0 [-10.0--10.0] |"), page
    assert paired.endswith("| 2 |"), "two of four answers are equal"
