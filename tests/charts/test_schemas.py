"""What the chart renders, against the strict schemas of the newest Kubernetes versions and of the custom resources."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from kubernetes_validate import utils

from tools import chart

SCHEMAS = Path(__file__).parent / "schemas"
VERSIONS = tuple(utils.all_versions()[-3:])
CUSTOM = {path.stem: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}


@pytest.fixture(autouse=True, scope="module")
def read_each_schema_once() -> Any:
    """The package reads and parses megabytes of definitions for each object."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
        yield


def check(item: dict[str, Any], version: str) -> None:
    custom = CUSTOM.get(item["kind"].lower())
    if custom is not None:
        jsonschema.Draft7Validator(custom).validate(item)
    else:
        kubernetes_validate.validate(item, version, strict=True)


def test_three_versions_are_there() -> None:
    assert [kubernetes_validate.latest_version()] == list(VERSIONS[-1:])
    assert len(VERSIONS) == 3


@pytest.mark.parametrize("name", chart.EXAMPLES)
def test_every_object_fits_its_schema(name: str) -> None:
    for item in chart.render(chart.example(name)):
        for version in VERSIONS:
            check(item, version)


@pytest.mark.parametrize("name", chart.EXAMPLES)
def test_every_pod_of_a_ray_service_fits_the_schema_of_pods(name: str) -> None:
    for title, template in chart.pod_templates(chart.render(chart.example(name))):
        if title.startswith("RayService"):
            wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "ray"}, "template": template}
            kubernetes_validate.validate(wrapped, VERSIONS[-1], strict=True)


def test_a_wrong_field_is_found() -> None:
    objects = {item["kind"]: item for item in chart.render(chart.example("production"))}
    objects["PodDisruptionBudget"]["spec"]["maxUnavailble"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        check(objects["PodDisruptionBudget"], VERSIONS[-1])
    objects["RayService"]["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["minReplica"] = 1
    with pytest.raises(jsonschema.ValidationError):
        check(objects["RayService"], VERSIONS[-1])
    objects["ScaledObject"]["spec"]["triggers"][0]["metadata"]["threshold"] = 5
    with pytest.raises(jsonschema.ValidationError):
        check(objects["ScaledObject"], VERSIONS[-1])
