"""How a span says that what it stands for failed."""

from __future__ import annotations

from opentelemetry.trace import Span, StatusCode

from memory3 import semconv
from memory3.errors import InternalError, Memory3Error


def tell_failure(span: Span, error: BaseException) -> None:
    """The error as an event, its reason as an attribute, and the status a trace UI colours red."""
    reason = error.reason if isinstance(error, Memory3Error) else InternalError.reason
    span.record_exception(error)
    span.set_attribute(semconv.ATTR_REASON, reason.name)
    span.set_status(StatusCode.ERROR)
