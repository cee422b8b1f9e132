"""Podman with its data below one folder, and pods in a network of its own. Knows no chart."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tools import pods, probes
from tools.images import ROOT, host_ca
from tools.steps import Steps

NETWORK = "memory3-chart"
WEIGHTS = {
    Path("/sys/fs/cgroup/cpu/libpod_parent/cpu.shares"): 16384,
    Path("/sys/fs/cgroup/libpod_parent/cpu.weight"): 1600,
}
"""All containers together weigh as much as one process; on a busy machine Ray would give its start up for that."""


class Engine(Steps):
    """`secrets`: what the pods' Secrets hold, by name and key."""

    def __init__(self, work: Path, secrets: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__()
        self.work = work
        self.seen["ready_after_s"] = {}
        self._secrets = secrets
        self._volumes = work / "memory3-chart-volumes"
        self._config = work / "containers.conf"
        limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
        known = {name: min(resource.getrlimit(which)[1], 32768) for name, which in limits.items()}
        ulimits = [f"{name}={limit}:{limit}" for name, limit in known.items()]
        # crun, podman's first choice, refuses the older layout of control groups.
        self._config.write_text(f'[containers]\ndefault_ulimits = {json.dumps(ulimits)}\n[engine]\nruntime = "runc"\n')

    def podman(self, *arguments: str, check: bool = True, timeout_s: float = 1800) -> str:
        """What podman writes. Ends the run with its last lines when it fails."""
        done = self._podman(*arguments, timeout_s=timeout_s)
        if check and done.returncode:
            told = (done.stdout + done.stderr)[-3000:]
            sys.exit(f"podman {' '.join(arguments)} ended with {done.returncode}:\n{told}")
        return done.stdout

    def _podman(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        folders = [
            f"--root={self.work}/root",
            f"--runroot={self.work}/run",
            f"--network-config-dir={self.work}/networks",
        ]
        command = ["podman", *folders, "--cgroup-manager=cgroupfs", *arguments]
        env = {**os.environ, "CONTAINERS_CONF": str(self._config)}
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def start(self, pod: pods.Pod, ready_s: float = 600) -> None:
        """Play a pod and wait for its startup and readiness probes."""
        with self.step(f"start {pod.name}"):
            self._play(pod)
            started = self._wait_until_started(pod)
            ready = probes.wait_until_ready(pod.container, self.address(pod), ready_s)
            self.seen["ready_after_s"][pod.name] = {"started": started, "ready": round(started + ready, 1)}

    def job(self, pod: pods.Pod, limit_s: float = 1200) -> str:
        """Play a pod that ends, and return what it wrote. Ends the run when it ends with an error."""
        self._play(pod)
        status = self.podman("wait", pod.container_name, timeout_s=limit_s).strip()
        text = self.podman("logs", pod.container_name)
        if status != "0":
            sys.exit(f"{pod.name} ended with {status}:\n{text[-3000:]}")
        self.remove(pod)
        return text

    def address(self, pod: pods.Pod) -> str:
        """Of the pod in the network."""
        infra = self.podman("pod", "inspect", "--format", "{{.InfraContainerID}}", pod.name).strip()
        networks = json.loads(self.podman("container", "inspect", infra))[0]["NetworkSettings"]["Networks"]
        return str(networks[NETWORK]["IPAddress"])

    def there(self, pod: pods.Pod) -> bool:
        """Whether it was played and not removed."""
        return self._podman("pod", "exists", pod.name).returncode == 0

    def state(self, pod: pods.Pod) -> str:
        """Of the pod's first container: running, exited, ..."""
        return self.podman("container", "inspect", "--format", "{{.State.Status}}", pod.container_name).strip()

    def stop(self, pod: pods.Pod) -> int:
        """SIGTERM, and SIGKILL when the grace period is over; returns the exit code.

        Not `podman pod stop`: that takes the network away first, and what drains would drain into nothing.
        """
        self.podman("stop", "--time", str(pod.template["spec"]["terminationGracePeriodSeconds"]), pod.container_name)
        return int(self.podman("container", "inspect", "--format", "{{.State.ExitCode}}", pod.container_name))

    def remove(self, pod: pods.Pod) -> None:
        """Stop it, and take its names out of the network."""
        self.stop(pod)
        self.podman("pod", "rm", "--force", pod.name)

    def give_weight(self) -> None:
        """Let the containers have as much of the processors as that many processes; once one of them runs."""
        for file, weight in WEIGHTS.items():
            if file.exists():
                file.write_text(str(weight))

    def clear(self) -> None:
        """No container, network or volume of this run is left."""
        for arguments in (("pod", "rm", "--all", "--force", "--time=0"), ("rm", "--all", "--force", "--time=0")):
            self.podman(*arguments, check=False)
        self.podman("network", "rm", "--force", NETWORK, check=False)
        shutil.rmtree(self._volumes, ignore_errors=True)
        shutil.rmtree(pods.in_memory(self._volumes), ignore_errors=True)

    def tell(self) -> None:
        """The last lines of every container: what to read when a run fails."""
        for name in self.podman("ps", "--all", "--format", "{{.Names}}").split():
            if not name.endswith("-infra"):
                done = self._podman("logs", "--tail", "30", name)
                print(f"--- {name}\n{(done.stdout + done.stderr)[-3000:]}", flush=True)

    def _play(self, pod: pods.Pod) -> None:
        """Start a pod; returns when its init containers are through."""
        manifest = pods.playable(pod, self._secrets, self._volumes)
        _trust(manifest["spec"])
        file = self.work / f"{pod.name}.yaml"
        file.write_text(yaml.safe_dump(manifest))
        names = ",".join(f"alias={name}" for name in (pod.name, *pod.aliases))
        self.podman("kube", "play", "--network", f"{NETWORK}:{names}", str(file))

    def _wait_until_started(self, pod: pods.Pod, more: int = 2) -> float:
        """A container that ends, or takes too long, is started anew, as a kubelet does: `more` times."""
        try:
            return probes.wait_until_started(pod.container, self.address(pod), lambda: self.state(pod) == "running")
        except TimeoutError as error:
            if not more:
                raise
            print(f"started anew: {error}", flush=True)
            self.seen.setdefault("started anew", []).append(str(error))
        self.podman("pod", "restart", pod.name)
        return self._wait_until_started(pod, more - 1)


def _trust(spec: dict[str, Any]) -> None:
    """Where a proxy signs with a CA of its own, pip in the weights step must know it."""
    spec["volumes"].append({"name": "host-ca", "hostPath": {"path": str(host_ca()), "type": "File"}})
    for container in spec.get("initContainers", []):
        if container["name"] == "weights":
            container["env"].append({"name": "PIP_CERT", "value": "/host-ca.crt"})
            container["volumeMounts"].append({"name": "host-ca", "mountPath": "/host-ca.crt", "readOnly": True})
