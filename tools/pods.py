"""Rendered objects as pods for `podman kube play`, which knows Pods and little around them.

CHANGES is all that differs between what the chart renders and what podman is given.
"""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Object = Mapping[str, Any]

CHANGES = (
    "a Deployment, StatefulSet, Job or group of a RayService is one Pod for each replica, named with a number; "
    "where an autoscaler sets replicas, its lowest number. Nothing makes a lost pod anew; a CronJob is not played",
    "an emptyDir is a folder of this machine (medium Memory: below /dev/shm) of the pod's fsGroup, without size limit",
    "a Secret is a folder with its files, of the pod's fsGroup and with the rendered mode",
    "metadata.name and $(NAME) in the environment are put in by hand",
    "the pod's runAsUser and runAsGroup stand at each container",
    "probes are left out and run by tools/probes.py over the network, as a kubelet does; preStop is left out",
    "ports are left out, for podman would publish them on this machine",
    "restartPolicy is Never, for podman would start init containers again and again; a container that ends before its "
    "startup probe passed is started anew by the tool, twice at most",
    "a Service is a name of the pods it selects in podman's network: several pods are several addresses, "
    "also where Kubernetes would give one; a pod is found before it is ready",
    "what only Kubernetes reads is left out: service accounts, spread, affinity, priority, pull secrets",
    "an image is never pulled; pip in the weights step trusts the authorities this machine trusts",
)
"""What is changed for podman. docs/deployment.md repeats it."""

SCHEDULER_ONLY = (
    "affinity", "automountServiceAccountToken", "enableServiceLinks", "imagePullSecrets", "nodeSelector",
    "priorityClassName", "runtimeClassName", "serviceAccountName", "tolerations", "topologySpreadConstraints",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Pod:
    """A pod as rendered, its name, and the names by which others find it."""

    name: str
    template: Object
    aliases: tuple[str, ...] = ()

    @property
    def container(self) -> dict[str, Any]:
        """The first container, which is ours."""
        found: dict[str, Any] = self.template["spec"]["containers"][0]
        return found

    @property
    def container_name(self) -> str:
        """What podman calls it."""
        return f"{self.name}-{self.container['name']}"


def pods(objects: Sequence[Object], namespace: str) -> list[Pod]:
    """Each replica of every Deployment and StatefulSet, and each Job's pod; RayServices are tools/kuberay.py's."""
    found = []
    for item in objects:
        if item["kind"] in ("Deployment", "StatefulSet", "Job"):
            name, template = item["metadata"]["name"], item["spec"]["template"]
            found += replicas(name, template, _replicas(objects, item), objects, namespace)
    return found


def replicas(name: str, template: Object, number: int, objects: Iterable[Object], namespace: str) -> list[Pod]:
    """`number` pods of a template, with the aliases of the Services that select it."""
    aliases = service_names(objects, template["metadata"].get("labels", {}), namespace)
    return [Pod(f"{name}-{index}", template, aliases) for index in range(number)]


def _replicas(objects: Iterable[Object], item: Object) -> int:
    if item["kind"] == "Job" or "replicas" in item["spec"]:
        return int(item["spec"].get("replicas", 1))
    for scaler in objects:
        target = scaler.get("spec", {}).get("scaleTargetRef", {})
        if (target.get("kind"), target.get("name")) == (item["kind"], item["metadata"]["name"]):
            return int(scaler["spec"].get("minReplicas", scaler["spec"].get("minReplicaCount", 1)))
    return 1


def service_names(objects: Iterable[Object], labels: Mapping[str, str], namespace: str) -> tuple[str, ...]:
    """Every name under which Kubernetes' name server knows the Services that select these labels."""
    found: list[str] = []
    for item in objects:
        if item["kind"] == "Service" and item["spec"]["selector"].items() <= labels.items():
            found += host_names(item["metadata"]["name"], namespace)
    return tuple(found)


def host_names(service: str, namespace: str) -> tuple[str, ...]:
    """The names of one Service, from short to whole."""
    return tuple(
        f"{service}{rest}" for rest in ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
    )


def playable(pod: Pod, secrets: Mapping[str, Mapping[str, str]], folder: Path) -> dict[str, Any]:
    """The manifest podman is given; makes the folders of its volumes. Raises KeyError for a secret that is missing."""
    spec = copy.deepcopy(dict(pod.template["spec"]))
    for key in SCHEDULER_ONLY:
        spec.pop(key, None)
    context = spec.get("securityContext", {})
    group = int(context.get("fsGroup", 0))
    spec["volumes"] = [_volume(pod, volume, group, secrets, folder) for volume in spec.get("volumes", [])]
    spec["restartPolicy"] = "Never"
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        for key in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "ports"):
            container.pop(key, None)
        container["imagePullPolicy"] = "Never"
        container["securityContext"] = {
            **{key: context[key] for key in ("runAsUser", "runAsGroup") if key in context},
            **container.get("securityContext", {}),
        }
        container["env"] = environment(container.get("env", []), pod.name)
    metadata = {"name": pod.name, "labels": pod.template["metadata"].get("labels", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def environment(env: Iterable[Object], pod_name: str) -> list[dict[str, str]]:
    """Plain values. Raises ValueError for a source other than the pod's name."""
    values: dict[str, str] = {}
    for item in env:
        if "valueFrom" in item:
            if item["valueFrom"] != {"fieldRef": {"fieldPath": "metadata.name"}}:
                raise ValueError(
                    f"{item['name']}: {item['valueFrom']} is not known here; only the field metadata.name is"
                )
            values[item["name"]] = pod_name
            continue
        value = str(item.get("value", ""))
        for name, known in values.items():
            value = value.replace(f"$({name})", known)
        values[item["name"]] = value
    return [{"name": name, "value": value} for name, value in values.items()]


def in_memory(folder: Path) -> Path:
    """Where the volumes of medium Memory are that belong to this folder."""
    return Path("/dev/shm") / folder.name


def _volume(
    pod: Pod, volume: Object, group: int, secrets: Mapping[str, Mapping[str, str]], folder: Path
) -> dict[str, Any]:
    match volume:
        case {"emptyDir": source}:
            root = in_memory(folder) if (source or {}).get("medium") == "Memory" else folder
            path = _empty(root / pod.name / str(volume["name"]), group)
        case {"secret": source}:
            path = _empty(folder / pod.name / str(volume["name"]), group)
            for key, value in secrets[source["secretName"]].items():
                (path / key).write_text(value)
                shutil.chown(path / key, group=group)
                (path / key).chmod(int(source.get("defaultMode", 0o644)))
        case _:
            raise ValueError(f"{pod.name}: volume {dict(volume)} is not known here; emptyDir and secret are")
    return {"name": volume["name"], "hostPath": {"path": str(path), "type": "Directory"}}


def _empty(path: Path, group: int) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    shutil.chown(path, group=group)
    path.chmod(0o2777)
    return path
