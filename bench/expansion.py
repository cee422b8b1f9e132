"""Codes copied to a device and expanded there, or rows copied to it: which is faster, and over which link.

    python -m bench.expansion                     # on the processor: what expanding costs; nothing is transferred
    python -m bench.expansion --device cuda

Random memories of the default model, 8 tokens each, the five of a span at once; needs no weights, takes seconds.
`expand`: packed bytes that lie on the device become bfloat16 keys and values. `copy`: the packed bytes, and bfloat16
rows, from pinned memory of the host. Codes are worth it over a link slower than the break-even: the bytes they save
over the time to expand them. Milliseconds of all memories together, median and interquartile range; on the processor
they are processor time, which the load of other programs changes less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import torch

from bench.machine import heading
from model.codec.arrays import MemoryArrays
from model.codec.chain import CodecChain
from model.codec.codebook import CODEBOOK_FILE, Codebook
from model.codec.packed_memory import PackedMemory
from model.directory import SHIPPED_ADAPTER
from model.expansion.expander import Expander
from model.presets import memory_plan

KEPT_TOKENS, WARM_UP = 8, 3
CODECS = ("bf16", "int8", "int4", "trellis")
TITLES = ("codec", "bytes a memory", "expand", "a memory's share", "copy codes", "copy rows", "break-even GB/s")


class Clock:
    """Times what a device does, one action after the other."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self._repeats = device, repeats

    def milliseconds(self, action: Callable[[], object]) -> tuple[float, float]:
        """Median and interquartile range, the device's work included."""
        now = time.process_time if self.device.type == "cpu" else time.perf_counter
        times = []
        for _ in range(WARM_UP + self._repeats):
            self._wait()
            start = now()
            action()
            self._wait()
            times.append(1000 * (now() - start))
        low, middle, high = statistics.quantiles(times[WARM_UP:], n=4)
        return middle, high - low

    def copy_milliseconds(self, num_bytes: int) -> str:
        """Of so many bytes from pinned memory to the device."""
        host = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
        there = torch.empty_like(host, device=self.device, pin_memory=False)
        middle, spread = self.milliseconds(lambda: there.copy_(host, non_blocking=True))
        return f"{middle:.3f} ± {spread:.3f}"

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def memories(chain: CodecChain, shape: tuple[int, int, int, int], count: int) -> list[PackedMemory]:
    """Of normally distributed numbers, as their records pack them."""
    rng = np.random.default_rng(0)
    packed = []
    for number in range(count):
        keys, values = rng.standard_normal((2, *shape), dtype=np.float32)
        positions = np.sort(np.argsort(rng.random((*shape[:2], 128)), axis=2)[..., : shape[2]], axis=2)
        arrays = MemoryArrays(keys, values, positions.astype(np.uint8), 128)
        record = chain.encode(arrays, f"{number:032x}", "0" * 32)
        packed.append(chain.unpack(record, f"{number:032x}", "0" * 32))
    return packed


def row(codec: str, chain: CodecChain, packed: Sequence[PackedMemory], clock: Clock) -> list[str]:
    """One codec's line of the table."""
    expander = Expander(chain, clock.device, torch.bfloat16)
    payload, specs = expander.send(packed), packed[0].specs
    middle, spread = clock.milliseconds(lambda: expander.expand_sent(payload, specs))
    row_bytes = len(packed) * 2 * prod(packed[0].shape) * torch.bfloat16.itemsize
    cells = [codec, f"{len(packed[0].payload):,}", f"{middle:.3f} ± {spread:.3f}", f"{middle / len(packed):.3f}"]
    if clock.device.type == "cpu":
        return [*cells, "-", "-", "-"]
    copies = [clock.copy_milliseconds(num_bytes) for num_bytes in (payload.nbytes, row_bytes)]
    saved = row_bytes - payload.nbytes
    return [*cells, *copies, f"{saved / middle / 1e6:.2f}" if saved > 0 else "-"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memories", type=int, default=5, help="expanded at once")
    parser.add_argument("--codebook", type=Path, default=SHIPPED_ADAPTER / CODEBOOK_FILE)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = Clock(torch.device(options.device), options.repeats)
    book = Codebook.load(options.codebook)
    num_layers, num_kv_heads, head_dim = book.shape
    shape = (num_layers, num_kv_heads, KEPT_TOKENS, head_dim)
    name = torch.cuda.get_device_name(clock.device) if clock.device.type == "cuda" else "cpu, nothing is transferred"
    print(f"{heading()} · {name} · {options.memories} memories at once, n = {options.repeats}\n")
    print("| " + " | ".join(TITLES) + " |\n" + "|---" * len(TITLES) + "|")
    for codec in CODECS:
        plan = replace(memory_plan("smollm2-135m"), codec=(codec,))
        chain = CodecChain.from_plan(plan, book)
        print("| " + " | ".join(row(codec, chain, memories(chain, shape, options.memories), clock)) + " |", flush=True)


if __name__ == "__main__":
    main()
