"""Keeps texts of others out of exported spans: of an exception its type is told, its words only if they are ours.

A message of memory3.errors names values, limits and remedies and quotes no prompt; what a library raises may quote
anything, and so may an InternalError, which passes such words on; a stack trace ends with the message. Knows no
exporter and no setting.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

_OURS = "memory3.errors."
_WRAPS_OTHERS = "memory3.errors.InternalError"
_TYPE, _MESSAGE, _STACKTRACE = "exception.type", "exception.message", "exception.stacktrace"


class RedactingExporter(SpanExporter):
    """Another exporter that gets redacted spans."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._inner.export([redacted(span) for span in spans])

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


def redacted(span: ReadableSpan) -> ReadableSpan:
    """The span without others' words; itself, if there are none in it."""
    if not span.events and not span.status.description:
        return span
    is_ours = bool(span.events) and all(_is_ours((event.attributes or {}).get(_TYPE)) for event in span.events)
    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=[_redacted_event(event) for event in span.events],
        links=span.links,
        kind=span.kind,
        # The SDK writes "type: message" here for an exception that leaves the span.
        status=span.status if is_ours else Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _redacted_event(event: Event) -> Event:
    attributes = dict(event.attributes or {})
    attributes.pop(_STACKTRACE, None)
    if not _is_ours(attributes.get(_TYPE)):
        attributes.pop(_MESSAGE, None)
    return Event(event.name, attributes, event.timestamp)


def _is_ours(exception_type: object) -> bool:
    return str(exception_type).startswith(_OURS) and exception_type != _WRAPS_OTHERS
