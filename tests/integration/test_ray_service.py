"""What KubeRay does with a RayService, done by hand: a Ray node, the chart's own Serve config deployed to it, a front
that waits for it. KubeRay itself, several nodes and autoscaling of pods are not here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from memory3.decoder import DecoderClient
from memory3.types import FinalEvent, GenerationRequest, Message, Mode
from tests.helpers.processes import ServiceProcess
from tests.helpers.ray_head import free_port, ray_head
from tests.helpers.tiny_model import tiny_model_directory, tiny_plan
from tests.helpers.waiting import until
from tools import chart

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

SECONDS = 150.0
TOKEN = "what-kuberay-makes-up"


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
        try:
            urllib.request.urlopen(request, timeout=SECONDS).close()
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode(errors="replace")) from error
    with urllib.request.urlopen(urllib.request.Request(url, headers=authorization()), timeout=SECONDS) as response:
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
    config["http_options"] = {"host": "127.0.0.1", "port": free_port()}
    env = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",  # as KubeRay sets them on every Ray container, with authOptions.mode token
        "RAY_AUTH_TOKEN": TOKEN,
        "OMP_NUM_THREADS": "1",
        "MEMORY3_DECODER_BACKEND": "ray",
        "MEMORY3_DECODER_MODEL": str(model),
        "MEMORY3_DECODER_PLAN": str(plan),
        "MEMORY3_DECODER_AUTOSCALING_MAX": "2",
        "MEMORY3_DECODER_RAY_DEPLOY": "false",
        "MEMORY3_DECODER_PORT": "0",
        "MEMORY3_DECODER_DRAIN_SECONDS": "1",
    }
    log = tmp_path / "front.log"
    log.touch()
    dashboard_port = free_port()
    dashboard = f"http://127.0.0.1:{dashboard_port}"
    with ray_head(env, dashboard_port) as address:
        serve_page = f"{dashboard}/api/serve/applications/"
        await until(lambda: answers(serve_page, authorization()), "Ray's dashboard", SECONDS)
        assert not answers(serve_page), "whoever may deploy may run code"
        front = ServiceProcess("services.decoder", {**env, "MEMORY3_DECODER_RAY_ADDRESS": address}, log)
        starting = asyncio.create_task(asyncio.to_thread(front.start, 3 * SECONDS))
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
