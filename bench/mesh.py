"""What the mesh costs: the same requests to three tiers over gRPC, and to the same tiers in one process.

    MEMORY3_DECODER_DTYPE=bfloat16 python -m bench.mesh --repeats 8

Arms, all up at once and asked in turn, in an order that rotates:

    one process    retrieval, memory and decoder cores called directly: no gRPC, no Ray, one Python interpreter
    gRPC           three services, three processes; the decoder's worker in its front's process (backend local)
    gRPC, Ray      the same retrieval and memory services; the worker is a Ray Serve replica, a process more

Every arm has the same weights, the same two threads for them, and the same bank: memories are read from one folder,
the index (Milvus Lite, a file of one process) is copied. The worker's cache of memories is off, so that each memory
that is read crosses from the memory tier's RAM to the worker: the most the mesh can cost. --worker-cache leaves it on,
as a service has it. Memories are written before; nothing is cold.

TTFT is what the caller sees: from the call to the first text, the way through the front included. It is measured in
this process, which is the client of the mesh and the whole of "one process". ms a token: (last text - first text) /
(output tokens - 1). tokens/s: output tokens of all that were asked at once, over the time until the last had ended.
CPU: all processes of an arm and this one, over the requests. Paired differences compare an arm with "one process" on
the same prompt in the same repeat. Spread is [lower quartile-upper quartile]. Answers are greedy; how many equal those
of one process is told, because only then both did the same work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.cpu import cpu_s
from bench.generation import prompts_from_leads, quartiles
from bench.machine import heading
from bench.mesh_arms import BASE, Arm, real_arms, tiny_arms
from bench.stack import BANK
from memory3.types import FinalEvent, GenerationRequest, Mode, TokenEvent
from services.common.config import load
from services.decoder.config import DecoderSettings
from tests.helpers import decoder_stack as tiny

MODES = (Mode.NONE, Mode.RAG, Mode.MEMORY)


@dataclass(frozen=True)
class Answer:
    """One request as its caller saw it."""

    text: str
    ttft_ms: float
    token_ms: float
    output_tokens: int
    lost: int
    """Memories that were late or missing, and recalls that failed."""


@dataclass(frozen=True)
class Batch:
    """What was asked at once: its answers in the order of the prompts, tokens/s and CPU of the whole."""

    mode: str
    at_once: int
    repeat: int
    arm: str
    answers: Sequence[Answer]
    tokens_s: float
    cpu_ms: float
    """A request."""


async def ask(arm: Arm, request: GenerationRequest) -> Answer:
    """Send one request and see its events come."""
    began = time.perf_counter()
    first = last = 0.0
    text: list[str] = []
    final: FinalEvent | None = None
    async for event in arm.ask(request):
        match event:
            case TokenEvent():
                last = time.perf_counter()
                first = first or last
                text.append(event.text)
            case FinalEvent():
                final = event
    assert final is not None, "a generation without error ends with a final event"
    usage = final.usage
    return Answer(
        "".join(text),
        (first - began) * 1000,
        (last - first) * 1000 / max(1, usage.num_output_tokens - 1),
        usage.num_output_tokens,
        usage.num_memories_late + usage.num_memories_missing + usage.num_recalls_failed,
    )


async def run_batch(name: str, arm: Arm, requests: Sequence[GenerationRequest], repeat: int) -> Batch:
    """All requests at once."""
    cpu_began, began = cpu_s([os.getpid()], arm.processes), time.perf_counter()
    answers = await asyncio.gather(*(ask(arm, request) for request in requests))
    wall_s = time.perf_counter() - began
    cpu_ms = (cpu_s([os.getpid()], arm.processes) - cpu_began) * 1000 / len(requests)
    tokens = sum(answer.output_tokens for answer in answers)
    return Batch(requests[0].mode.name.lower(), len(requests), repeat, name, answers, tokens / wall_s, cpu_ms)


async def measure(
    arms: Mapping[str, Arm],
    bank: str,
    prompts: Sequence[str],
    *,
    at_once: Sequence[int],
    repeats: int,
    tokens: int,
    keep: Callable[[Sequence[Batch]], None] = lambda _: None,
) -> list[Batch]:
    """Every repeat asks every arm in every mode, the next prompts in turn; what warms up before does not count.

    `keep` gets all that has been measured, after each repeat.
    """

    def requests(mode: Mode, chosen: Sequence[str]) -> list[GenerationRequest]:
        named = "" if mode is Mode.NONE else bank
        return [
            GenerationRequest(mode, prompt=prompt, bank=named, max_tokens=tokens, recall_deadline_ms=60_000)
            for prompt in chosen
        ]

    for name, arm in arms.items():
        # The memories of all prompts get into the RAM of the memory tier here.
        for mode, chosen in ((Mode.MEMORY, prompts), (Mode.NONE, prompts[:1]), (Mode.RAG, prompts[:1])):
            await run_batch(name, arm, requests(mode, chosen), -1)
        print(f"{name} is warm", file=sys.stderr, flush=True)
    batches: list[Batch] = []
    names = list(arms)
    for repeat in range(repeats):
        turn = repeat % len(names)
        for count in at_once:
            asked = [prompts[(repeat * count + place) % len(prompts)] for place in range(count)]
            for mode in MODES:
                batches += [
                    await run_batch(name, arms[name], requests(mode, asked), repeat)
                    for name in names[turn:] + names[:turn]
                ]
        keep(batches)
        print(f"repeat {repeat + 1} of {repeats}", file=sys.stderr, flush=True)
    return batches


def tables(batches: Sequence[Batch]) -> str:
    """Both tables: each arm, and each arm less one process."""
    groups: dict[tuple[str, int], dict[str, list[Batch]]] = {}
    for batch in batches:
        groups.setdefault((batch.mode, batch.at_once), {}).setdefault(batch.arm, []).append(batch)
    own = ["| mode | at once | arm | n | TTFT ms | ms a token | tokens/s of the batch | CPU ms a request |"]
    own.append("|---" * 8 + "|")
    paired = [
        "| mode | at once | arm | n | TTFT, ms more | ms more a token | tokens/s, % | CPU ms more | equal answers |"
    ]
    paired.append("|---" * 9 + "|")
    for (mode, at_once), arms in groups.items():
        base = arms[BASE]
        base_answers = [answer for batch in base for answer in batch.answers]
        for name, found in arms.items():
            answers = [answer for batch in found for answer in batch.answers]
            cells = [
                f"{len(answers)}",
                quartiles([answer.ttft_ms for answer in answers]),
                quartiles([answer.token_ms for answer in answers]),
                quartiles([batch.tokens_s for batch in found]),
                quartiles([batch.cpu_ms for batch in found]),
            ]
            own.append(f"| {mode} | {at_once} | {name} | " + " | ".join(cells) + " |")
            if name == BASE:
                continue
            answer_pairs = list(zip(answers, base_answers, strict=True))
            batch_pairs = list(zip(found, base, strict=True))
            cells = [
                f"{len(answers)}",
                quartiles([mine.ttft_ms - other.ttft_ms for mine, other in answer_pairs]),
                quartiles([mine.token_ms - other.token_ms for mine, other in answer_pairs]),
                quartiles([100 * (mine.tokens_s / other.tokens_s - 1) for mine, other in batch_pairs]),
                quartiles([mine.cpu_ms - other.cpu_ms for mine, other in batch_pairs]),
                f"{sum(mine.text == other.text for mine, other in answer_pairs)}",
            ]
            paired.append(f"| {mode} | {at_once} | {name} | " + " | ".join(cells) + " |")
    lost = sum(answer.lost for batch in batches for answer in batch.answers)
    return "\n".join([*own, "", "Less one process, on the same prompt in the same repeat:", "", *paired]) + (
        f"\n\nmemories late or missing, recalls failed: {lost}"
    )


async def run(options: argparse.Namespace, folder: Path) -> list[Batch]:
    """Start the arms and measure."""

    def keep(batches: Sequence[Batch]) -> None:
        if options.json:
            rows = [asdict(batch) for batch in batches]
            options.json.write_text(json.dumps({"heading": heading(), "batches": rows}, indent=1))

    if options.model == "tiny":
        opened = tiny_arms(folder, ray=options.ray, worker_cache=options.worker_cache)
        bank, prompts = tiny.BANK, list(tiny.TEXTS)
    else:
        opened = real_arms(folder, options.documents, ray=options.ray, worker_cache=options.worker_cache)
        bank, prompts = BANK, prompts_from_leads(options.prompts, 0)
    async with opened as arms:
        return await measure(
            arms, bank, prompts, at_once=options.at_once, repeats=options.repeats, tokens=options.tokens, keep=keep
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4, help="rounds over all arms, modes and numbers at once (4)")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8], help="requests at once (1 8)")
    parser.add_argument("--tokens", type=int, default=64, help="output tokens of a request at most (64)")
    parser.add_argument(
        "--model",
        choices=["package", "tiny"],
        default="package",
        help="the real weights, or a tiny random model with hashed words as vectors: nearly all it does is mesh",
    )
    parser.add_argument("--prompts", type=int, default=8, help="different prompts, some 130 tokens each (8)")
    parser.add_argument("--documents", type=int, default=150, help="Wikipedia leads in the bank (150)")
    parser.add_argument("--no-ray", dest="ray", action="store_false", help="leave the arm with Ray out")
    parser.add_argument("--worker-cache", action="store_true", help="leave the worker's cache of memories on")
    parser.add_argument("--json", type=Path, help="also write every request to this file, after each repeat")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        batches = asyncio.run(run(options, Path(folder)))
    print(heading())
    print(
        f"model {options.model}, {load(DecoderSettings).dtype}, at most {options.tokens} tokens out, worker's cache "
        f"{'on' if options.worker_cache else 'off'}, {options.repeats} repeats, interleaved\n"
    )
    print(tables(batches))


if __name__ == "__main__":
    main()
