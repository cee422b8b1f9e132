"""The tiers in one process answer as the same tiers do over gRPC, and the bench compares like with like."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from bench.mesh import BASE, MODES, Answer, Arm, Batch, measure, tables
from bench.one_process import one_process
from memory3.decoder import DecoderClient
from memory3.types import GenerationRequest, Mode, Reference, Tier
from model.identity import reference_id
from services.decoder.config import DecoderSettings
from services.memory.config import MemorySettings
from services.retrieval.config import RetrievalSettings
from tests.helpers.decoder_stack import BANK, TEXTS, decoder_stack, index, write


@pytest.mark.timeout(480)
async def test_one_process_answers_as_the_mesh_does(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as started:
        stack = started.enter_context(decoder_stack(tmp_path, "local", env={"MEMORY3_DECODER_CACHE_BYTES": "0"}))
        await index(stack)
        await write(stack)
        client = await started.enter_async_context(DecoderClient(stack.decoder.address))
        core, references = await started.enter_async_context(
            one_process(
                RetrievalSettings(index="local", embedder="hash"),
                MemorySettings(store_uri=str(tmp_path / "records")),
                DecoderSettings(
                    model=stack.decoder_env["MEMORY3_DECODER_MODEL"],
                    plan=stack.decoder_env["MEMORY3_DECODER_PLAN"],
                    torch_threads=1,
                    cache_bytes=0,
                ),
            )
        )
        for text in TEXTS:
            reference = Reference(reference_id(text), text, f"doc-{reference_id(text)[:8]}", "A title", num_tokens=9)
            await references.upsert(BANK, reference.document_id, "1", [reference], last_part=True)

        request = GenerationRequest(Mode.MEMORY, prompt=TEXTS[3], bank=BANK, max_tokens=8, recall_deadline_ms=60_000)
        tiers = [
            [memory.tier for memory in (await core.generate_once(request, 60.0)).recalls[0].memories] for _ in range(2)
        ]
        assert tiers == [[Tier.OBJECT] * 5, [Tier.RAM] * 5], "no worker's cache stands between"

        arms = {
            BASE: Arm(lambda asked: core.generate(asked, 60.0)),
            "gRPC": Arm(client.generate, [stack.decoder.pid, stack.memory.pid, stack.retrieval.pid]),
        }
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
