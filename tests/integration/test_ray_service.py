"""What KubeRay does with a RayService, done by hand: a Ray node, the chart's own Serve config deployed to it, a front
that waits for it. KubeRay itself, several nodes and autoscaling of pods are not here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from memory3.decoder import DecoderClient
from memory3.types import FinalEvent, GenerationRequest, Message, Mode
from tests.helpers.processes import ROOT, ServiceProcess
from tests.helpers.tiny_model import tiny_model_directory, tiny_plan
from tests.helpers.waiting import until
from tools import chart

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(500)]

SECONDS = 150.0
TOKEN = "what-kuberay-makes-up"


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


@contextlib.contextmanager
def ray_node(env: Mapping[str, str], ports: Mapping[str, int]) -> Iterator[None]:
    """One head node, as the head pod starts it; stopped with all its processes."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # short: sockets lie below it
        command = [
            *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2"),
            *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--object-store-memory=80000000"),
            *(f"--temp-dir={folder}", "--disable-usage-stats"),
            *(f"--{name}={number}" for name, number in ports.items()),
        ]
        with (Path(folder) / "head.log").open("w") as log:
            head = subprocess.Popen(
                command, env={**os.environ, "PYTHONPATH": str(ROOT), **env}, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                yield
            finally:
                head.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    head.wait(30)
                head.kill()
                head.wait()


def authorization() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}"}


def answers(url: str, headers: Mapping[str, str] | None = None) -> bool:
    request = urllib.request.Request(url, headers=dict(headers or {}))
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as response:
        return bool(response.status == 200)
    return False


def applications(dashboard: str, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The state of Serve; with a config, deploy it first, as KubeRay does."""
    url = f"{dashboard}/api/serve/applications/"
    if config is not None:
        headers = {"Content-Type": "application/json", **authorization()}
        request = urllib.request.Request(url, json.dumps(config).encode(), headers, method="PUT")
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.status == 200
    with urllib.request.urlopen(urllib.request.Request(url, headers=authorization()), timeout=30) as response:
        state: dict[str, Any] = json.load(response)["applications"]
        return state


def serve_config() -> dict[str, Any]:
    """The one in the chart's RayService, for workers without a GPU."""
    values = chart.example("gpu")
    values["components"]["decoder"]["ray"] |= {
        "worker": {"cpus": 1, "gpus": 0},
        "autoscaling": {"enabled": True, "min": 1, "max": 2, "targetGenerations": 4},
    }
    (service,) = [item for item in chart.render(values) if item["kind"] == "RayService"]
    config: dict[str, Any] = yaml.safe_load(service["spec"]["serveConfigV2"])
    return config


async def test_a_front_waits_for_the_charts_application_and_serves_it(tmp_path: Path) -> None:
    model = tiny_model_directory(tmp_path / "tiny-model")
    plan = tmp_path / "plan.json"
    plan.write_text(tiny_plan().to_json())
    config = serve_config()
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "http")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    config["http_options"] = {"host": "127.0.0.1", "port": ports.pop("http")}
    env = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",  # as KubeRay sets them on every Ray container, with authOptions.mode token
        "RAY_AUTH_TOKEN": TOKEN,
        "OMP_NUM_THREADS": "1",
        "MEMORY3_DECODER_BACKEND": "ray",
        "MEMORY3_DECODER_MODEL": str(model),
        "MEMORY3_DECODER_PLAN": str(plan),
        "MEMORY3_DECODER_AUTOSCALING_MAX": "2",
        "MEMORY3_DECODER_RAY_ADDRESS": f"127.0.0.1:{ports['port']}",
        "MEMORY3_DECODER_RAY_DEPLOY": "false",
        "MEMORY3_DECODER_PORT": "0",
        "MEMORY3_DECODER_DRAIN_SECONDS": "1",
    }
    log = tmp_path / "front.log"
    log.touch()
    front = ServiceProcess("services.decoder", env, log)
    dashboard = f"http://127.0.0.1:{ports['dashboard-port']}"
    probe = f"http://127.0.0.1:{ports['dashboard-agent-listen-port']}/api/local_raylet_healthz"
    with ray_node(env, ports):
        await until(lambda: answers(probe), "the page that the pods' probes ask", SECONDS)
        serve_page = f"{dashboard}/api/serve/applications/"
        await until(lambda: answers(serve_page, authorization()), "Ray's dashboard", SECONDS)
        assert not answers(serve_page), "whoever may deploy may run code"
        starting = asyncio.create_task(asyncio.to_thread(front.start, SECONDS))
        try:
            said = "waiting for the application memory3-decoder"
            await until(lambda: starting.done() or said in front.log, "the front's complaint", SECONDS)
            assert not starting.done()
            await asyncio.to_thread(applications, dashboard, config)
            await starting
            request = GenerationRequest(Mode.NONE, messages=(Message("user", "hello"),), max_tokens=4)
            async with DecoderClient(front.address) as client:
                events = [event async for event in client.generate(request, timeout=60)]
            assert isinstance(events[-1], FinalEvent)
        finally:
            await asyncio.gather(starting, return_exceptions=True)
            front.stop()
        # A front that goes leaves the application to whoever deployed it.
        assert (await asyncio.to_thread(applications, dashboard))["memory3-decoder"]["status"] == "RUNNING"
