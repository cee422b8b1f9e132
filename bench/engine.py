"""The engine alone, without services: how long a first token takes and how many follow, by mode and batch size.

    python -m bench.engine                                    # the default model's shape, on the processor
    python -m bench.engine --device cuda --sequences 1 8 64
    python -m bench.engine --device cuda --config paper-2.4b  # the paper's model
    python -m bench.engine --plan a.json b.json               # memories under two plans, side by side

Weights are random, in the shape of a named config: speed does not depend on their values. Prompts are random tokens.
Arms, run one after the other in every repeat:

    none           the prompt
    rag            five references of 128 tokens as text before it
    memory         five memories, new ones for every 64 tokens; they lie on the device, nothing is recalled or expanded;
                   once for each plan

All sequences of a batch start at once. `first token` is the mean over them, `tokens/s` those of the whole batch after
everyone's first, `whole` from the start to the last token; median and interquartile range over the repeats.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from bench.machine import heading
from model.config import ModelConfig
from model.engine.engine import Engine, EngineOptions
from model.engine.events import Event, Finished, FinishReason, RecallNeeded, TokenReady
from model.engine.task import GenerationTask
from model.memory.explicit_memory import ExplicitMemory
from model.memory.writer import MemoryWriter
from model.plan import MemoryPlan
from model.plan_file import read_plan
from model.presets import model_config, model_config_names, plan_made_for
from model.runner import ModelRunner
from model.training.initial import initial_transformer

TITLES = ("sequences", "mode", "first token ms", "tokens/s", "whole ms")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_PREFIX = (0,)


@dataclass
class Sample:
    """The repeats of one arm."""

    first_ms: list[float] = field(default_factory=list)
    tokens_per_s: list[float] = field(default_factory=list)
    whole_ms: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        return [_spread(values) for values in (self.first_ms, self.tokens_per_s, self.whole_ms)]


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:,.1f}"
    low, _, high = statistics.quantiles(values, n=4)
    return f"{statistics.median(values):,.1f} ({low:,.1f}-{high:,.1f})"


class _NoText:
    """Implements Detokenizer: random tokens mean nothing."""

    def push(self, token: int) -> str:
        return ""

    def flush(self) -> str:
        return ""


class Bench:
    """One model, its memories, and the arms."""

    def __init__(self, runner: ModelRunner, memories: Sequence[ExplicitMemory], prompt: int, output: int) -> None:
        """`prompt`, `output`: tokens of a sequence."""
        self._runner, self._memories, self._prompt, self._output = runner, memories, prompt, output
        self._draw = random.Random(7)

    def run(self, arm: str, count: int) -> tuple[float, float, float]:
        """First token, tokens per second, whole time of `count` sequences at once; ms, 1/s, ms."""
        engine = Engine(self._runner, _NoText, time.monotonic_ns, EngineOptions(prefill_tokens_per_step=4096))
        self._wait()
        began = time.perf_counter()
        events = [event for number in range(count) for event in engine.add(self._task(arm, number))]
        firsts: dict[str, float] = {}
        num_tokens, after_first = 0, began
        while events or engine.has_work:
            for event in events:
                num_tokens += self._handle(engine, event, firsts)
            if len(firsts) == count and after_first == began:
                after_first, counted = time.perf_counter(), num_tokens
            events = engine.step()
        ended = time.perf_counter()
        first_ms = 1e3 * statistics.mean(moment - began for moment in firsts.values())
        return first_ms, (num_tokens - counted) / (ended - after_first), 1e3 * (ended - began)

    def _handle(self, engine: Engine, event: Event, firsts: dict[str, float]) -> int:
        """Deliver memories, or note a token; how many tokens came."""
        match event:
            case RecallNeeded():
                for span in event.spans:
                    chosen = self._draw.sample(self._memories, self._runner.plan.memories_per_chunk)
                    engine.deliver(event.sequence_id, span.span, tuple(chosen))
            case TokenReady():
                firsts.setdefault(event.sequence_id, time.perf_counter())
                return len(event.token_ids)
            case Finished(reason=FinishReason.ERROR, error=Exception() as error):
                raise error
        return 0

    def _task(self, arm: str, number: int) -> GenerationTask:
        plan = self._runner.plan
        as_text = plan.memories_per_chunk * plan.max_reference_tokens if arm == "rag" else 0
        vocabulary = range(self._runner.transformer.config.vocab_size)
        tokens = tuple(self._draw.choices(vocabulary, k=as_text + self._prompt))
        is_content = (*[False] * as_text, *[True] * self._prompt)
        return GenerationTask(str(number), tokens, is_content, self._output, reads_memories=arm == "memory")

    def _wait(self) -> None:
        if self._runner.transformer.device.type == "cuda":
            torch.cuda.synchronize()


def prepare(config: ModelConfig, plan: MemoryPlan, options: argparse.Namespace) -> Bench:
    """A model on the device and the memories of random references."""
    if plan.token_scorer:  # of other weights than these random ones
        plan = replace(plan, selection="reconstruction", token_scorer="")
    transformer = initial_transformer(config, 0, options.device, DTYPES[options.dtype])
    longest = plan.memories_per_chunk * plan.max_reference_tokens + options.prompt + options.output
    runner = ModelRunner(
        transformer,
        plan,
        prefix_tokens=_PREFIX,
        num_slots=max(options.sequences),
        max_context_tokens=-(-longest // plan.query_chunk_tokens) * plan.query_chunk_tokens,
    )
    draw = random.Random(1)
    references = [draw.choices(range(config.vocab_size), k=plan.max_reference_tokens) for _ in range(options.memories)]
    ids = [f"{number:032x}" for number in range(len(references))]
    memories = MemoryWriter(transformer, plan, runner.prefix).write(references, ids)
    return Bench(runner, memories, options.prompt, options.output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="smollm2-135m", choices=model_config_names())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=sorted(DTYPES))
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8], help="at once, in each batch")
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--output", type=int, default=128, help="tokens")
    parser.add_argument("--memories", type=int, default=40, help="to draw from")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plan", nargs="+", default=[], help="presets or JSON files; else the one made for the config")
    options = parser.parse_args()
    config = model_config(options.config)
    plans = {name: read_plan(name) for name in options.plan} or {"memory": plan_made_for(config)}
    benches = {name: prepare(config, plan, options) for name, plan in plans.items()}
    first, *_ = benches.values()
    arms = {"none": (first, "none"), "rag": (first, "rag")} | {name: (one, "memory") for name, one in benches.items()}
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu"
    print(
        f"{heading()} · {where} · {options.dtype} · {options.config} · prompt {options.prompt}, "
        f"output {options.output} tokens · n = {options.repeats}\n"
    )
    print("| " + " | ".join(TITLES) + " |\n" + "|---" * len(TITLES) + "|")
    for count in options.sequences:
        samples = {name: Sample() for name in arms}
        for repeat in range(options.repeats + 1):
            for name, sample in samples.items():
                bench, arm = arms[name]
                first_ms, tokens_per_s, whole_ms = bench.run(arm, count)
                # The first time warms up.
                if repeat:
                    sample.first_ms.append(first_ms)
                    sample.tokens_per_s.append(tokens_per_s)
                    sample.whole_ms.append(whole_ms)
        for name, sample in samples.items():
            print("| " + " | ".join([str(count), name, *sample.cells()]) + " |", flush=True)


if __name__ == "__main__":
    main()
