"""OpenTelemetry for every process of ours, client or service.

Without OTEL_EXPORTER_OTLP_ENDPOINT nothing is exported and spans cost next to nothing. The standard
OTEL_* variables hold. Names live in memory3/semconv.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

SCOPE = "memory3"
"""Instrumentation scope of all our spans and metrics."""

tracer = trace.get_tracer(SCOPE)
"""The one tracer; resolves to the real provider once `start` has run."""

meter = metrics.get_meter(SCOPE)
"""The one meter, likewise."""


def enabled() -> bool:
    """Whether an OTLP endpoint is configured in the environment."""
    return bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))


def start(
    service_name: str, instance: str | None = None, *, export_timeout_s: float | None = None
) -> Callable[[], None]:
    """Install the providers for this process; returns the function that flushes and stops them.

    Call once, before the first span. Does nothing when no endpoint is configured: the API's no-op providers stay, and
    trace context from callers is still passed on. `export_timeout_s`: how long one export may take, and so about how
    long the flush may hold up the end of the process, seconds; OTEL_EXPORTER_OTLP_TIMEOUT goes before it.
    """
    if not enabled():
        return lambda: None
    attributes = {"service.name": service_name, "service.namespace": SCOPE}
    if instance is not None:
        attributes["service.instance.id"] = instance
    resource = Resource.create(attributes)
    tracer_provider = TracerProvider(resource=resource)
    timeout = None if "OTEL_EXPORTER_OTLP_TIMEOUT" in os.environ else export_timeout_s
    tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=timeout)))
    trace.set_tracer_provider(tracer_provider)
    meter_provider = MeterProvider(
        resource=resource, metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter(timeout=timeout))]
    )
    metrics.set_meter_provider(meter_provider)

    def stop() -> None:
        tracer_provider.shutdown()
        meter_provider.shutdown()

    return stop


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


class attached:  # noqa: N801 - reads as a statement: `with attached(carrier):`
    """Make an extracted trace context current inside a with block."""

    def __init__(self, carrier: Mapping[str, str]) -> None:
        self._context = extract(carrier)

    def __enter__(self) -> None:
        self._token = context.attach(self._context)

    def __exit__(self, *_: object) -> None:
        context.detach(self._token)
