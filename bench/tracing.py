"""What tracing costs: the same requests to decoders that trace none, a tenth, or all of them, in one run.

    python -m bench.tracing [--repeats 30] [--model package]

Three decoders run side by side on one retrieval and one memory service; every repeat sends one request to each, in an
order that rotates, so that a noisy neighbour hits all. The traced ones export over OTLP to a receiver in this process,
on the same cores: receiving is in the figures, as with a collector on the same machine. The tiny random model makes the
share of tracing as large as it can be; with the real one a step takes far longer and the same spans weigh less.
Retrieval and memory trace what is asked of them within a traced request. CPU is that of the decoder's process alone,
which others on the machine do not change.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.machine import heading
from memory3.decoder import DecoderClient
from memory3.types import GenerationRequest, Mode
from tests.helpers.decoder_stack import BANK, decoder_stack, index, write
from tests.helpers.otlp_receiver import otlp_receiver
from tests.helpers.processes import ServiceProcess

ARMS = {"off": "", "a tenth": "parentbased_traceidratio", "all": "parentbased_always_on"}
"""Name of an arm and its OTEL_TRACES_SAMPLER; "off" has no endpoint and exports no metrics either."""
TOKENS = 64


@dataclass
class Sample:
    """What was measured of one arm."""

    ttft_ms: list[float] = field(default_factory=list)
    tokens_s: list[float] = field(default_factory=list)
    cpu_ms: float = 0.0
    """Of the decoder, a request."""


def spread(values: list[float]) -> str:
    """median [lower quartile-upper quartile]"""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.1f} [{low:.1f}-{high:.1f}]"


def cpu_s(process: ServiceProcess) -> float:
    """CPU time the process has used, all its threads."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ask(client: DecoderClient, sample: Sample | None) -> None:
    """One request with memories, alone."""
    request = GenerationRequest(
        mode=Mode.MEMORY,
        prompt="Which town lies by the sea and is known for its clocks, its eels or its goats?",
        bank=BANK,
        max_tokens=TOKENS,
        recall_deadline_ms=30_000,
    )
    began = time.perf_counter()
    final = (await client.generate_once(request)).final
    if sample is not None:
        sample.ttft_ms.append(final.timing.ttft_ns / 1e6)
        sample.tokens_s.append(final.usage.num_output_tokens / (time.perf_counter() - began))


async def measure(folder: Path, repeats: int, model: str) -> tuple[dict[str, Sample], int]:
    """Samples by arm, and spans received."""
    samples = {arm: Sample() for arm in ARMS}
    chosen = {} if model == "tiny" else {"MEMORY3_DECODER_MODEL": model, "MEMORY3_DECODER_PLAN": "smollm2-135m"}
    with otlp_receiver() as receiver, contextlib.ExitStack() as started:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_TRACES_SAMPLER": "parentbased_always_off"}
        # These two follow the decoder that asks.
        stack = started.enter_context(
            decoder_stack(folder, "local", memory_env=endpoint, retrieval_env=endpoint, decoder_env=chosen)
        )
        await index(stack)
        await write(stack)
        decoders = {"off": stack.decoder}
        for arm in list(ARMS)[1:]:
            environment = {**stack.decoder_env, **endpoint, "OTEL_TRACES_SAMPLER": ARMS[arm]}
            environment["OTEL_TRACES_SAMPLER_ARG"] = "0.1"
            decoders[arm] = ServiceProcess("services.decoder", environment, folder / f"{arm.replace(' ', '-')}.log")
            started.callback(decoders[arm].stop)
            decoders[arm].start(timeout_s=240)
        clients = {arm: DecoderClient(decoder.address) for arm, decoder in decoders.items()}
        for client in clients.values():
            for _ in range(3):  # fills the worker's cache
                await ask(client, None)
        before = {arm: cpu_s(decoder) for arm, decoder in decoders.items()}
        arms = list(ARMS)
        for repeat in range(repeats):
            for arm in arms[repeat % 3 :] + arms[: repeat % 3]:
                await ask(clients[arm], samples[arm])
        for arm, decoder in decoders.items():
            samples[arm].cpu_ms = (cpu_s(decoder) - before[arm]) * 1000 / repeats
            await clients[arm].close()
        return samples, len(receiver.spans())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30, help="requests to each decoder")
    parser.add_argument("--model", default="tiny", help='"tiny", "package" (the real weights), or a model directory')
    arguments = parser.parse_args()
    print(heading())
    with tempfile.TemporaryDirectory() as folder:
        samples, num_spans = asyncio.run(measure(Path(folder), arguments.repeats, arguments.model))
    print(f"model {arguments.model}, n = {arguments.repeats} requests of {TOKENS} tokens, alone; {num_spans} spans")
    print("\n| traced | TTFT ms | tokens/s | decoder's CPU, ms a request |\n| --- | --- | --- | --- |")
    for arm, sample in samples.items():
        print(f"| {arm} | {spread(sample.ttft_ms)} | {spread(sample.tokens_s)} | {sample.cpu_ms:.0f} |")


if __name__ == "__main__":
    main()
