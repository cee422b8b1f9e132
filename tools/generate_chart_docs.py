"""charts/memory3: values.schema.json and README.md, made of the comments in values.yaml and of the services' settings.

    python tools/generate_chart_docs.py            # write both
    python tools/generate_chart_docs.py --check    # exit 1 if one of them is old

A key of values.yaml is described by the "# -- " comment above it, which holds for all below it. Its type is that of its
default; what a default cannot say stands in FRAGMENTS.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "memory3"

CHART_SETS: Mapping[str, frozenset[str]] = {
    "retrieval": frozenset({"INDEX", "MILVUS_URI", "EMBEDDER_FOLDER"}),
    "memory": frozenset({"STORE_URI"}),
    "decoder": frozenset(
        {"BACKEND", "MODEL", "CACHE_DIR", "RETRIEVAL_ADDRESS", "MEMORY_ADDRESS", "NUM_CPUS", "NUM_GPUS", "REPLICAS"}
        | {"REPLICA_DRAIN_SECONDS", "AUTOSCALING_MIN", "AUTOSCALING_MAX", "AUTOSCALING_TARGET"}
    ),
    "ingest": frozenset({"RETRIEVAL", "MEMORY", "DECODER", "DATA_DIR", "TOKENIZER"}),
}
"""Settings that follow from other values, so they are none of `settings`; beside those of CHART_SETS_EVERYWHERE."""

CHART_SETS_EVERYWHERE = re.compile(
    r"HOST|PORT|HEALTH_PORT|DRAIN_SECONDS|BOOTSTRAP_SECONDS|RAY_\w+|TLS_\w+|ACCESS_FILE|TOKEN_\w+|S3_\w+|MILVUS_TOKEN\w*|MILVUS_CA"
)

_FREE_MAP = {"type": "object"}
_QUANTITY = {"type": ["string", "number"]}
FRAGMENTS: Mapping[str, dict[str, Any]] = {
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "store.type": {"enum": ["s3", "folder"]},
    "store.s3.bucket": {"type": "string", "pattern": "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"},
    "store.s3.endpoint": {"type": "string", "pattern": "^(https?://[^/@?# ]+)?$"},
    "index.type": {"enum": ["server", "lite", "local"]},
    "index.server.uri": {"type": "string", "pattern": "^(https?://[^ ]+)?$"},
    "weights.source": {"enum": ["package", "volume", "s3"]},
    "weights.sizeLimit": _QUANTITY,
    "components.*.kind": {"enum": ["Deployment", "StatefulSet"]},
    "components.*.autoscaling.type": {"enum": ["none", "hpa", "keda"]},
    "components.*.service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "components.*.spread": {"enum": ["ScheduleAnyway", "DoNotSchedule", ""]},
    "components.*.port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "components.*.autoscaling.triggers": {
        "type": "array",
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name", "query", "threshold"],
            "properties": {"name": {"type": "string"}, "query": {"type": "string"}, "threshold": {"type": "string"}},
        },
    },
    "components.decoder.mode": {"enum": ["ray", "local"]},
    "components.decoder.ray.auth": {"enum": ["token", "disabled"]},
    "components.decoder.ray.upgradeStrategy": {"enum": ["NewCluster", "None"]},
    "components.decoder.ray.worker.cpus": {"type": "number", "minimum": 0},
    "components.decoder.ray.worker.gpus": {"type": "number", "minimum": 0},
    "components.decoder.ray.autoscaling.targetGenerations": {"type": "number", "exclusiveMinimum": 0},
    "ingest.jobs": {
        "type": "object",
        "propertyNames": {"pattern": "^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$"},
        "additionalProperties": {
            "type": "object",
            "additionalProperties": False,
            "required": ["bank", "paths"],
            "properties": {
                "bank": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,62}$"},
                "paths": {"type": "array", "minItems": 1, "items": {"type": "string"}},
                "memories": {"enum": ["warm", "cold"]},
                "args": {"type": "array", "items": {"type": "string"}},
                "schedule": {"type": "string"},
                "documents": _FREE_MAP,
            },
        },
    },
    "telemetry.ratio": {"type": "string", "pattern": "^(0|1|0?\\.[0-9]+|1\\.0+)$"},
    "telemetry.sampler": {
        "enum": [
            f"{parent}{kind}" for parent in ("", "parentbased_") for kind in ("always_on", "always_off", "traceidratio")
        ]
    },
    "tls.certManager.issuer.kind": {"enum": ["Issuer", "ClusterIssuer"]},
    "runAsUser": {"type": "integer", "minimum": 1},
}
"""What a default cannot say, by path; `*` stands for any name."""

FREE = (
    "*.resources",
    "*.nodeSelector",
    "*.affinity",
    "*.podAnnotations",
    "*.annotations",
    "*.labels",
    "*.collector",
)
"""Objects of Kubernetes' own: passed on as they are."""

GROUPS = "components.decoder.ray.groups"
DEPENDENCIES = ("milvus", "seaweedfs", "kuberay-operator", "opentelemetry-collector")


def descriptions(text: str) -> dict[str, str]:
    """Path -> text of its "# -- " comment."""
    found: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("# -- "):
            comment = [bare.removeprefix("# -- ")]
        elif bare.startswith("#") and comment:
            comment.append(bare.lstrip("# "))
        elif match := re.match(r"( *)([A-Za-z0-9_-]+):(\s|$)", line):
            indent = len(match[1])
            while stack and stack[-1][0] >= indent:
                stack.pop()
            stack.append((indent, match[2]))
            if comment:
                found[".".join(name for _, name in stack)] = " ".join(comment)
            comment = []
        else:
            comment = []
    return found


def leaves(values: Mapping[str, Any], described: Mapping[str, str], path: str = "") -> Iterator[tuple[str, Any]]:
    """Described paths with their defaults, in order. Raises ValueError for a value that no comment describes."""
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        if here in described:
            yield here, value
        elif isinstance(value, Mapping) and value:
            yield from leaves(value, described, here)
        else:
            raise ValueError(f'values.yaml: {here} has no "# -- " comment; say what it is, its unit and default')


def schema(values: Mapping[str, Any], described: Mapping[str, str]) -> dict[str, Any]:
    """The whole values.schema.json."""
    top = _object(values, described, "")
    top["properties"]["global"] = {"type": "object", "description": "Helm's own; nothing here reads it."}
    for name in DEPENDENCIES:
        top["properties"][name]["additionalProperties"] = True
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of memory3", **top}


def _object(values: Mapping[str, Any], described: Mapping[str, str], path: str) -> dict[str, Any]:
    properties = {name: _node(value, described, f"{path}.{name}".lstrip(".")) for name, value in values.items()}
    if path == GROUPS:
        return {
            "type": "object",
            "propertyNames": {"pattern": "^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$", "not": {"const": "front"}},
            "additionalProperties": properties["cpu"],
        }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _node(value: Any, described: Mapping[str, str], path: str) -> dict[str, Any]:
    text = {"description": described[path]} if path in described else {}
    for pattern, fragment in FRAGMENTS.items():
        if fnmatch.fnmatchcase(path, pattern):
            return {**text, **fragment}
    if path.endswith(".settings"):
        return {**text, **_settings(path.split(".")[-2])}
    if any(fnmatch.fnmatchcase(path, pattern) for pattern in FREE):
        return {**text, **_FREE_MAP}
    match value:
        case bool():
            kind: dict[str, Any] = {"type": "boolean"}
        case int():
            kind = {"type": "integer", "minimum": 0}
        case str():
            kind = {"type": "string"}
        case list():
            kind = {"type": "array"}
        case Mapping():
            kind = _object(value, described, path)
        case _:
            raise ValueError(f"values.yaml: {path} has the default {value!r}, which says no type; add it to FRAGMENTS")
    return {**text, **kind}


def settings_classes(service: str) -> list[type[BaseSettings]]:
    """The settings classes of a service, its own and inherited fields in each."""
    module = importlib.import_module(f"services.{service}.config")
    return [
        cls
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, BaseSettings) and cls.__module__ == module.__name__
    ]


def _settings(service: str) -> dict[str, Any]:
    """What `settings` of a component may hold: the service's own settings, with their limits."""
    properties: dict[str, Any] = {}
    for cls in settings_classes(service):
        for name, field in cls.model_json_schema(by_alias=False)["properties"].items():
            variable = name.upper()
            if variable in CHART_SETS[service] or CHART_SETS_EVERYWHERE.fullmatch(variable):
                continue
            properties[variable] = {
                key: item for key, item in field.items() if key not in ("title", "default", "format")
            }
    return {"type": "object", "additionalProperties": False, "properties": dict(sorted(properties.items()))}


def readme(values: Mapping[str, Any], described: Mapping[str, str]) -> str:
    """README.md.in with the table of values in place of its last line."""
    rows = ["| value | default | meaning |", "| --- | --- | --- |"]
    for path, default in leaves(values, described):
        rows.append(f"| `{path}` | {_shown(default)} | {described[path].replace('|', '&#124;')} |")
    return (CHART / "README.md.in").read_text().replace("@VALUES@", "\n".join(rows))


def _shown(default: Any) -> str:
    if default in ("", [], {}):
        return "empty"
    if isinstance(default, str):
        return f"`{default}`"
    text = json.dumps(default)
    return f"`{text}`".replace("|", "&#124;") if len(text) <= 100 else "see values.yaml"


def generated() -> dict[Path, str]:
    """Every file this makes, with its text."""
    text = (CHART / "values.yaml").read_text()
    values, described = yaml.safe_load(text), descriptions(text)
    return {
        CHART / "values.schema.json": json.dumps(schema(values, described), indent=2) + "\n",
        CHART / "README.md": readme(values, described),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is old")
    check = parser.parse_args().check
    old = [path for path, text in generated().items() if not path.is_file() or path.read_text() != text]
    for path in old:
        if check:
            print(f"{path.relative_to(ROOT)} is old: run make chart-docs")
        else:
            path.write_text(generated()[path])
            print(f"wrote {path.relative_to(ROOT)}")
    sys.exit(bool(old) and check)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
