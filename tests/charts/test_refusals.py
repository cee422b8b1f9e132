"""Values that are wrong, and values that contradict each other: refused, with a message that names them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import helm_python
import pytest

from tools import chart


def changed(values: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    result: dict[str, Any] = copy.deepcopy(dict(values))
    *folders, name = path.split(".")
    place = result
    for folder in folders:
        place = place.setdefault(folder, {})
    place[name] = value
    return result


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("componets", {}, "componets"),
        ("components.retreival", {}, "retreival"),
        ("components.memory.replica", 2, "replica"),
        ("components.memory.replicas", "two", "replicas"),
        ("components.memory.replicas", -1, "replicas"),
        ("components.memory.kind", "DaemonSet", "kind"),
        ("components.memory.port", 70000, "port"),
        ("components.memory.settings.RAM_BYTE", 1, "RAM_BYTE"),
        ("components.memory.settings.RAM_BYTES", "1Gi", "RAM_BYTES"),
        ("components.memory.settings.MAX_PARALLEL_READS", 5000, "MAX_PARALLEL_READS"),
        ("components.memory.settings.STORE_URI", "s3://other", "STORE_URI"),
        ("components.memory.settings.S3_SECRET_KEY", "secret", "S3_SECRET_KEY"),
        ("components.retrieval.settings.EMBEDDER", "bag-of-words", "EMBEDDER"),
        ("components.decoder.settings.DTYPE", "float16", "DTYPE"),
        ("components.decoder.mode", "serve", "mode"),
        ("components.decoder.ray.groups.gpu.maximum", 3, "maximum"),
        ("components.decoder.ray.groups.front", {"enabled": True}, "front"),
        ("store.s3.bucket", "No_Bucket", "bucket"),
        ("store.s3.endpoint", "minio:9000", "endpoint"),
        ("index.type", "faiss", "type"),
        ("ingest.jobs.wiki", {"paths": ["/documents"]}, "bank"),
        ("ingest.jobs.wiki", {"bank": "Wiki", "paths": ["/documents"]}, "bank"),
        ("telemetry.ratio", 0.1, "ratio"),
        ("tls.secretes", {}, "secretes"),
        ("runAsUser", 0, "runAsUser"),
    ],
)
def test_a_wrong_value_is_named(path: str, value: Any, named: str) -> None:
    with pytest.raises(helm_python.HelmError, match=named):
        chart.render(changed(chart.example("production"), path, value))


@pytest.mark.parametrize(
    ("example", "path", "value", "named"),
    [
        ("production", "index.server.uri", "", "index.server.uri is empty"),
        ("production", "weights.volume.claim", "", "weights.volume.claim"),
        ("production", "tls.certManager.issuer.name", "", "issuer"),
        ("production", "components.memory.autoscaling.min", 20, "min 20 is above max 12"),
        ("production", "components.decoder.ray.deletionDelaySeconds", 10, "below drainSeconds"),
        ("laptop", "components.memory.kind", "Deployment", "kind=StatefulSet"),
        ("laptop", "components.memory.replicas", 2, "replicas must be 1"),
        ("laptop", "components.retrieval.autoscaling.type", "hpa", "replicas must be 1"),
        ("laptop", "components.memory.persistence.enabled", False, "persistence"),
        ("laptop", "components.retrieval.persistence.enabled", False, "persistence"),
        ("cpu", "store.s3", {"accessKey": "key"}, "secretKey"),
    ],
)
def test_values_that_contradict_each_other_are_refused(example: str, path: str, value: Any, named: str) -> None:
    with pytest.raises(helm_python.HelmError, match=named):
        chart.render(changed(chart.example(example), path, value))
