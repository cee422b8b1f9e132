"""References written per second against the bare forward pass; bytes of a memory against the dense keys and values.

    python -m bench.writing --references 64 --repeats 5

Three arms over the same references in the same batches, interleaved: `forward`, the bare forward pass over all layers
without the language model's head; `write`, the writer (forward, selection, gathering); `write + encode`, the writer and
the codec, which is all but the put. Real weights, real text. Spread is the interquartile range over repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from bench.machine import heading
from model.attention import CausalAttention
from model.identity import reference_id
from model.packing import PackedLayout
from services.decoder.config import DecoderSettings
from services.decoder.loading import load_model
from services.decoder.model_bundle import ModelBundle
from services.ingest.corpora import articles

BATCH = 8
Batch = list[list[int]]


def real_references(bundle: ModelBundle, count: int) -> list[list[int]]:
    """The first tokens of real texts, as many as a reference may have."""
    limit = bundle.plan.max_reference_tokens
    found = []
    for article in articles("package:wikipedia-leads"):
        tokens = bundle.tokenizer.encode(article.text)[:limit]
        if len(tokens) == limit:
            found.append(tokens)
        if len(found) == count:
            return found
    return found


@torch.inference_mode()
def forward(bundle: ModelBundle, batch: Batch) -> None:
    """The bare forward pass over all layers."""
    transformer = bundle.runner.transformer
    lengths = [len(tokens) for tokens in batch]
    layout = PackedLayout(lengths, [0] * len(lengths), max(lengths), transformer.device)
    tokens_T = torch.tensor([token for tokens in batch for token in tokens], device=transformer.device)
    transformer.run(tokens_T, layout.place_T, CausalAttention(transformer.config, layout, transformer.dtype))


def write(bundle: ModelBundle, batch: Batch) -> None:
    """The writer."""
    bundle.writer.write(batch)


def write_and_encode(bundle: ModelBundle, batch: Batch) -> None:
    """The writer and the codec."""
    for number, memory in enumerate(bundle.writer.write(batch)):
        bundle.codec.encode(memory.to_arrays(), reference_id(str(number)), bundle.fingerprint)


def rate(run: Callable[[ModelBundle, Batch], None], bundle: ModelBundle, references: Batch) -> float:
    """References per second over all of them."""
    began = time.perf_counter()
    for start in range(0, len(references), BATCH):
        run(bundle, references[start : start + BATCH])
    return len(references) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=64, help="references of 128 tokens in one pass")
    parser.add_argument("--repeats", type=int, default=5, help="passes of each arm")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    arguments = parser.parse_args()
    bundle = load_model(DecoderSettings(dtype=arguments.dtype))
    references = real_references(bundle, arguments.references)
    arms = {"forward": forward, "write": write, "write + encode": write_and_encode}
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(-1, arguments.repeats):
        for name, run in arms.items():
            measured = rate(run, bundle, references)
            if repeat >= 0:  # the first pass of each arm warms up
                rates[name].append(measured)
    print(heading())
    print(f"{len(references)} references of 128 tokens by {BATCH}, {arguments.repeats} repeats, {arguments.dtype}")
    print("| arm | references/s | share of forward |\n|---|---|---|")
    base = statistics.median(rates["forward"])
    for name, values in rates.items():
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        print(f"| {name} | {middle:.2f} [{low:.2f}-{high:.2f}] | {middle / base:.2f} |")
    info = bundle.info
    print("\n| | bytes | share |\n|---|---|---|")
    print(f"| dense keys and values of a full reference | {info.dense_reference_bytes} | 1 |")
    ratio = info.dense_reference_bytes / info.memory_bytes
    print(f"| one record ({bundle.plan.name}) | {info.memory_bytes} | 1/{ratio:.1f} |")


if __name__ == "__main__":
    main()
