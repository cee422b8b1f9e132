"""One trace from the command line to the attention: real processes, real Ray, a real OTLP receiver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory3 import semconv as names
from tests.helpers.otlp_receiver import OtlpReceiver, is_rpc, otlp_receiver
from tests.helpers.processes import ROOT, ServiceProcess
from tests.helpers.tiny_model import tiny_model_directory, tiny_plan

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(240)]

CLIENT, FRONT, WORKER = names.SERVICE_CLIENT, names.SERVICE_DECODER, names.SERVICE_WORKER
RETRIEVAL, MEMORY, INGEST = names.SERVICE_RETRIEVAL, names.SERVICE_MEMORY, names.SERVICE_INGEST

GENERATE_EDGES = {
    (CLIENT, names.SPAN_GENERATE, FRONT, names.SPAN_GENERATE),
    (FRONT, names.SPAN_GENERATE, WORKER, names.SPAN_GENERATE),
    (WORKER, names.SPAN_GENERATE, WORKER, names.SPAN_QUEUE),
    (WORKER, names.SPAN_GENERATE, WORKER, names.SPAN_RECALL),
    (WORKER, names.SPAN_RECALL, WORKER, names.SPAN_RETRIEVE),
    (WORKER, names.SPAN_RETRIEVE, RETRIEVAL, names.SPAN_EMBED),
    (WORKER, names.SPAN_RETRIEVE, RETRIEVAL, names.SPAN_SEARCH),
    (WORKER, names.SPAN_RECALL, WORKER, names.SPAN_FETCH),
    (WORKER, names.SPAN_FETCH, MEMORY, names.SPAN_TIER_RAM),
    (WORKER, names.SPAN_FETCH, MEMORY, names.SPAN_TIER_OBJECT),
    (WORKER, names.SPAN_RECALL, WORKER, names.SPAN_LOAD),
    (WORKER, names.SPAN_GENERATE, WORKER, names.SPAN_PREFILL),
    (WORKER, names.SPAN_GENERATE, WORKER, names.SPAN_DECODE),
}

METRICS = {
    FRONT: {names.METRIC_TTFT, names.METRIC_TPOT, names.METRIC_REQUEST},
    WORKER: {names.METRIC_RECALL, names.METRIC_MEMORIES, names.METRIC_TOKENS, names.METRIC_WORKER_BATCH},
    RETRIEVAL: {names.METRIC_EMBED_BATCH, names.METRIC_SEARCH},
    MEMORY: {names.METRIC_FETCH, names.METRIC_PUT, names.METRIC_RAM_BYTES},
}


class System:
    """The three tiers and what they export."""

    def __init__(self, folder: Path, receiver: OtlpReceiver) -> None:
        self.receiver = receiver
        self.environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        model = tiny_model_directory(folder / "model")
        plan = folder / "plan.json"
        plan.write_text(tiny_plan().to_json())
        self.retrieval = ServiceProcess(
            "services.retrieval",
            {
                **self.environment,
                "MEMORY3_RETRIEVAL_PORT": "0",
                "MEMORY3_RETRIEVAL_EMBEDDER": "hash",
                "MEMORY3_RETRIEVAL_INDEX": "local",
            },
            folder / "retrieval.log",
        )
        # Without RAM in the memory tier the second recall of a test would not reach the object store.
        self.memory = ServiceProcess(
            "services.memory",
            {
                **self.environment,
                "MEMORY3_MEMORY_PORT": "0",
                "MEMORY3_MEMORY_STORE_URI": str(folder / "memories"),
                "MEMORY3_MEMORY_RAM_BYTES": "0",
            },
            folder / "memory.log",
        )
        self._decoder_env = {
            **self.environment,
            "MEMORY3_DECODER_PORT": "0",
            "MEMORY3_DECODER_BACKEND": "ray",
            "MEMORY3_DECODER_MODEL": str(model),
            "MEMORY3_DECODER_PLAN": str(plan),
            "MEMORY3_DECODER_CACHE_BYTES": "0",
        }
        self._folder = folder
        self.decoder: ServiceProcess | None = None
        self._model = model

    def start(self) -> None:
        self.retrieval.start()
        self.memory.start()
        self._decoder_env["MEMORY3_DECODER_RETRIEVAL_ADDRESS"] = self.retrieval.address
        self._decoder_env["MEMORY3_DECODER_MEMORY_ADDRESS"] = self.memory.address
        self.decoder = ServiceProcess("services.decoder", self._decoder_env, self._folder / "decoder.log")
        self.decoder.start(timeout_s=120)

    def stop(self) -> None:
        for process in (self.decoder, self.memory, self.retrieval):
            if process is not None:
                process.stop()

    def run(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        assert self.decoder is not None
        environment = {
            **os.environ,
            **self.environment,
            # A command line traces each request, a job only some of its documents.
            **({"OTEL_TRACES_SAMPLER": "always_on"} if module == "services.ingest" else {}),
            "MEMORY3_RETRIEVAL": self.retrieval.address,
            "MEMORY3_MEMORY": self.memory.address,
            "MEMORY3_DECODER": self.decoder.address,
            "MEMORY3_INGEST_DATA_DIR": str(self._folder / "ingest"),
            "MEMORY3_INGEST_TOKENIZER": str(self._model),
        }
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            check=False,
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("traces")
    with otlp_receiver() as receiver:
        running = System(folder, receiver)
        try:
            running.start()
            texts = folder / "texts"
            texts.mkdir()
            for number, text in enumerate(("the cat sat on the mat", "a dog ran in the park", "the sun is a star")):
                (texts / f"{number}.txt").write_text(text)
            running.run("services.ingest", str(texts), "--bank", "demo", "--memories", "warm", "--json")
            yield running
        finally:
            running.stop()


def _generate(system: System, *arguments: str) -> str:
    """Run one generation; returns its trace id."""
    done = system.run(
        "memory3.cli",
        "generate",
        "where did the cat sit?",
        "--bank",
        "demo",
        "--mode",
        "memory",
        "--max-tokens",
        "8",
        "--json",
        *arguments,
    )
    final = json.loads(done.stdout.strip().splitlines()[-1])
    return str(final.get("trace_id") or final["final"]["trace_id"])


def test_one_trace_spans_all_tiers(system: System) -> None:
    trace_id = _generate(system)
    missing = lambda: GENERATE_EDGES - system.receiver.edges(trace_id)  # noqa: E731
    system.receiver.wait(lambda: not missing(), timeout_s=20)
    assert missing() == set()


def test_every_span_of_a_trace_has_its_parent(system: System) -> None:
    trace_id = _generate(system)
    system.receiver.wait(lambda: not GENERATE_EDGES - system.receiver.edges(trace_id), timeout_s=20)
    system.receiver.wait(lambda: _orphans(system, trace_id) == [], timeout_s=10)
    assert _orphans(system, trace_id) == []


def _orphans(system: System, trace_id: str) -> list[tuple[str, str]]:
    spans = system.receiver.spans(trace_id)
    known = {span.span_id for span in spans}
    return [(span.service, span.name) for span in spans if span.parent_id and span.parent_id not in known]


def test_a_span_lies_inside_its_parent(system: System) -> None:
    trace_id = _generate(system)
    system.receiver.wait(lambda: not GENERATE_EDGES - system.receiver.edges(trace_id), timeout_s=20)
    spans = {span.span_id: span for span in system.receiver.spans(trace_id)}
    own = [span for span in spans.values() if not is_rpc(span) and span.parent_id in spans and span.service == WORKER]
    late = [s.name for s in own if spans[s.parent_id].service == WORKER and s.start_ns < spans[s.parent_id].start_ns]
    assert own
    assert late == []


def test_no_text_is_in_a_span(system: System) -> None:
    trace_id = _generate(system)
    system.receiver.wait(lambda: not GENERATE_EDGES - system.receiver.edges(trace_id), timeout_s=20)
    values = [str(value) for span in system.receiver.spans(trace_id) for value in span.attributes.values()]
    assert [value for value in values if "cat" in value] == []


def test_writing_is_one_trace_too(system: System) -> None:
    """A Write call carries references of several documents, so its trace begins with the call, not a document."""

    def services_of_writes() -> list[set[str]]:
        spans = system.receiver.spans()
        writes = {span.trace_id for span in spans if (span.service, span.name) == (WORKER, names.SPAN_WRITE)}
        return [{span.service for span in spans if span.trace_id == trace_id} for trace_id in writes]

    wanted = {INGEST, FRONT, WORKER, MEMORY}
    system.receiver.wait(lambda: any(wanted <= services for services in services_of_writes()), timeout_s=20)
    assert any(wanted <= services for services in services_of_writes())


@pytest.mark.parametrize("service", sorted(METRICS))
def test_each_service_sends_its_metrics(system: System, service: str) -> None:
    _generate(system)
    wanted = {metric[0] for metric in METRICS[service]}
    system.receiver.wait(lambda: wanted <= system.receiver.metrics(service), timeout_s=20)
    assert wanted - system.receiver.metrics(service) == set()


def test_the_waterfall_is_printed(system: System) -> None:
    done = system.run(
        "memory3.cli", "generate", "the cat", "--bank", "demo", "--mode", "memory", "--max-tokens", "4", "--trace"
    )
    for name in (names.SPAN_RECALL, names.SPAN_RETRIEVE, names.SPAN_FETCH, names.SPAN_PREFILL, names.SPAN_DECODE):
        assert name in done.stdout
