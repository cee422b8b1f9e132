"""A Docker engine of our own below one folder, and the images of this repository built in it. Knows no stack."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tools import image_rules

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "tests" / "compose"
BASE, BUILD_BASE = "python:3.11-slim-bookworm", "memory3-test-build-base"


class Engine:
    """dockerd with its data below `work`; `seen` is what is told at the end."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.seen: dict[str, Any] = {"images": {}, "seconds": {}}
        self._host = f"unix://{work}/docker.sock"

    def run(self, *command: str, check: bool = True, timeout_s: float = 1800) -> str:
        """Output of a command that talks to our engine. Ends the run with its last lines when it fails."""
        env = {**os.environ, "DOCKER_HOST": self._host, "DOCKER_BUILDKIT": "0"}
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Says what goes on, and how long it took."""
        print(f"{name} ...", flush=True)
        began = time.monotonic()
        yield
        self.seen["seconds"][name] = round(time.monotonic() - began, 1)
        print(f"{name}: {self.seen['seconds'][name]} s", flush=True)

    def until(self, done: Callable[[], Any], limit_s: float, what: str) -> None:
        """Look once a second until it is so. Raises TimeoutError."""
        until = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > until:
                raise TimeoutError(f"{what}: not within {limit_s:g} s")
            time.sleep(1)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """dockerd; stopped at the end."""
        with (self.work / "dockerd.log").open("a") as log:
            folders = [f"--data-root={self.work}/data", f"--exec-root={self.work}/exec", f"--pidfile={self.work}/pid"]
            daemon = subprocess.Popen(["dockerd", *folders, f"-H={self._host}"], stdout=log, stderr=log)
        try:
            self.until(
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
        for wheel in wheels.glob("*.whl") if wheels else ():
            shutil.copy(wheel, context / "wheels")
        (context / "Dockerfile").write_text(
            f"FROM {BASE}\nCOPY ca.crt /etc/host-ca.crt\nCOPY wheels /wheels\n"
            "ENV PIP_CERT=/etc/host-ca.crt PIP_FIND_LINKS=/wheels\n"
        )
        self.run("docker", "build", "-t", BUILD_BASE, str(context))

    def build_tier(self, tier: str) -> None:
        """One of our images."""
        revision = self.run("git", "rev-parse", "HEAD").strip()
        arguments = {"BUILD_BASE": BUILD_BASE, "REVISION": revision}
        given = [item for name, value in arguments.items() for item in ("--build-arg", f"{name}={value}")]
        with self.step(f"build {tier}"):
            self.run("docker", "build", "-f", f"services/{tier}/Dockerfile", "-t", f"memory3-{tier}:0.1.0", *given, ".")

    def build_stand_in(self, name: str, file: str) -> None:
        """An image in the place of somebody else's."""
        folder = HERE / "stand-ins"
        given = ["-f", str(folder / f"{file}.Dockerfile"), "--build-arg", f"BUILD_BASE={BUILD_BASE}"]
        with self.step(f"build stand-in {name}"):
            self.run("docker", "build", *given, "-t", f"memory3-test-{name}", str(folder))

    def check_image(self, tier: str) -> None:
        """Look into one of our images; ends the run for what must not be there."""
        name, script = f"memory3-{tier}:0.1.0", HERE / "image_contents.py"
        command = ("docker", "run", "--rm", "--entrypoint", "python", "-v", f"{script}:/check.py:ro", name, "/check.py")
        inside = json.loads(self.run(*command))
        about = json.loads(self.run("docker", "image", "inspect", name))[0]
        base = json.loads(self.run("docker", "image", "inspect", BASE))[0]
        over_base_mb = (about["Size"] - base["Size"]) / 1e6
        history = self.run("docker", "history", "--no-trunc", name)
        wrong = image_rules.wrong(tier, about, inside, history, over_base_mb)
        if wrong:
            sys.exit(f"{name}: {'; '.join(wrong)}")
        self.seen["images"][tier] = {"MB": round(about["Size"] / 1e6), "MB_over_base": round(over_base_mb), **inside}


def host_ca() -> Path:
    """The authorities this machine trusts."""
    paths = ssl.get_default_verify_paths()
    return Path(paths.cafile or paths.openssl_cafile)
