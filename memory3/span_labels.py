"""What makes a span readable in any trace UI: whose it is, and a name that fits into a tree. Knows no exporter."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor

from memory3 import semconv


class SpanLabels(SpanProcessor):
    """Labels each span as it starts."""

    def __init__(self, service_name: str) -> None:
        self._service_name = service_name

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Some UIs show no resource; and the package of a call, which rpc.service has too, hides its name in all."""
        span.set_attribute(semconv.ATTR_SERVICE, self._service_name)
        if span.name.startswith("/"):
            span.update_name(span.name.rpartition(".")[2])
