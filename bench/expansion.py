"""Codes copied to a device and expanded there, or rows copied to it: which is faster, and over which link.

    python -m bench.expansion                     # on the processor: what expanding costs; nothing is transferred
    python -m bench.expansion --device cuda --memories 5,40,160,320

Random memories of the default model, 8 tokens each, so many at once: 5 are a span's; needs no weights, takes seconds.
`expand`: packed bytes that lie on the device become bfloat16 keys and values. `copy`: the packed bytes, and bfloat16
rows, from pinned memory of the host. Codes are worth it where `codes + expand` takes less than `copy rows`; over
another link, where that is slower than the break-even: the bytes they save over the time to expand them.

Milliseconds of all memories together, median and interquartile range. `alone`: from the call until the device is done,
so what the host does is in it; on the processor it is processor time, which the load of other programs changes less.
`queued`: the device's share, of calls that wait in its queue one behind the other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, islice
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

KEPT_TOKENS, DISTINCT = 8, 8
WARM_UP, QUEUED = 3, 10
CODECS = ("bf16", "int8", "int4", "trellis")
TITLES = ("memories", "codec", "bytes a memory", "timed", "expand", "a memory's share")
TRANSFERS = ("copy codes", "codes + expand", "copy rows", "break-even GB/s")
Timer = Callable[[Callable[[], object]], tuple[float, float]]
"""Median and interquartile range of what an action takes, in milliseconds."""


class Clock:
    """Times what a device does, one action after the other."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self._repeats = device, repeats

    @property
    def timers(self) -> dict[str, Timer]:
        return {"alone": self.alone} | ({"queued": self.queued} if self.device.type == "cuda" else {})

    def alone(self, action: Callable[[], object]) -> tuple[float, float]:
        """With the host's work, until the device is done."""
        now = time.process_time if self.device.type == "cpu" else time.perf_counter
        times = []
        for _ in range(WARM_UP + self._repeats):
            self._wait()
            start = now()
            action()
            self._wait()
            times.append(1000 * (now() - start))
        return _middle(times[WARM_UP:])

    def queued(self, action: Callable[[], object]) -> tuple[float, float]:
        """The device's work. Raises RuntimeError on an action that waits for it."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        cycles, times = 2**20, []
        while len(times) < WARM_UP + self._repeats:
            torch.cuda._sleep(cycles)  # the device is busy until all calls stand in its queue
            start.record()
            for _ in range(QUEUED):
                action()
            end.record()
            was_in_time = not start.query()
            self._wait()
            if was_in_time:
                times.append(start.elapsed_time(end) / QUEUED)
            elif (cycles := 2 * cycles) > 2**30:
                raise RuntimeError("the device is done before its queue is full, however late it begins")
        return _middle(times[WARM_UP:])

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _middle(times: Sequence[float]) -> tuple[float, float]:
    low, middle, high = statistics.quantiles(times, n=4)
    return middle, high - low


def memories(chain: CodecChain, shape: tuple[int, int, int, int], count: int) -> list[PackedMemory]:
    """Of normally distributed numbers, as their records pack them; a few different ones in turn."""
    rng = np.random.default_rng(0)
    packed = []
    for number in range(min(count, DISTINCT)):
        keys, values = rng.standard_normal((2, *shape), dtype=np.float32)
        positions = np.sort(np.argsort(rng.random((*shape[:2], 128)), axis=2)[..., : shape[2]], axis=2)
        arrays = MemoryArrays(keys, values, positions.astype(np.uint8), 128)
        record = chain.encode(arrays, f"{number:032x}", "0" * 32)
        packed.append(chain.unpack(record, f"{number:032x}", "0" * 32))
    return list(islice(cycle(packed), count))


def cells(expander: Expander, packed: Sequence[PackedMemory], device: torch.device, timer: Timer) -> list[str]:
    """What expanding takes, and where there is something to transfer, what that takes."""
    payload, specs = expander.send(packed), packed[0].specs
    expand = timer(lambda: expander.expand_sent(payload, specs))
    found = [_shown(expand), f"{expand[0] / len(packed):.4f}"]
    if device.type == "cpu":
        return [*found, *("-" for _ in TRANSFERS)]
    codes = torch.empty(payload.shape, dtype=torch.uint8, pin_memory=True)
    rows = torch.empty(len(packed) * 2 * prod(packed[0].shape), dtype=torch.bfloat16, pin_memory=True)
    rows_there = torch.empty_like(rows, device=device, pin_memory=False)
    codes.copy_(payload)

    def codes_and_expand() -> None:
        payload.copy_(codes, non_blocking=True)
        expander.expand_sent(payload, specs)

    copy_codes = timer(lambda: payload.copy_(codes, non_blocking=True))
    copy_rows = timer(lambda: rows_there.copy_(rows, non_blocking=True))
    saved = rows.nbytes - codes.nbytes
    break_even = f"{saved / expand[0] / 1e6:.2f}" if saved > 0 else "-"
    return [*found, _shown(copy_codes), _shown(timer(codes_and_expand)), _shown(copy_rows), break_even]


def _shown(measured: tuple[float, float]) -> str:
    return f"{measured[0]:.4f} ± {measured[1]:.4f}"


def expanders(chain: CodecChain, codec: str, device: torch.device) -> dict[str, Expander]:
    """By the name of their line: where one kernel reads the codec, also the operations it stands for."""
    usual = Expander(chain, device, torch.bfloat16)
    if not usual.is_fused:
        return {codec: usual}
    plain = Expander(chain, device, torch.bfloat16, may_fuse=False)
    return {f"{codec}, one kernel": usual, f"{codec}, torch's operations": plain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memories", default="5", help="expanded at once; several numbers with commas between them")
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
    print(f"{heading()} · {name} · n = {options.repeats}\n")
    print(_line([*TITLES, *TRANSFERS]) + "\n" + "|---" * len(TITLES + TRANSFERS) + "|")
    for codec in CODECS:
        chain = CodecChain.from_plan(replace(memory_plan("smollm2-135m"), codec=(codec,)), book)
        for label, expander in expanders(chain, codec, clock.device).items():
            for count in map(int, options.memories.split(",")):
                packed = memories(chain, shape, count)
                start = [f"{count}", label, f"{len(packed[0].payload):,}"]
                for timed, timer in clock.timers.items():
                    print(_line([*start, timed, *cells(expander, packed, clock.device, timer)]), flush=True)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


if __name__ == "__main__":
    main()
