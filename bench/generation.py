"""TTFT, time per token and tokens/s of none, rag and memory, alone and eight at once; what recall costs.

    python -m bench.generation --repeats 5

Prompts are real text of 128 tokens (Wikipedia leads), 128 tokens are generated at most, greedily. Arms are interleaved:
every repeat runs each arm once, so a noisy neighbour hits all of them. Arms:

    none           no retrieval
    rag            five references as text in the prompt
    memory warm    memories in the worker's cache
    memory ram     worker's cache off: every memory comes from the memory service's RAM
    memory object  worker's cache and the memory service's RAM off: every memory is read from the object store
    memory cold    no memory is stored: each is written on first recall

All numbers come from the answers' own Timing except `tok/s`, which is output tokens over the client's wall time of the
whole batch. Spread is the interquartile range over all requests of an arm.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.machine import heading
from bench.stack import BANK, stack
from memory3.decoder import DecoderClient
from memory3.memory import MemoryClient
from memory3.types import FinalEvent, GenerationRequest, Mode
from services.ingest.corpora import articles

PROMPT_TOKENS = 128
OUTPUT_TOKENS = 128
PLACES = ("warm", "ram", "object", "cold")


@dataclass
class Sample:
    """All requests of one arm."""

    finals: list[FinalEvent] = field(default_factory=list)
    decode_stalls_ns: list[int] = field(default_factory=list)
    walls_s: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)


async def run_batch(client: DecoderClient, mode: Mode, prompts: list[str], sample: Sample) -> None:
    """Send the prompts at once and keep the answers' figures."""
    requests = [
        GenerationRequest(
            mode=mode,
            prompt=prompt,
            bank="" if mode is Mode.NONE else BANK,
            max_tokens=OUTPUT_TOKENS,
            recall_deadline_ms=60_000,
        )
        for prompt in prompts
    ]
    began = time.perf_counter()
    answers = await asyncio.gather(*(client.generate_once(request) for request in requests))
    sample.walls_s.append(time.perf_counter() - began)
    sample.finals += [answer.final for answer in answers]
    # The prompt's own recall is waited for before the first token and told on span 0; later spans stall decoding.
    sample.decode_stalls_ns += [sum(r.stalled_ns for r in answer.recalls if r.span > 0) for answer in answers]
    sample.tokens.append(sum(answer.final.usage.num_output_tokens for answer in answers))


def quartiles(values: list[float]) -> str:
    """median [lower quartile - upper quartile]."""
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else "-"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.1f} [{low:.1f}-{high:.1f}]"


def row(name: str, batch: int, sample: Sample) -> dict[str, object]:
    """One line of the table; milliseconds unless named otherwise."""
    finals = sample.finals
    tpot = [
        final.timing.decode_ns / 1e6 / (final.usage.num_output_tokens - 1)
        for final in finals
        if final.usage.num_output_tokens > 1
    ]
    decode = sum(final.timing.decode_ns for final in finals)
    stalled = sum(sample.decode_stalls_ns)
    return {
        "arm": name,
        "batch": batch,
        "n": len(finals),
        "ttft_ms": quartiles([final.timing.ttft_ns / 1e6 for final in finals]),
        "tpot_ms": quartiles(tpot),
        "tok_s": quartiles([tokens / wall for tokens, wall in zip(sample.tokens, sample.walls_s, strict=True)]),
        "tpot_median_ms": statistics.median(tpot),
        "prompt_tokens": statistics.mean(final.usage.num_prompt_tokens for final in finals),
        "output_tokens": statistics.mean(final.usage.num_output_tokens for final in finals),
        "recall_ms": quartiles([final.timing.recall_ns / 1e6 for final in finals]),
        "stalled_ms": quartiles([final.timing.stalled_ns / 1e6 for final in finals]),
        "stalled_in_decode_ratio": stalled / decode if decode else 0.0,
        "memories_read": statistics.mean(final.usage.num_memories_read for final in finals),
        "memories_late": sum(final.usage.num_memories_late for final in finals),
        "memories_missing": sum(final.usage.num_memories_missing for final in finals),
    }


def prompts_from_leads(count: int, skip: int) -> list[str]:
    """Texts long enough to be cut to the prompt's length by the tokenizer's budget of characters."""
    texts = [article.text for article in articles("package:wikipedia-leads") if len(article.text) > 900]
    return [text[:600] for text in texts[skip : skip + count]]


async def measure(
    folder: Path, documents: int, repeats: int, batches: list[int], places: list[str]
) -> list[dict[str, object]]:
    """Run the arms of these places; returns the rows."""
    samples: dict[tuple[str, int], Sample] = {}
    prompts = prompts_from_leads(64, 0)
    no_caches = {"MEMORY3_DECODER_CACHE_BYTES": "0"}
    arms = [
        ("warm", {}, {}, (Mode.NONE, Mode.RAG, Mode.MEMORY)),
        ("ram", no_caches, {}, (Mode.NONE, Mode.MEMORY)),
        ("object", no_caches, {"MEMORY3_MEMORY_RAM_BYTES": "0"}, (Mode.NONE, Mode.MEMORY)),
        ("cold", no_caches, {}, (Mode.NONE, Mode.MEMORY)),
    ]
    for place, decoder_env, memory_env, modes in arms:
        if place not in places:
            continue
        with stack(folder, decoder_env, memory_env) as running:
            print(f"[{place}] services are up; ingesting {documents} documents", flush=True)
            running.ingest(documents, "cold")
            async with DecoderClient(running.decoder.address) as client, MemoryClient(running.memory.address) as memory:
                # Two rounds that do not count: they write the memories and fill the caches this arm has.
                for warm_up in range(2):
                    await run_batch(client, Mode.MEMORY, prompts[: max(batches)], Sample())
                    print(f"[{place}] warm-up {warm_up + 1} of 2", flush=True)
                for repeat in range(repeats):
                    for batch in batches:
                        for mode in modes:
                            name = mode.name.lower() + (f" {place}" if mode is Mode.MEMORY else f" ({place} run)")
                            if place == "cold" and mode is Mode.MEMORY:
                                await memory.delete(BANK, whole_bank=True)
                            sample = samples.setdefault((name, batch), Sample())
                            await run_batch(client, mode, prompts[:batch], sample)
                    print(f"[{place}] repeat {repeat + 1} of {repeats}", flush=True)
    return [row(name, batch, sample) for (name, batch), sample in samples.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=300, help="Wikipedia leads in the bank")
    parser.add_argument("--repeats", type=int, default=5, help="rounds over all arms")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="requests at once")
    parser.add_argument(
        "--places",
        nargs="+",
        choices=PLACES,
        default=list(PLACES),
        help="where memories come from; none and rag run too",
    )
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(
            measure(Path(folder), arguments.documents, arguments.repeats, arguments.batches, arguments.places)
        )
    print(f"\n{heading()}")
    print(f"prompts of about {PROMPT_TOKENS} tokens, at most {OUTPUT_TOKENS} out, greedy, {arguments.repeats} repeats")
    columns = [
        "arm",
        "batch",
        "n",
        "ttft_ms",
        "tpot_ms",
        "tok_s",
        "prompt_tokens",
        "output_tokens",
        "recall_ms",
        "stalled_ms",
        "stalled_in_decode_ratio",
        "memories_read",
        "memories_late",
        "memories_missing",
    ]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for line in rows:
        print(
            "| " + " | ".join(f"{line[c]:.3g}" if isinstance(line[c], float) else str(line[c]) for c in columns) + " |"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"heading": heading(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
