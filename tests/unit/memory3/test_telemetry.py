"""What leaves the process: whose words, how many traces, under which mark."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from memory3 import semconv, telemetry
from memory3.errors import InternalError, Memory3Error, UnknownBankError
from memory3.span_labels import SpanLabels
from memory3.span_redaction import RedactingExporter


def exported(error: Exception | None) -> ReadableSpan:
    """The one span that leaves when its block raises `error`, or nothing."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(RedactingExporter(kept)))
    try:
        with provider.get_tracer("test").start_as_current_span("work", attributes={"n": 1}):
            if error is not None:
                raise error
    except (ValueError, Memory3Error):
        pass
    (span,) = kept.get_finished_spans()
    return span


@pytest.mark.parametrize("kind", [ValueError, InternalError])
def test_words_of_a_library_are_left_out_even_where_we_pass_them_on(kind: type[Exception]) -> None:
    span = exported(kind("cannot parse 'a secret prompt'"))
    assert "secret" not in span.to_json()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert str(dict(span.events[0].attributes or {})["exception.type"]).endswith(kind.__name__)
    assert dict(span.attributes or {}) == {"n": 1}
    assert span.end_time is not None


def test_our_own_words_stay_without_the_stack() -> None:
    span = exported(UnknownBankError("no bank 'x'; list the banks"))
    attributes = dict(span.events[0].attributes or {})
    assert attributes["exception.message"] == "no bank 'x'; list the banks"
    assert "exception.stacktrace" not in attributes
    assert span.status.description == "UnknownBankError: no bank 'x'; list the banks"


def test_a_span_without_failure_is_the_same() -> None:
    span = exported(None)
    assert (span.name, span.events, span.status.status_code) == ("work", (), StatusCode.UNSET)


def test_a_share_of_traces_begins_here_and_those_of_callers_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = telemetry._sampler(0.25)
    assert sampler is not None
    assert "root:TraceIdRatioBased{0.25},remoteParentSampled:AlwaysOnSampler" in sampler.get_description()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    assert telemetry._sampler(0.25) is None
    assert TracerProvider(telemetry._sampler(0.25)).sampler.get_description() == "AlwaysOffSampler"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", False), ("false", False), ("no_content", False), ("true", True), (" TRUE ", True), ("SPAN_ONLY", True)],
)
def test_content_is_recorded_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    assert not telemetry.records_content()
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", value)
    assert telemetry.records_content() is expected


def test_a_process_has_a_mark_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def instance(given: str | None = None) -> object:
        return telemetry._resource("memory", given).attributes["service.instance.id"]

    assert str(instance()).rpartition("-")[2].isdigit()
    assert instance("replica-1") == "replica-1"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-7,k8s.namespace.name=a")
    assert instance() == "pod-7"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_trace_that_the_sampler_left_out_is_known(share: float) -> None:
    assert not telemetry.left_out()
    with TracerProvider(telemetry._sampler(share)).get_tracer("test").start_as_current_span("work"):
        assert telemetry.left_out() is (share == 0)


def test_a_call_outside_any_request_has_no_span() -> None:
    with telemetry.client_span("milvus", {}) as span:
        assert not span.get_span_context().is_valid


def test_a_span_says_whose_it_is_and_which_call(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SpanLabels("memory"))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    for name in ("/memory3.api.memory.v1.MemoryService/BatchGet", "tier.ram"):
        provider.get_tracer("test").start_span(name, attributes={"n": 1}).end()
    spans = kept.get_finished_spans()
    assert [span.name for span in spans] == ["MemoryService/BatchGet", "tier.ram"]
    assert [dict(span.attributes or {}) for span in spans] == [{"n": 1, semconv.ATTR_SERVICE: "memory"}] * 2


@pytest.mark.parametrize(
    ("variable", "missing"), [("OTEL_TRACES_EXPORTER", "tracer"), ("OTEL_METRICS_EXPORTER", "meter"), ("OTHER", "")]
)
def test_a_signal_that_nobody_takes_is_not_exported(
    monkeypatch: pytest.MonkeyPatch, variable: str, missing: str
) -> None:
    installed: set[str] = set()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, "none")
    monkeypatch.setattr(telemetry.trace, "set_tracer_provider", lambda _: installed.add("tracer"))
    monkeypatch.setattr(telemetry.metrics, "set_meter_provider", lambda _: installed.add("meter"))
    telemetry.start("memory", export_timeout_s=0.01)()
    assert {"tracer", "meter"} - installed == ({missing} if missing else set())
