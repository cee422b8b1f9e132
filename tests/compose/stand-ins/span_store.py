"""Stands in for Jaeger, in the memory image: OTLP on 4317; GET /trace/ID and /senders on 16686, as JSON."""

import json
import threading
from collections import defaultdict
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

spans: dict[str, list[dict[str, str]]] = defaultdict(list)
senders: dict[str, int] = defaultdict(int)
lock = threading.Lock()


def service(resource: object) -> str:
    """The service.name of a resource."""
    return next((pair.value.string_value for pair in resource.attributes if pair.key == "service.name"), "")


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        with lock:
            for sent in request.resource_spans:
                for span in (span for scope in sent.scope_spans for span in scope.spans):
                    ids = {"id": span.span_id.hex(), "parent": span.parent_span_id.hex()}
                    spans[span.trace_id.hex()].append({"service": service(sent.resource), "name": span.name, **ids})
        return trace_service_pb2.ExportTraceServiceResponse()


class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        with lock:
            for sent in request.resource_metrics:
                senders[service(sent.resource)] += sum(len(scope.metrics) for scope in sent.scope_metrics)
        return metrics_service_pb2.ExportMetricsServiceResponse()


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        with lock:
            what = senders if self.path == "/senders" else spans.get(self.path.removeprefix("/trace/"), [])
            body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Quiet."""


server = grpc.server(futures.ThreadPoolExecutor(4))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
server.add_insecure_port("0.0.0.0:4317")
server.start()
ThreadingHTTPServer(("0.0.0.0", 16686), Page).serve_forever()
