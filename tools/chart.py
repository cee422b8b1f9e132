"""charts/memory3 rendered by Helm's own engine (helm-python-sdk), for the tests and for the examples.

    python tools/chart.py           # write Chart.lock and examples/*/rendered.yaml anew

Helm wants the charts of all dependencies, enabled or not, and tests download nothing. Each is replaced by a stand-in
that renders one ConfigMap with the values it was given: that shows conditions and values, and nothing of the real
chart.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "memory3"
EXAMPLES = tuple(sorted(path.parent.name for path in CHART.glob("examples/*/values.yaml")))

_STAND_IN = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-{{ .Chart.Name }}
data:
  values: {{ omit .Values "global" "enabled" | toJson | quote }}
"""


def lock() -> str:
    """Chart.lock, as Helm makes it of exact versions; with it `helm dependency build` takes these and no others."""
    wanted = yaml.safe_load((CHART / "Chart.yaml").read_text())["dependencies"]
    taken = [{key: dependency[key] for key in ("name", "version", "repository")} for dependency in wanted]
    order = ("name", "version", "repository", "condition")
    hashed = [[{key: dependency[key] for key in order} for dependency in wanted], taken]
    digest = hashlib.sha256(json.dumps(hashed, separators=(",", ":")).encode()).hexdigest()
    # Helm writes when it was made and does not check it; a fixed time makes the file the same each time.
    entries = [{key: dependency[key] for key in ("name", "repository", "version")} for dependency in taken]
    made = {"dependencies": entries, "digest": f"sha256:{digest}", "generated": "2026-11-26T00:00:00Z"}
    return yaml.safe_dump(made, sort_keys=False)


def write_stand_in(folder: Path) -> Path:
    """A copy of the chart below `folder` with stand-ins for its dependencies; returns its path."""
    chart = folder / "memory3"
    shutil.copytree(CHART, chart, ignore=shutil.ignore_patterns("examples"))
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    for dependency in about["dependencies"]:
        child = chart / "charts" / dependency["name"]
        (child / "templates").mkdir(parents=True)
        (child / "Chart.yaml").write_text(
            yaml.safe_dump({"apiVersion": "v2", "name": dependency["name"], "version": dependency["version"]})
        )
        (child / "templates" / "values.yaml").write_text(_STAND_IN)
    return chart


@functools.cache
def _prepared() -> bytes:
    """The chart with its stand-ins, as an archive."""
    with (
        tempfile.TemporaryDirectory(prefix="memory3-chart-") as folder,
        helm_python.Chart.load(str(write_stand_in(Path(folder)))) as chart,
    ):
        return Path(chart.save(folder)).read_bytes()


def example(name: str) -> dict[str, Any]:
    """The values of an example."""
    values: dict[str, Any] = yaml.safe_load((CHART / "examples" / name / "values.yaml").read_text())
    return values


def render(values: Mapping[str, Any], *, release: str = "demo", namespace: str = "prod") -> list[dict[str, Any]]:
    """Every object, by kind and name. Raises HelmError: values that are refused, or that contradict each other."""
    # Loaded anew each time: rendering takes dependencies that are off out of the loaded chart for good.
    with helm_python.Chart.load_archive(_prepared()) as chart:
        chart.validate_schema(dict(values))
        texts = chart.render(dict(values), name=release, namespace=namespace)
    objects = [
        document
        for name, text in texts.items()
        if name.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]
    return sorted(objects, key=lambda item: (item["kind"], item["metadata"]["name"]))


def golden(name: str) -> str:
    """What an example renders to, as kept beside it."""
    head = "# What values.yaml renders to; made by tools/chart.py. Release demo, namespace prod.\n---\n"
    return head + yaml.safe_dump_all(render(example(name)), sort_keys=True, width=1000)


def pod_templates(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template with a name for messages: of workloads, jobs, test pods and the groups of a RayService."""
    for item in objects:
        name = f"{item['kind']}/{item['metadata']['name']}"
        spec = item.get("spec", {})
        match item["kind"]:
            case "Deployment" | "StatefulSet" | "Job":
                yield name, spec["template"]
            case "CronJob":
                yield name, spec["jobTemplate"]["spec"]["template"]
            case "Pod":
                yield name, {"metadata": item["metadata"], "spec": spec}
            case "RayService":
                cluster = spec["rayClusterConfig"]
                yield f"{name}/head", cluster["headGroupSpec"]["template"]
                for group in cluster["workerGroupSpecs"]:
                    yield f"{name}/{group['groupName']}", group["template"]


def containers(template: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Init containers and containers of a pod template."""
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


if __name__ == "__main__":
    (CHART / "Chart.lock").write_text(lock())
    for title in EXAMPLES:
        (CHART / "examples" / title / "rendered.yaml").write_text(golden(title))
        print(f"rendered {title}")
