"""Our services as real processes: started from their modules, on free ports, stopped and cleaned up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]


class ServiceProcess:
    """One `python -m <module>` with its own environment; its output goes to `log`."""

    def __init__(self, module: str, env: Mapping[str, str], log: Path) -> None:
        self._module = module
        self._env = dict(env)
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self.address = ""
        self.health_address = ""

    def start(self, timeout_s: float = 90.0, *, wait_serving: bool = True) -> None:
        """Start, and wait until it listens (and, if wanted, says SERVING).

        Raises AssertionError with the end of its log when it does not.
        """
        with self._log.open("a") as log:
            offset = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self._env},
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_s
        self.address = self._read_address(offset, deadline)
        if wait_serving:
            with grpc.insecure_channel(self.health_address or self.address) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                request = health_pb2.HealthCheckRequest()
                while stub.Check(request, timeout=10).status != health_pb2.HealthCheckResponse.SERVING:
                    self._still_alive(deadline)
                    time.sleep(0.05)

    def restart_on_same_port(self, port_variable: str, timeout_s: float = 90.0) -> None:
        """Start again where clients still look for it."""
        self._env[port_variable] = self.address.rsplit(":", 1)[1]
        self.start(timeout_s)

    def kill(self) -> None:
        """SIGKILL to the process and its children, and wait for its end."""
        self._signal(signal.SIGKILL)

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, then SIGKILL to what is left; returns the exit code."""
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout_s)
        self._signal(signal.SIGKILL)
        return process.returncode

    def pause(self) -> None:
        """SIGSTOP: the process keeps its connections and answers nothing."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """All it has printed."""
        return self._log.read_text()

    def _read_address(self, offset: int, deadline: float) -> str:
        while True:
            for line in self._log.read_text()[offset:].splitlines():
                if line.startswith("health on "):  # said before the address, where the settings want such a port
                    self.health_address = line.removeprefix("health on ").strip()
                if line.startswith("listening on "):
                    return line.removeprefix("listening on ").strip()
            self._still_alive(deadline)
            time.sleep(0.02)

    def _still_alive(self, deadline: float) -> None:
        assert self._process is not None
        tail = "\n".join(self.log.splitlines()[-30:])
        assert self._process.poll() is None, f"{self._module} ended with {self._process.returncode}:\n{tail}"
        assert time.monotonic() < deadline, f"{self._module} is not ready in time:\n{tail}"

    def _signal(self, number: int) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        self._process.wait(10)


@contextlib.contextmanager
def service_process(module: str, env: Mapping[str, str], log: Path) -> Iterator[ServiceProcess]:
    """A started service; stopped at the end of the block, whatever happened in it."""
    process = ServiceProcess(module, env, log)
    try:
        process.start()
        yield process
    finally:
        process.stop()
