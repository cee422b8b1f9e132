"""What each of our images may hold. Knows what tests/compose/image_contents.py reports, and not how it was run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]

VENDORS = {
    "memory": {"obstore", "minio"},
    "retrieval": {"torch", "pymilvus", "numpy", "tokenizers"},
    "decoder": {"torch", "ray", "numpy", "tokenizers"},
    "ingest": {"numpy", "tokenizers", "bs4", "pip", "setuptools"},
}
"""Packages that a tier may have, of those that image_contents.py looks for."""

MB_OVER_BASE = {"memory": 150, "ingest": 200, "retrieval": 1900, "decoder": 1900}
"""Size above the base image, at most; CPU builds of torch."""

OURS = {"data", "weights"}
DEBIAN = {
    "bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media", "mnt", "opt", "proc", "root",
    "run", "sbin", "srv", "sys", "tmp", "usr", "var",
}  # fmt: skip
PORTS = {"memory": 7302, "retrieval": 7301, "decoder": 7303}
WRITABLE = {"/data", "/tmp", "/var/tmp", "/run/lock", "/weights"}
SECRET = ("SECRET", "TOKEN", "PASSWORD", "ACCESS_KEY", "PIP_")


def wrong(tier: str, about: Facts, inside: Facts, history: str, over_base_mb: float) -> list[str]:
    """What is wrong with the image of a tier; empty if nothing is.

    `about`: docker image inspect; `inside`: image_contents.py; `history`: docker history, all of it.
    """
    config = about["Config"]
    labels = config["Labels"] or {}
    ports = set() if tier == "ingest" else {f"{PORTS[tier]}/tcp", "7310/tcp"}
    kept = {"/wheels", "/src", "host-ca"}
    found = {
        "runs as root": inside["uid"] == 0 or config["User"] != "10001:10001",
        f"modules {set(inside['modules']) - VENDORS[tier]}": not set(inside["modules"]) <= VENDORS[tier],
        f"build tools {inside['tools']}": bool(inside["tools"]),
        f"at the top {set(inside['top']) - DEBIAN - OURS}": not set(inside["top"]) <= DEBIAN | OURS,
        f"in /opt {inside['opt']}": inside["opt"] != ["memory3"],
        f"services {inside['services']}": inside["services"] != sorted({"common", tier}),
        "no bytecode: each start would compile it anew": not inside["bytecode"],
        "CUDA libraries": inside["nvidia"],
        f"left over: {inside['left_over']}": bool(inside["left_over"]),
        f"private keys: {inside['keys']}": bool(inside["keys"]),
        f"writable: {set(inside['writable']) - WRITABLE}": not set(inside["writable"]) <= WRITABLE,
        f"label title {labels.get('org.opencontainers.image.title')}": labels.get("org.opencontainers.image.title")
        != f"memory3-{tier}",
        "labels description, version, revision": not all(
            labels.get(f"org.opencontainers.image.{name}") for name in ("description", "version", "revision")
        ),
        "a health check, or none": bool(config.get("Healthcheck")) != (tier != "ingest"),
        f"ports {config.get('ExposedPorts')}": set(config.get("ExposedPorts") or ()) != ports,
        "a secret, or pip's settings, in the environment": any(
            mark in item.partition("=")[0] for item in config["Env"] for mark in SECRET
        ),
        "traces of the build in the history": any(mark in history for mark in kept),
        f"{over_base_mb:.0f} MB above the base, {MB_OVER_BASE[tier]} at most": over_base_mb > MB_OVER_BASE[tier],
    }
    return [what for what, is_so in found.items() if is_so]
