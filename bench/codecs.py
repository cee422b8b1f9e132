"""What each codec makes of a memory: bytes, error, speed, and what it costs in likelihood.

    python -m bench.codecs --codebook codebook.safetensors --sets fiction,continuation --items 100
    python -m bench.codecs --adapter my-adapter/ --codebook my-adapter/codebook.safetensors

Real weights, references of the sets. Error is squared error over the variance of keys and of values. Times are
milliseconds of one memory, median and interquartile range: to encode it, to open its record (checksum, header), and a
memory's share of expanding five on the model's device. NLL is of mode `memory`, per answer token; beside it the paired
difference to the first codec and its standard error.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch

from bench.machine import heading
from model.codec.arrays import MemoryArrays
from model.codec.trellis import Trellis
from model.expansion.expander import Expander
from model.memory.explicit_memory import ExplicitMemory
from model.memory.writer import MemoryWriter
from model.prefix import encode_prefix
from services.datasets import registry
from services.datasets.item import Item
from services.evaluation.config import EvaluationSettings
from services.evaluation.core import Evaluation
from services.evaluation.loading import Checkpoint, Choices, check, load
from services.evaluation.memory_book import MemoryBook
from services.evaluation.modes import Mode

READER = "0" * 32
MEMORIES_READ = 5


def milliseconds(action: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and interquartile range."""
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - start))
    low, middle, high = statistics.quantiles(times, n=4)
    return middle, high - low


def written(checkpoint: Checkpoint, texts: Sequence[str]) -> list[MemoryArrays]:
    """The memories of references."""
    plan, tokenizer, transformer = checkpoint.checked.plan, checkpoint.tokenizer, checkpoint.transformer
    prefix = encode_prefix(transformer, tokenizer.encode_special(plan.prefix))
    tokens = [tokenizer.encode(text)[: plan.max_reference_tokens] for text in texts]
    return [memory.to_arrays() for memory in MemoryWriter(transformer, plan, prefix).write(tokens)]


def relative_error(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """Squared error over the variance about the mean of each layer, head and dimension."""
    stacked = np.concatenate(wanted, axis=2)
    centred = stacked - stacked.mean(axis=2, keepdims=True)
    return float(((np.concatenate(found, axis=2) - stacked) ** 2).sum() / (centred**2).sum())


def codec_row(checkpoint: Checkpoint, memories: Sequence[MemoryArrays], repeats: int) -> list[str]:
    """Bytes, error and speed."""
    checked = checkpoint.checked
    chain, config, plan = checked.codec, checked.config, checked.plan
    records = [chain.encode(memory, READER, READER) for memory in memories]
    packed = [chain.unpack(record, READER, READER) for record in records]
    decoded = [memory.to_arrays() for memory in Expander(chain, "cpu").expand(packed)]
    shape = plan.memory_shape(config)
    size = chain.record_bytes(shape, plan.max_reference_tokens)
    dense = 2 * config.num_layers * config.num_kv_heads * plan.max_reference_tokens * config.head_dim * 2
    errors = [
        relative_error([getattr(m, name) for m in decoded], [getattr(m, name) for m in memories])
        for name in ("k_LKSD", "v_LKSD")
    ]
    encode = milliseconds(lambda: chain.encode(memories[0], READER, READER), repeats)
    unpack = milliseconds(lambda: chain.unpack(records[0], READER, READER), repeats)
    expander = Expander(chain, checkpoint.transformer.device, checkpoint.transformer.dtype)
    span = [memory for memory in packed if memory.shape == shape][:MEMORIES_READ]

    def expand() -> None:
        expander.expand(span)[-1].v_LKSD[-1, -1, -1, -1].item()  # waits for the device

    middle, spread = milliseconds(expand, repeats)
    expansion = middle / len(span), spread / len(span)
    return [
        f"{plan.codec[0]} {book.bytes_per_vector:g}" if (book := checked.codebook) else ", ".join(plan.codec),
        f"{size:,}",
        f"{dense / size:.0f}",
        *(f"{error:.4f}" for error in errors),
        *(f"{middle:.2f} ± {spread:.2f}" for middle, spread in (encode, unpack, expansion)),
    ]


class Remembering(MemoryWriter):
    """Writes each reference once, whatever the codec."""

    known: ClassVar[dict[str, ExplicitMemory]] = {}

    def write(
        self,
        references: Sequence[Sequence[int]],
        reference_ids: Sequence[str] | None = None,
        preceding: Sequence[Sequence[int]] | None = None,
    ) -> list[ExplicitMemory]:
        """See `MemoryWriter`."""
        ids = list(reference_ids or ())
        rows = zip(references, ids, preceding or (), strict=True)
        if fresh := [row for row in rows if row[1] not in self.known]:
            tokens, names, before = zip(*fresh, strict=True)
            self.known.update({memory.reference_id: memory for memory in super().write(tokens, names, before)})
        return [self.known[name] for name in ids]


def nll_of(checkpoint: Checkpoint, settings: EvaluationSettings, items: Sequence[Item]) -> np.ndarray:
    """Per item, mode memory."""
    model, checked, transformer = checkpoint.measured(settings, items, 0), checkpoint.checked, checkpoint.transformer
    prefix = encode_prefix(transformer, checkpoint.tokenizer.encode_special(checked.plan.prefix))
    model.book = MemoryBook(
        Remembering(transformer, checked.plan, prefix),
        checked.codec,
        checkpoint.tokenizer,
        fingerprint=READER,
        dtype=transformer.dtype,
        device=transformer.device,
        max_bytes=settings.memory_bytes,
    )
    outcome = Evaluation(model, (Mode.MEMORY,)).run(items)
    return np.array([result.nll for result in outcome.results[Mode.MEMORY]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codebook", default="", help="for the codec trellis; several with commas: a row each")
    parser.add_argument("--codecs", default="bf16,int8,int4,trellis", help="the first is what others are compared with")
    parser.add_argument("--sets", default="fiction,continuation", help="empty measures no likelihood")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--adapter", default="auto")
    parser.add_argument("--model", default="package")
    parser.add_argument("--plan")
    parser.add_argument("--tokens-per-memory", type=int)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1, help="of torch; numpy takes what OMP_NUM_THREADS says")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = EvaluationSettings().model_copy(
        update={"adapter": options.adapter, "model": options.model, "dtype": options.dtype}
    )
    sets = {
        name: registry.load(name, split="held-out", items=options.items, seed=options.seed)
        for name in filter(None, options.sets.split(","))
    }
    texts = [text for items in sets.values() for item in items[:4] for text in item.references]
    texts = texts or [
        text for item in registry.load("fiction", split="held-out", items=8, seed=7) for text in item.references
    ]
    first: dict[str, np.ndarray] = {}
    loaded: Checkpoint | None = None
    titles = ["codec", "bytes", "dense/bytes", "error K", "error V", "encode ms", "open ms", "expand ms", *sets]
    print(heading())
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|", flush=True)
    books = {
        codec: options.codebook.split(",") if codec == Trellis.name else [""] for codec in options.codecs.split(",")
    }
    for codec, book in ((codec, book) for codec, files in books.items() for book in files):
        chosen = settings.model_copy(update={"codebook": book})
        choices = Choices(options.plan, (codec,), options.tokens_per_memory)
        checked = check(chosen, choices)
        loaded = load(chosen, checked) if loaded is None else replace(loaded, checked=checked)
        row = codec_row(loaded, written(loaded, texts), options.repeats)
        for name, items in sets.items():
            nll = nll_of(loaded, chosen, items)
            change = nll - first.setdefault(name, nll)
            error = change.std(ddof=1) / len(change) ** 0.5
            row.append(
                f"{nll.mean():.4f} ({change.mean():+.4f} ± {error:.4f}, {change.mean() / (nll - change).mean():+.2%})"
            )
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
