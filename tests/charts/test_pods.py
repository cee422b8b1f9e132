"""What podman is given instead of the rendered objects: every replica, found by its services' names, to be played."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.helpers.tree import ROOT
from tools import chart, kuberay, pods, probes


def rendered(name: str) -> list[dict[str, Any]]:
    return chart.render(chart.example(name))


def cluster(name: str) -> kuberay.Cluster:
    objects = rendered(name)
    (service,) = [item for item in objects if item["kind"] == "RayService"]
    return kuberay.cluster(service, objects, "prod")


def all_pods(name: str) -> dict[str, pods.Pod]:
    ray = cluster(name)
    return {pod.name: pod for pod in [*pods.pods(rendered(name), "prod"), ray.head, *ray.workers]}


def small(pod: pods.Pod) -> pods.Pod:
    """The same with a group that whoever runs the tests may give to files."""
    template = copy.deepcopy(dict(pod.template))
    template["spec"]["securityContext"]["fsGroup"] = os.getgid()
    return dataclasses.replace(pod, template=template)


def values_of(container: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item.get("value", "") for item in container["env"]}


def test_each_replica_is_a_pod_and_an_autoscaler_counts_by_its_minimum() -> None:
    names = all_pods("cpu").keys()
    assert {"demo-memory3-memory-0", "demo-memory3-memory-1", "demo-memory3-retrieval-0"} <= names
    assert "demo-memory3-retrieval-1" not in names
    assert {name.rpartition("abcde-")[2] for name in names if "abcde" in name} == {
        "head-0", "front-worker-0", "front-worker-1", "cpu-worker-0",
    }  # fmt: skip


def test_pods_are_found_by_the_names_that_others_dial() -> None:
    found = all_pods("cpu")
    for service, count in (("memory-headless", 2), ("retrieval", 1), ("decoder", 2)):
        whole = f"demo-memory3-{service}.prod.svc"
        assert len([name for name, pod in found.items() if whole in pod.aliases]) == count, service
    assert "demo-memory3-memory-headless.prod.svc.cluster.local" in found["demo-memory3-memory-1"].aliases
    assert not [pod for name, pod in found.items() if "cpu-worker" in name and pod.aliases]


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_what_is_played_has_no_part_that_podman_would_misread(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pods, "in_memory", lambda folder: folder / "in-memory")  # nothing is left in /dev/shm
    secrets = {"store": {"accessKey": "a", "secretKey": "s"}}
    for pod in map(small, all_pods(name).values()):
        manifest = pods.playable(pod, secrets, tmp_path)
        assert manifest["metadata"]["name"] == pod.name
        assert manifest["spec"]["restartPolicy"] == "Never"
        assert not pods.SCHEDULER_ONLY & manifest["spec"].keys()
        for container in chart.containers(manifest):
            assert not {"startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "ports"} & container.keys()
            assert container["securityContext"]["runAsUser"] == 10001
            assert all(isinstance(item["value"], str) for item in container["env"])
        for volume in manifest["spec"]["volumes"]:
            assert Path(volume["hostPath"]["path"]).is_dir()


def test_what_is_rendered_is_left_as_it_was(tmp_path: Path) -> None:
    pod = small(all_pods("cpu")["demo-memory3-memory-0"])
    before = json.dumps(pod.template)
    pods.playable(pod, {"store": {}}, tmp_path)
    assert json.dumps(pod.template) == before


def test_a_secret_is_a_folder_with_its_files(tmp_path: Path) -> None:
    pod = small(all_pods("cpu")["demo-memory3-memory-0"])
    manifest = pods.playable(pod, {"store": {"accessKey": "id", "secretKey": "key"}}, tmp_path)
    (path,) = [Path(item["hostPath"]["path"]) for item in manifest["spec"]["volumes"] if item["name"] == "store"]
    assert (path / "secretKey").read_text() == "key"
    assert (path / "secretKey").stat().st_mode & 0o777 == 0o440
    with pytest.raises(KeyError, match="store"):
        pods.playable(pod, {}, tmp_path)


def test_a_volume_that_is_not_known_is_refused(tmp_path: Path) -> None:
    pod = small(all_pods("cpu")["demo-memory3-memory-0"])
    pod.template["spec"]["volumes"].append({"name": "models", "persistentVolumeClaim": {"claimName": "models"}})
    with pytest.raises(ValueError, match="models"):
        pods.playable(pod, {"store": {}}, tmp_path)


def test_the_environment_is_what_a_kubelet_makes_of_it() -> None:
    env = [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "BOTH", "value": "id=$(POD_NAME),$(UNKNOWN)"},
    ]
    assert pods.environment(env, "p-0") == [
        {"name": "POD_NAME", "value": "p-0"},
        {"name": "BOTH", "value": "id=p-0,$(UNKNOWN)"},
    ]
    with pytest.raises(ValueError, match=r"status\.podIP"):
        pods.environment([{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}], "p-0")


def test_ray_is_started_as_the_operator_starts_it() -> None:
    found = cluster("cpu")
    head, *workers = [values_of(pod.container) for pod in (found.head, *found.workers)]
    started = head["KUBERAY_GEN_RAY_START_CMD"].split()
    assert started[:3] == ["ray", "start", "--head"]
    assert {"--block", "--no-monitor", "--num-cpus=0", "--dashboard-host=0.0.0.0"} <= set(started)
    address = "demo-memory3-decoder-abcde-head-svc.prod.svc.cluster.local"
    assert address in found.head.aliases
    for worker in workers:
        assert f"--address={address}:6379" in worker["KUBERAY_GEN_RAY_START_CMD"]
        assert worker["RAY_AUTH_TOKEN"] == head["RAY_AUTH_TOKEN"] == found.token != ""
    (cpu,) = [item for item in workers if "--num-cpus=2" in item["KUBERAY_GEN_RAY_START_CMD"]]
    assert f"--memory={6 * 2**30}" in cpu["KUBERAY_GEN_RAY_START_CMD"]


def test_gpus_are_counted_by_the_limits() -> None:
    limits = {"cpu": "3500m", "memory": "1000", "nvidia.com/gpu": 2}
    flags = kuberay.start_command("", {}, {"limits": limits}).split()
    assert {"--num-gpus=2", "--num-cpus=4", "--memory=1000"} <= set(flags)
    assert "--num-cpus=1" in kuberay.start_command("", {"num-cpus": "1"}, {"limits": limits})


def test_no_worker_starts_before_the_head_answers() -> None:
    for pod in cluster("cpu").workers:
        waiting = pod.template["spec"]["initContainers"][-1]
        assert waiting["name"] == "wait-gcs-ready"
        assert waiting["image"] == pod.container["image"]


def test_a_probe_is_asked_as_a_kubelet_asks_it() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    probe = {"grpc": {"port": port, "service": "alive"}, "timeoutSeconds": 2, "periodSeconds": 1, "failureThreshold": 1}
    try:
        assert not probes.passes(probe, {}, "127.0.0.1")
        with pytest.raises(TimeoutError, match="startupProbe did not pass within 1 s"):
            probes.wait_until_started({"name": "memory", "startupProbe": probe}, "127.0.0.1", lambda: True)
        with pytest.raises(TimeoutError, match="ended before"):
            probes.wait_until_started({"name": "memory", "startupProbe": probe}, "127.0.0.1", lambda: False)
        servicer.set("alive", health_pb2.HealthCheckResponse.SERVING)
        assert probes.passes(probe, {}, "127.0.0.1")
    finally:
        server.stop(None)
    assert not probes.passes(probe, {}, "127.0.0.1")


def test_what_is_changed_for_podman_is_documented() -> None:
    text = " ".join((ROOT / "docs" / "deployment.md").read_text().split())
    for change in pods.CHANGES:
        assert change in text
