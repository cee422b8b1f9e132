"""Dashboards, alerts and runbook: sound files, about metrics that running tiers really export."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from itertools import combinations
from typing import Any

import pytest
import yaml

from memory3.errors import TABLE, Fault
from tests.helpers.observed_tiers import Observed
from tests.helpers.prometheus_names import base_name, label_name, series_names
from tests.helpers.promql import FOLDER, Selector, alerts, dashboards, expressions, selectors
from tests.helpers.tree import ROOT, python_files

RUNBOOK = (ROOT / "docs" / "operations.md").read_text()
NOT_OURS = {"up": {"job", "instance"}, "target_info": {"job", "instance"}}
"""Series that Prometheus and the collector make themselves, and their labels."""
SERVICES = ("retrieval", "memory", "decoder", "decoder-worker", "ingest")
JOBS = {f"memory3/{service}" for service in SERVICES} | {"memory3", "otel-collector"}
PANELS = [(file, panel) for file, board in dashboards().items() for panel in board["panels"] if panel["type"] != "row"]


def panel_ids() -> list[str]:
    return [f"{file}-{panel['id']}" for file, panel in PANELS]


@pytest.mark.parametrize("where", [where for where, _ in expressions()])
def test_every_expression_is_promql_about_named_series(where: str) -> None:
    found = selectors(dict(expressions())[where])
    assert found
    assert all(selector.name for selector in found)


@pytest.mark.parametrize("file", dashboards())
def test_a_dashboard_is_whole(file: str) -> None:
    board = dashboards()[file]
    assert [variable["type"] for variable in board["templating"]["list"]] == ["datasource"]
    assert board["templating"]["list"][0]["name"] == "datasource"
    ids = Counter(panel["id"] for panel in board["panels"])
    titles = Counter(panel["title"] for panel in board["panels"])
    assert ([i for i, n in ids.items() if n > 1], [t for t, n in titles.items() if n > 1]) == ([], [])
    assert board["uid"] == f"memory3-{file.removesuffix('.json')}"
    uids = {other["uid"] for other in dashboards().values()}
    assert len(uids) == len(dashboards())
    assert {link["url"].removeprefix("/d/") for link in board["links"]} <= uids
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert [pair for pair in combinations(places, 2) if _overlap(*pair)] == []


def _overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    return (
        a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"] and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]
    )


@pytest.mark.parametrize(("file", "panel"), PANELS, ids=panel_ids())
def test_a_panel_says_what_it_shows_and_in_which_unit(file: str, panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    assert {(source["type"], source["uid"]) for source in sources} == {("prometheus", "${datasource}")}
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)
    assert all(target["legendFormat"] for target in panel["targets"])
    seconds = [t["expr"] for t in panel["targets"] if "_seconds_bucket" in t["expr"] or "_seconds_sum" in t["expr"]]
    assert not seconds or panel["fieldConfig"]["defaults"]["unit"] == "s"
    for target in panel["targets"]:
        if target["exemplar"]:
            assert "_bucket" in target["expr"], "only histograms have exemplars that Grafana shows"


def test_every_alert_has_a_runbook_entry_and_every_entry_an_alert() -> None:
    entries = dict(re.findall(r"^### (Memory3\w+)\n(.*?)(?=^##|\Z)", RUNBOOK, flags=re.MULTILINE | re.DOTALL))
    assert entries.keys() == {alert["alert"] for alert in alerts()}
    parts = ("**Means.**", "**Look at.**", "**Do.**")
    assert [name for name, text in entries.items() if not all(part in text for part in parts)] == []
    for alert in alerts():
        assert alert["annotations"]["runbook"] == f"docs/operations.md#{alert['alert'].lower()}"
        assert alert["annotations"]["summary"]
        assert alert["labels"]["severity"] in ("critical", "warning", "info")


def test_the_runbook_names_panels_and_settings_that_exist() -> None:
    titles = [*(panel["title"] for _, panel in PANELS), *(file.removesuffix(".json") for file in dashboards())]
    named = set(re.findall(r"\*([^*\n]+)\*", RUNBOOK.replace("**", "")))
    assert [name for name in named if not any(title.startswith(name) for title in titles)] == []
    settings = "\n".join(path.read_text() for path in (ROOT / "services").glob("*/README.md"))
    assert [name for name in re.findall(r"`(MEMORY3_\w+)`", RUNBOOK) if name not in settings] == []


def test_failures_are_those_that_are_not_the_callers_fault() -> None:
    expression = next(alert["expr"] for alert in alerts() if alert["alert"] == "Memory3RequestsFailing")
    value = next(v for s in selectors(expression) for label, _, v in s.matchers if label == "memory3_error_reason")
    assert set(value.split("|")) == {reason.name for reason, row in TABLE.items() if row.fault is not Fault.CALLER}


def test_the_collector_and_those_who_read_it_fit_together() -> None:
    collector = yaml.safe_load((FOLDER / "otel-collector.yaml").read_text())
    for pipeline in collector["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= collector[kind].keys()
    own = collector["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]["port"]
    offered = {collector["exporters"]["prometheus"]["endpoint"].rpartition(":")[2], str(own)}
    prometheus = yaml.safe_load((FOLDER / "prometheus/prometheus.yaml").read_text())
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    scraped = {t.rpartition(":")[2] for job in jobs.values() for c in job["static_configs"] for t in c["targets"]}
    assert scraped == offered
    assert jobs["memory3"]["honor_labels"], "or all processes would be the collector's"
    assert collector["exporters"]["prometheus"]["enable_open_metrics"], "or there are no exemplars"
    sources = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/memory3.yaml").read_text())["datasources"]
    linked = {d["datasourceUid"] for s in sources for d in s.get("jsonData", {}).get("exemplarTraceIdDestinations", ())}
    assert linked == {source["uid"] for source in sources if source["type"] == "jaeger"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (package prometheus) is not installed")
@pytest.mark.parametrize(
    "command",
    [("check", "config", "prometheus.yaml"), ("test", "rules", "alerts.test.yaml")],
    ids=["check", "test"],
)
def test_promtool_agrees(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *command], cwd=FOLDER / "prometheus", capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.s3
@pytest.mark.slow
def test_every_metric_and_label_that_is_asked_for_is_really_exported(observed: Observed) -> None:
    """Against tiers that run: names as the collector translates them, labels, and values that can occur."""
    wanted = [(where, selector) for where, text in expressions() for selector in selectors(text)]

    def complaints() -> list[str]:
        exported = _exported(observed)
        return [f"{where}: {what}" for where, selector in wanted for what in _wrong(selector, exported)]

    observed.receiver.wait(lambda: not complaints(), timeout_s=20)
    assert complaints() == []


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("sum by (memory3_mode) (a_seconds)", ""),
        ("b_seconds", "b_seconds is not exported"),
        ("sum by (bank) (a_seconds)", "a_seconds has no label bank"),
        ('a_seconds{memory3_mode="READS"}', "a_seconds: nothing sets memory3_mode to READS"),
        ('a_seconds{job=~"memory3/memory|memory3/memmory"}', "a_seconds: nothing sets job to memory3/memmory"),
    ],
)
def test_a_wrong_name_label_or_value_would_be_seen(expression: str, complaint: str) -> None:
    exported = {"a_seconds": {"memory3_mode", "job", "instance"}}
    assert [what for selector in selectors(expression) for what in _wrong(selector, exported)] == [complaint] * bool(
        complaint
    )


@pytest.mark.s3
@pytest.mark.slow
def test_the_page_says_how_each_metric_is_called_in_prometheus(observed: Observed) -> None:
    page = (ROOT / "docs" / "telemetry.md").read_text()
    told = dict(re.findall(r"^\| `([\w.]+)` \|.*\| `(\w+)` \|$", page, flags=re.MULTILINE))
    exported = {p.name: base_name(p.name, p.unit, p.kind) for p in observed.receiver.points()}
    assert exported
    assert {name: called for name, called in exported.items() if told.get(name) != called} == {}


def _exported(observed: Observed) -> dict[str, set[str]]:
    """Series name -> its labels."""
    found: dict[str, set[str]] = {}
    for point in observed.receiver.points():
        for name in series_names(point):
            labels = found.setdefault(name, {"job", "instance"})
            labels.update(map(label_name, point.attributes))
            labels.update({"le"} if name.endswith("_bucket") else ())
    return found | NOT_OURS


def _wrong(selector: Selector, exported: dict[str, set[str]]) -> list[str]:
    labels = exported.get(selector.name)
    if labels is None:
        return [f"{selector.name} is not exported"]
    asked = {label for label, _, _ in selector.matchers} | set(selector.grouped_by)
    wrong = [f"{selector.name} has no label {label}" for label in sorted(asked - labels)]
    for label, operator, value in selector.matchers:
        values = value.split("|") if operator in ("=~", "!~") else [value]
        unknown = [v for v in values if v not in (JOBS if label == "job" else _VALUES)]
        wrong += [f"{selector.name}: nothing sets {label} to {v}" for v in unknown]
    return wrong


_VALUES = {
    word
    for path in python_files("memory3", "services")
    for text in re.findall(r'^    ([A-Z_]+) = \d+$|"([a-z_]+)"', path.read_text(), flags=re.MULTILINE)
    for word in (text[0], text[0].lower(), text[1])
    if word
}
"""Names of enums, as they are and in lower case, and words in the code: all that a label's value can be."""
