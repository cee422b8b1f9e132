"""OpenTelemetry for every process of ours, client or service.

Without OTEL_EXPORTER_OTLP_ENDPOINT nothing is exported and spans cost next to nothing. The standard
OTEL_* variables hold. Names live in memory3/semconv.py.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio, Sampler
from opentelemetry.util.types import AnyValue

from memory3.span_labels import SpanLabels
from memory3.span_redaction import RedactingExporter

SCOPE = "memory3"
"""Instrumentation scope of all our spans and metrics."""

TRACED_SHARE = 0.1
"""Of the requests that come without a trace, the share for which a server begins one; OTEL_TRACES_SAMPLER says else."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30, 60)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Bounds of the buckets of a histogram, inclusive. OpenTelemetry's own suit milliseconds: all we measure in seconds
would lie in the first."""

tracer = trace.get_tracer(SCOPE)
"""The one tracer; resolves to the real provider once `start` has run."""

meter = metrics.get_meter(SCOPE)
"""The one meter, likewise."""


def enabled() -> bool:
    """Whether an OTLP endpoint is configured in the environment."""
    return bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))


def records_content() -> bool:
    """Whether prompts and texts may stand in spans: not unless the environment says so, by OpenTelemetry's name."""
    value = os.environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "")
    return value.strip().lower() in ("true", "span_only", "span_and_event")


def start(
    service_name: str,
    instance: str | None = None,
    *,
    export_timeout_s: float | None = None,
    traced_share: float = TRACED_SHARE,
) -> Callable[[], None]:
    """Install the providers for this process; returns the function that flushes and stops them.

    Call once, before the first span. Does nothing when no endpoint is configured: the API's no-op providers stay, and
    trace context from callers is still passed on. `instance` tells this process from others of its service, host and
    process id by default. `export_timeout_s`: how long one export may take, and so about how long the flush may hold
    up the end of the process, seconds; OTEL_EXPORTER_OTLP_TIMEOUT goes before it. `traced_share`: see TRACED_SHARE.
    """
    if not enabled():
        return lambda: None
    resource = _resource(service_name, instance)
    timeout = None if "OTEL_EXPORTER_OTLP_TIMEOUT" in os.environ else export_timeout_s
    providers: list[TracerProvider | MeterProvider] = []
    if _wanted("OTEL_TRACES_EXPORTER"):
        tracer_provider = TracerProvider(_sampler(traced_share), resource)
        exporter = OTLPSpanExporter(timeout=timeout)
        tracer_provider.add_span_processor(SpanLabels(service_name))
        tracer_provider.add_span_processor(
            BatchSpanProcessor(exporter if records_content() else RedactingExporter(exporter))
        )
        trace.set_tracer_provider(tracer_provider)
        providers.append(tracer_provider)
    if _wanted("OTEL_METRICS_EXPORTER"):
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(timeout=timeout))
        meter_provider = MeterProvider(resource=resource, metric_readers=[reader])
        metrics.set_meter_provider(meter_provider)
        providers.append(meter_provider)

    def stop() -> None:
        for provider in providers:
            provider.shutdown()

    return stop


def _wanted(variable: str) -> bool:
    """Whether this signal is exported: a receiver of traces only (Phoenix, Jaeger) refuses metrics at every export."""
    return os.environ.get(variable, "").strip().lower() != "none"


def _resource(service_name: str, instance: str | None) -> Resource:
    """What all this process sends is marked with. Two processes of one mark would overwrite each other's metrics."""
    attributes = {"service.name": service_name, "service.namespace": SCOPE}
    if instance is not None:
        attributes["service.instance.id"] = instance
    resource = Resource.create(attributes)
    # The SDK draws a random id; one that tells where to look is of more use.
    if instance is None and "service.instance.id=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        resource = resource.merge(Resource({"service.instance.id": f"{socket.gethostname()}-{os.getpid()}"}))
    return resource


def _sampler(traced_share: float) -> Sampler | None:
    """Ours, unless the environment names one, which the SDK then makes."""
    return None if os.environ.get("OTEL_TRACES_SAMPLER") else ParentBasedTraceIdRatio(traced_share)


def histogram(metric: tuple[str, str, str]) -> metrics.Histogram:
    """The histogram of a name, unit and meaning of semconv, with buckets that suit its unit: seconds or counts."""
    bounds = _SECONDS if metric[1] == "s" else _COUNTS
    return meter.create_histogram(*metric, explicit_bucket_boundaries_advisory=bounds)


@contextlib.contextmanager
def client_span(name: str, attributes: Mapping[str, AnyValue]) -> Iterator[trace.Span]:
    """A span, under the current one, of a call to a system that is not ours.

    Without a current one there is none either: probes are repeated for ever and belong to no request.
    """
    if not trace.get_current_span().get_span_context().is_valid:
        yield trace.INVALID_SPAN
        return
    with tracer.start_as_current_span(name, kind=trace.SpanKind.CLIENT, attributes=dict(attributes)) as span:
        yield span


def inject() -> dict[str, str]:
    """The current trace context as W3C headers, to be carried where gRPC does not (through Ray, in a queue)."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def extract(carrier: Mapping[str, str]) -> Context:
    """The trace context that `inject` wrote; use as `context=` of a span, or with `attached`."""
    return propagate.extract(carrier)


def current_trace_id() -> str:
    """Trace id of the current span, 32 hex digits; empty when there is none."""
    span_context = trace.get_current_span().get_span_context()
    return format(span_context.trace_id, "032x") if span_context.is_valid else ""


def left_out() -> bool:
    """Whether the sampler left the current trace out, so that nobody will ever see it."""
    span_context = trace.get_current_span().get_span_context()
    return span_context.is_valid and not span_context.trace_flags.sampled


class attached:  # noqa: N801 - reads as a statement: `with attached(carrier):`
    """Make an extracted trace context current inside a with block."""

    def __init__(self, carrier: Mapping[str, str]) -> None:
        self._context = extract(carrier)

    def __enter__(self) -> None:
        self._token = context.attach(self._context)

    def __exit__(self, *_: object) -> None:
        context.detach(self._token)
