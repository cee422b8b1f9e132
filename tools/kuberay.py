"""What the KubeRay operator makes of a RayService, by hand: pods, what it adds to them, the application's deployment.

After KubeRay's pod builder (release 1.5). Its autoscaler, which speaks to Kubernetes, is not here.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tools import pods

GCS_PORT = 6379
SERVE_PAGE = "/api/serve/applications/"
SIZES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The pods of one RayService: the head first, then each group's."""

    head: pods.Pod
    workers: tuple[pods.Pod, ...]
    config: dict[str, Any]
    token: str

    def deploy(self, dashboard: str) -> None:
        """Ask Ray for the application, as the operator does. Raises RuntimeError with what Ray says against it."""
        self._ask(f"{dashboard}{SERVE_PAGE}", "PUT", json.dumps(self.config).encode())

    def status(self, dashboard: str) -> str:
        """Of the application: RUNNING, DEPLOYING, ...; empty while Ray does not answer."""
        with contextlib.suppress(OSError):
            applications = json.loads(self._ask(f"{dashboard}{SERVE_PAGE}", "GET", None))["applications"]
            return "".join(str(item["status"]) for item in applications.values())
        return ""

    def _ask(self, url: str, method: str, body: bytes | None) -> str:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(url, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return str(response.read().decode())
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {url}: {error.code} {error.read().decode(errors='replace')}") from error


def cluster(service: Mapping[str, Any], objects: Sequence[Mapping[str, Any]], namespace: str) -> Cluster:
    """Of a rendered RayService. `objects`: what was rendered beside it; its Services select fronts."""
    config = service["spec"]["rayClusterConfig"]
    name = f"{service['metadata']['name']}-abcde"  # the operator takes five letters by chance
    token = secrets.token_hex(16) if config["authOptions"]["mode"] == "token" else ""
    head_names = pods.host_names(f"{name}-head-svc", namespace)
    overwrite = service["metadata"]["annotations"]["ray.io/overwrite-container-cmd"]
    if overwrite != "true":
        raise ValueError(
            f"ray.io/overwrite-container-cmd is {overwrite}; only true is known here: the pods' commands start Ray"
        )
    scaled = {"no-monitor": "true"} if config.get("enableInTreeAutoscaling") else {}
    group = config["headGroupSpec"]
    parameters = {"dashboard-host": "0.0.0.0", **scaled, **group["rayStartParams"]}
    template = _template(group["template"], "--head", parameters, "127.0.0.1", token)
    (head,) = pods.replicas(f"{name}-head", template, 1, objects, namespace)
    workers: list[pods.Pod] = []
    for group in config["workerGroupSpecs"]:
        parameters = {"address": f"{head_names[-1]}:{GCS_PORT}", **group["rayStartParams"]}
        template = _template(group["template"], "", parameters, head_names[-1], token)
        _wait_for_head(template, head_names[-1])
        workers += pods.replicas(f"{name}-{group['groupName']}-worker", template, group["replicas"], objects, namespace)
    application = yaml.safe_load(service["spec"]["serveConfigV2"])
    return Cluster(dataclasses.replace(head, aliases=head.aliases + head_names), tuple(workers), application, token)


def start_command(role: str, parameters: Mapping[str, str], resources: Mapping[str, Any]) -> str:
    """What the operator puts into KUBERAY_GEN_RAY_START_CMD: CPUs, GPUs and memory by the container's limits."""
    limits = resources.get("limits", {})
    found = {"metrics-export-port": "8080", "dashboard-agent-listen-port": "52365", **parameters, "block": "true"}
    if cpu := limits.get("cpu", resources.get("requests", {}).get("cpu")):
        found.setdefault("num-cpus", str(-(-_thousandths(str(cpu)) // 1000)))
    if memory := limits.get("memory"):
        found.setdefault("memory", str(_bytes(str(memory))))
    for key in limits:
        if key.endswith("gpu"):
            found.setdefault("num-gpus", str(limits[key]))
    flags = [f"--{key}" if value == "true" else f"--{key}={value}" for key, value in sorted(found.items())]
    return " ".join(["ray start", *([role] if role else []), *flags])


def _template(
    rendered: Mapping[str, Any], role: str, parameters: Mapping[str, str], head: str, token: str
) -> dict[str, Any]:
    template: dict[str, Any] = copy.deepcopy(dict(rendered))
    container = template["spec"]["containers"][0]
    added = {
        "KUBERAY_GEN_RAY_START_CMD": start_command(role, parameters, container["resources"]),
        "RAY_PORT": str(GCS_PORT),
        "RAY_ADDRESS": f"{head}:{GCS_PORT}",
        "RAY_TIMEOUT_MS_TASK_WAIT_FOR_DEATH_INFO": "0",
        "RAY_GCS_SERVER_REQUEST_TIMEOUT_SECONDS": "5",
        "RAY_SERVE_KV_TIMEOUT_S": "5",
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
    }
    if role != "--head":
        added |= {"FQ_RAY_IP": head, "RAY_IP": head.partition(".")[0]}
    if token:
        added |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    there = {item["name"] for item in container["env"]}
    container["env"] += [{"name": key, "value": value} for key, value in added.items() if key not in there]
    return template


def _wait_for_head(template: dict[str, Any], head: str) -> None:
    """The operator's own init container: no worker starts before the head answers."""
    container = template["spec"]["containers"][0]
    ask = f"until ray health-check --address {head}:{GCS_PORT}; do sleep 5; done"
    waiting = {
        key: copy.deepcopy(container[key])
        for key in ("image", "imagePullPolicy", "securityContext", "env", "volumeMounts")
    }
    waiting |= {
        "name": "wait-gcs-ready",
        "command": ["/bin/bash", "-c", "--"],
        "args": [ask],
        "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}, "limits": {"cpu": "200m", "memory": "256Mi"}},
    }
    template["spec"].setdefault("initContainers", []).append(waiting)


def _thousandths(cpu: str) -> int:
    return int(cpu[:-1]) if cpu.endswith("m") else int(float(cpu) * 1000)


def _bytes(size: str) -> int:
    return int(size[:-2]) * SIZES[size[-2:]] if size[-2:] in SIZES else int(size)
