"""What dashboards and alerts of deploy/observability ask Prometheus for: expressions, and the series in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "observability"


@dataclass(frozen=True)
class Selector:
    """One series selector: its name, what its labels must be, and by which labels what is made of it is grouped."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    """(label, operator, value)"""
    grouped_by: tuple[str, ...]


def dashboards() -> dict[str, dict[str, Any]]:
    """By file name."""
    return {path.name: json.loads(path.read_text()) for path in sorted((FOLDER / "grafana/dashboards").glob("*.json"))}


def alerts() -> list[dict[str, Any]]:
    """The alert rules, in order."""
    groups = yaml.safe_load((FOLDER / "prometheus/alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of every panel and alert; Grafana's variables have a value."""
    for file, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                yield f"{file}: {panel['title']} {target['refId']}", target["expr"].replace("$__rate_interval", "5m")
    for alert in alerts():
        yield alert["alert"], alert["expr"]


def selectors(expression: str) -> list[Selector]:
    """Every selector of an expression. Raises ValueError where it is no PromQL."""
    return list(_selectors(promql_parser.parse(expression), ()))


def _selectors(node: Any, grouped_by: tuple[str, ...]) -> Iterator[Selector]:
    match node:
        case promql_parser.VectorSelector():
            matchers = tuple((m.name, _operator(m.op), m.value) for m in node.matchers.matchers)
            yield Selector(node.name or "", matchers, grouped_by)
        case promql_parser.MatrixSelector():
            yield from _selectors(node.vector_selector, grouped_by)
        case promql_parser.AggregateExpr():
            labels = tuple(node.modifier.labels) if node.modifier is not None else ()
            yield from _selectors(node.expr, grouped_by + labels)
        case promql_parser.BinaryExpr():
            yield from _selectors(node.lhs, grouped_by)
            yield from _selectors(node.rhs, grouped_by)
        case promql_parser.Call():
            for argument in node.args:
                yield from _selectors(argument, grouped_by)
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr() | promql_parser.SubqueryExpr():
            yield from _selectors(node.expr, grouped_by)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            return
        case _:
            raise ValueError(f"{type(node).__name__} is not known here: what is in it would go unseen")


def _operator(op: object) -> str:
    return {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}[re.split(r"[.:]", str(op))[-1]]
