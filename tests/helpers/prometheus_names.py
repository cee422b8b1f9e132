"""How an OpenTelemetry metric is called in Prometheus, as the collector translates it (docs/telemetry.md has the rule).

The collector's strategy is UnderscoreEscapingWithSuffixes: words joined by underscores, then the unit, then what the
kind adds. Only the units that we use are known here; another one is an error, not a guess.
"""

from __future__ import annotations

import re

from tests.helpers.otlp_receiver import ReceivedPoint

_UNITS = {"s": "seconds", "By": "bytes", "1": ""}
_HISTOGRAM = ("_bucket", "_count", "_sum")


def base_name(name: str, unit: str, kind: str) -> str:
    """The name without a histogram's suffixes. Raises KeyError for a unit that is not known here."""
    words = re.findall(r"[a-zA-Z0-9:]+", name)
    suffix = "" if re.fullmatch(r"\{.*\}", unit) else _UNITS[unit]
    if suffix and suffix not in words:
        words.append(suffix)
    if kind == "counter":
        words = [*(word for word in words if word != "total"), "total"]
    if kind == "gauge" and unit == "1":
        words = [*(word for word in words if word != "ratio"), "ratio"]
    return "_".join(words)


def series_names(point: ReceivedPoint) -> set[str]:
    """Names of the series that a data point becomes."""
    name = base_name(point.name, point.unit, point.kind)
    return {name + suffix for suffix in _HISTOGRAM} if point.kind == "histogram" else {name}


def label_name(attribute: str) -> str:
    """memory3.mode -> memory3_mode"""
    return re.sub(r"[^a-zA-Z0-9_]", "_", attribute)
