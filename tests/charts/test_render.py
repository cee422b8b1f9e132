"""Renders as a whole: the examples' golden ones, conditions of dependencies, two releases side by side, lint."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import helm_python
import pytest

from tests.helpers.tree import ROOT
from tools import chart

INFO = 1
"""Helm's lowest severity: only the missing icon has it."""


@pytest.mark.parametrize("name", chart.EXAMPLES)
def test_examples_render_to_what_lies_beside_them(name: str) -> None:
    kept = (chart.CHART / "examples" / name / "rendered.yaml").read_text()
    assert kept == chart.golden(name), "the chart renders something else now; look at it, then run: make chart-docs"


def test_schema_and_readme_are_fresh() -> None:
    tool = [sys.executable, str(ROOT / "tools" / "generate_chart_docs.py"), "--check"]
    result = subprocess.run(tool, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_lint_finds_nothing(tmp_path: Path) -> None:
    folder = chart.write_stand_in(tmp_path)
    result = helm_python.lint(str(folder), chart.example("production"))
    assert [item for item in result["messages"] if item["severity"] > INFO] == []


def test_dependencies_come_only_when_asked_for() -> None:
    bundled = {"demo-milvus", "demo-seaweedfs", "demo-kuberay-operator", "demo-opentelemetry-collector"}
    assert bundled & {item["metadata"]["name"] for item in chart.render(chart.example("production"))} == set()
    there = {item["metadata"]["name"]: item for item in chart.render(chart.example("cpu"))}
    assert bundled - there.keys() == set()
    assert json.loads(there["demo-milvus"]["data"]["values"])["minio"]["mode"] == "standalone"


def test_every_dependency_has_a_condition_a_repository_and_an_exact_version() -> None:
    metadata = helm_python.Chart.load(str(chart.CHART)).metadata
    for dependency in metadata["dependencies"]:
        assert dependency["condition"] == f"{dependency['name']}.enabled"
        assert dependency["repository"].startswith("https://")
        assert re.fullmatch(r"\d+\.\d+\.\d+", dependency["version"]), dependency["name"]


def test_the_lock_is_fresh() -> None:
    assert (chart.CHART / "Chart.lock").read_text() == chart.lock(), "run: make chart-docs"


def test_helm_takes_the_lock_for_one_of_this_chart(tmp_path: Path) -> None:
    copy = shutil.copytree(chart.CHART, tmp_path / "memory3")

    def refusal() -> str:
        # Without fetching the repositories' lists Helm gets no further than to the lock.
        with pytest.raises(helm_python.HelmRepoError) as caught:
            helm_python.dependency_build(str(copy), skip_refresh=True)
        return str(caught.value)

    assert "out of sync" not in refusal()
    about = copy / "Chart.yaml"
    about.write_text(about.read_text().replace("version: 5.0.28", "version: 5.0.27"))
    assert "out of sync" in refusal()


@pytest.mark.parametrize("name", chart.EXAMPLES)
def test_two_releases_in_one_namespace_do_not_collide(name: str) -> None:
    values = chart.example(name)
    first, second = (chart.render(values, release=release) for release in ("blue", "green"))

    def names(objects: list[dict]) -> set[tuple[str, str]]:
        return {(item["kind"], item["metadata"]["name"]) for item in objects}

    assert names(first) & names(second) == set()
    for item in (item for item in first if item["kind"] == "Service"):
        for title, template in chart.pod_templates(second):
            assert not item["spec"]["selector"].items() <= template["metadata"]["labels"].items(), title


def test_names_stay_short_enough_for_what_ray_appends() -> None:
    objects = chart.render(chart.example("production"), release="a-release-name-of-fifty-three-characters-which-is-max")
    assert max(len(item["metadata"]["name"]) for item in objects) <= 63
    ray = next(item for item in objects if item["kind"] == "RayService")
    assert len(ray["metadata"]["name"]) <= 63 - len("-abcde-worker-abcde")  # longer ones are cut by KubeRay itself
