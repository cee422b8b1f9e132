"""A real OTLP/gRPC receiver that keeps what arrives: spans and metrics of any number of processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class ReceivedSpan:
    """One exported span; ids as hex, times in nanoseconds since the epoch."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, object]
    kind: str
    """internal, server, client, ..."""
    events: tuple[dict[str, object], ...]
    """Attributes of each event."""
    status_message: str


@dataclass(frozen=True)
class ReceivedPoint:
    """One data point of one metric as it was exported once."""

    service: str
    instance: str
    name: str
    unit: str
    kind: str
    """gauge, counter, updown or histogram."""
    attributes: dict[str, object]
    exemplars: tuple[tuple[str, str], ...]
    """Trace id and span id of each exemplar, hex."""
    bounds: tuple[float, ...]
    """Of a histogram's buckets."""


def _attributes(pairs: list[KeyValue]) -> dict[str, object]:
    values: dict[str, object] = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        values[pair.key] = getattr(pair.value, kind) if kind else None
    return values


@dataclass
class OtlpReceiver:
    """What has arrived so far; `endpoint` is what OTEL_EXPORTER_OTLP_ENDPOINT should be."""

    endpoint: str = ""
    _spans: list[ReceivedSpan] = field(default_factory=list)
    _points: list[ReceivedPoint] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def spans(self, trace_id: str | None = None) -> list[ReceivedSpan]:
        """The spans so far, of one trace if given."""
        with self._changed:
            return [span for span in self._spans if trace_id is None or span.trace_id == trace_id]

    def metrics(self, service: str) -> set[str]:
        """Names of the metrics a service has sent."""
        return {point.name for point in self.points() if point.service == service}

    def points(self, name: str | None = None) -> list[ReceivedPoint]:
        """All data points so far, of one metric if given."""
        with self._changed:
            return [point for point in self._points if name is None or point.name == name]

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until the condition holds, looking again whenever something arrives."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            with self._changed:
                if not self._changed.wait(timeout=max(0.0, min(1.0, deadline - time.monotonic()))) and (
                    time.monotonic() >= deadline
                ):
                    return condition()
        return True

    def edges(self, trace_id: str) -> set[tuple[str, str, str, str]]:
        """(parent service, parent span, child service, child span) of one trace, gRPC's own spans left out.

        The client and server spans of gRPC's instrumentation sit between ours; an edge skips over them.
        """
        spans = {span.span_id: span for span in self.spans(trace_id)}
        found = set()
        for span in spans.values():
            if is_rpc(span):
                continue
            parent = spans.get(span.parent_id)
            while parent is not None and is_rpc(parent):
                parent = spans.get(parent.parent_id)
            if parent is not None:
                found.add((parent.service, parent.name, span.service, span.name))
        return found

    def _add_traces(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        with self._changed:
            for resource in request.resource_spans:
                service = str(_attributes(list(resource.resource.attributes)).get("service.name", ""))
                for scope in resource.scope_spans:
                    self._spans += [
                        ReceivedSpan(
                            service=service,
                            name=span.name,
                            trace_id=span.trace_id.hex(),
                            span_id=span.span_id.hex(),
                            parent_id=span.parent_span_id.hex(),
                            start_ns=span.start_time_unix_nano,
                            end_ns=span.end_time_unix_nano,
                            attributes=_attributes(list(span.attributes)),
                            kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                            events=tuple(_attributes(list(event.attributes)) for event in span.events),
                            status_message=span.status.message,
                        )
                        for span in scope.spans
                    ]
            self._changed.notify_all()

    def _add_metrics(self, request: metrics_service_pb2.ExportMetricsServiceRequest) -> None:
        with self._changed:
            for resource in request.resource_metrics:
                sender = _attributes(list(resource.resource.attributes))
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        self._points += _points(sender, metric)
            self._changed.notify_all()


def _points(sender: dict[str, object], metric: Metric) -> list[ReceivedPoint]:
    what = metric.WhichOneof("data")
    kind = ("counter" if metric.sum.is_monotonic else "updown") if what == "sum" else str(what)
    return [
        ReceivedPoint(
            service=str(sender.get("service.name", "")),
            instance=str(sender.get("service.instance.id", "")),
            name=metric.name,
            unit=metric.unit,
            kind=kind,
            attributes=_attributes(list(point.attributes)),
            exemplars=tuple((exemplar.trace_id.hex(), exemplar.span_id.hex()) for exemplar in point.exemplars),
            bounds=tuple(point.explicit_bounds) if what == "histogram" else (),
        )
        for point in getattr(metric, str(what)).data_points
    ]


def is_rpc(span: ReceivedSpan) -> bool:
    """Whether gRPC's instrumentation made this span."""
    return "rpc.system" in span.attributes or span.name.startswith("/")


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self._receiver._add_traces(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(
        self, request: metrics_service_pb2.ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        self._receiver._add_metrics(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """A receiver on a free port of the loopback."""
    receiver = OtlpReceiver()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(receiver), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(receiver), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    receiver.endpoint = f"http://127.0.0.1:{port}"
    try:
        yield receiver
    finally:
        server.stop(grace=None).wait()
