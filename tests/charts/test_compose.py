"""docker-compose.yml and its overlays, by Docker Compose's own parser: valid, and in agreement with the services."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from memory3 import security
from tests.arch.test_settings import settings_of, variable
from tests.helpers.tree import ROOT
from tools.boot_compose import compose_binary, example_environment

OVERLAYS = {"cpu": ("docker-compose.yml",), "gpu": ("docker-compose.yml", "compose.gpu.yml")}
PROFILES = {"store", "index", "observability"}
SECRETS = ("S3_SECRET_KEY", "RAY_TOKEN", "GRAFANA_PASSWORD")


def compose(
    folder: Path, *arguments: str, env: dict[str, str], overlay: str = "cpu"
) -> subprocess.CompletedProcess[str]:
    env_file = folder / "env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in env.items()))
    files = [item for name in OVERLAYS[overlay] for item in ("-f", str(ROOT / name))]
    command = [str(compose_binary()), "--env-file", str(env_file), *files, *arguments]
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(command, capture_output=True, text=True, env=clean, timeout=60, check=False)


def parsed(folder: Path, overlay: str = "cpu", **changes: str) -> dict[str, Any]:
    env = example_environment(**dict.fromkeys(SECRETS, "a-secret"), **changes)
    done = compose(folder, "config", "--format", "json", env=env, overlay=overlay)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_it_is_valid(tmp_path: Path, overlay: str) -> None:
    assert {"retrieval", "memory", "decoder", "ray-head", "ray-worker"} <= parsed(tmp_path, overlay)["services"].keys()


@pytest.mark.parametrize("secret", SECRETS)
def test_a_missing_secret_is_named(tmp_path: Path, secret: str) -> None:
    env = example_environment(**{name: "a-secret" for name in SECRETS if name != secret})
    done = compose(tmp_path, "config", "-q", env=env)
    assert done.returncode != 0
    assert f"set {secret}" in done.stderr


def test_apps_alone_are_left_without_profiles(tmp_path: Path) -> None:
    there = parsed(tmp_path, COMPOSE_PROFILES="")["services"].keys()
    assert there == {"weights", "bootstrap", "retrieval", "memory", "ray-head", "ray-worker", "decoder"}


def test_every_variable_is_explained_and_used() -> None:
    files = "".join((ROOT / name).read_text() for name in OVERLAYS["gpu"])
    used = set(re.findall(r"\$\{(\w+)", files)) | {"COMPOSE_PROFILES"}
    assert used == example_environment().keys()


def test_every_variable_of_a_tier_is_a_setting(tmp_path: Path) -> None:
    known = {
        variable(cls, name, field)
        for service in ("retrieval", "memory", "decoder")
        for cls in settings_of(service)
        for name, field in cls.model_fields.items()
    } | set(security._VARIABLES.values())
    for overlay in OVERLAYS:
        for name, service in parsed(tmp_path, overlay)["services"].items():
            ours = {item for item in service.get("environment", {}) if item.startswith("MEMORY3_")}
            assert ours - known == set(), name


def test_our_containers_are_locked_down(tmp_path: Path) -> None:
    for name, service in parsed(tmp_path)["services"].items():
        if "memory3-" in service["image"]:
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"]
            assert "no-new-privileges:true" in service["security_opt"]
            assert not service.get("privileged")
            assert service.get("user", "10001") != "0"
        # Nothing is open to the network by default.
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name


def test_a_tmpfs_at_data_belongs_to_the_user_of_the_image(tmp_path: Path) -> None:
    at_data = [
        item
        for service in parsed(tmp_path)["services"].values()
        for item in service.get("tmpfs", [])
        if "/data" in item
    ]
    assert at_data
    assert all("uid=10001,gid=10001" in item for item in at_data)


def test_the_adapter_brings_its_own_plan(tmp_path: Path) -> None:
    environment = parsed(tmp_path)["services"]["ray-worker"]["environment"]
    assert environment["MEMORY3_DECODER_PLAN"] == ""


def test_images_of_others_are_pinned_and_can_be_swapped(tmp_path: Path) -> None:
    for name, service in parsed(tmp_path)["services"].items():
        assert re.search(r":v?\d[\w.-]*$|@sha256:", service["image"]), name
    swapped = parsed(tmp_path, S3_IMAGE="quay.io/other/store@sha256:" + "0" * 64)["services"]["s3"]["image"]
    assert swapped.startswith("quay.io/other/store@")


def test_mounted_files_exist(tmp_path: Path) -> None:
    for service in parsed(tmp_path)["services"].values():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), volume["source"]


@pytest.mark.parametrize("tier", ["retrieval", "memory", "decoder", "ingest"])
def test_dockerfiles_are_of_one_kind(tier: str) -> None:
    text = (ROOT / "services" / tier / "Dockerfile").read_text()
    assert f"'.[{tier}]'" in text
    assert "-c requirements/constraints.txt" in text
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert "FROM ${BASE}\n" in text
    assert ("HEALTHCHECK" in text) == (tier != "ingest")
    if tier != "ingest":
        (cls,) = settings_of(tier)
        assert f"EXPOSE {cls.model_fields['port'].default} 7310" in text
        assert f"MEMORY3_{tier.upper()}_HEALTH_PORT=7310" in text
    assert yaml.safe_load((ROOT / "charts/memory3/values.yaml").read_text())["runAsUser"] == 10001
