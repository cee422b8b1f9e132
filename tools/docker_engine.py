"""A Docker engine of our own below one folder, and what its images of this repository hold. Knows no stack."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools import image_rules
from tools.images import BASE, ROOT, Images, image
from tools.steps import Steps

HERE = ROOT / "tests" / "compose"


class Engine(Steps):
    """dockerd with its data below `work`."""

    def __init__(self, work: Path) -> None:
        super().__init__()
        self.work = work
        self.seen["images"] = {}
        self.images = Images(functools.partial(self.run, "docker"), work)
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

    def check_image(self, tier: str) -> None:
        """Look into one of our images; ends the run for what must not be there."""
        name, script = image(tier), HERE / "image_contents.py"
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
