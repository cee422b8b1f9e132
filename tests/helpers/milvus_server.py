"""A real Milvus server (package milvus 2.3.5) for tests: in a temporary folder, killed and restarted at will.

Only one runs on a machine at a time (two disturb each other), so a lock is held as long as it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

_LOCK = Path(tempfile.gettempdir()) / "memory3-milvus.lock"
_BINARIES = Path(tempfile.gettempdir()) / "memory3-milvus-2.3.5-bin"
"""250 MB of unpacked libraries, kept between sessions: unpacking takes longer than starting."""


class MilvusProcess:
    """One standalone server; `uri` stays the same over restarts."""

    def __init__(self, folder: Path) -> None:
        import milvus

        (folder / "bin").symlink_to(_BINARIES, target_is_directory=True)
        _BINARIES.mkdir(exist_ok=True)
        milvus._initialize_data_files(str(folder))
        self._config = milvus.MilvusServerConfig(data_dir=str(folder), **_free_ports())
        self._config.resolve()
        self._folder = folder
        self._health_port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://127.0.0.1:{self._config.get('proxy_port')}"

    def start(self, timeout_s: float = 90.0) -> None:
        """Start the server and wait until it says that it is healthy."""
        environment = os.environ | {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(self._health_port),
            "MILVUS_RUN_DIR": str(self._folder / "run"),
            "LD_LIBRARY_PATH": str(_BINARIES),
        }
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(_BINARIES / "milvus"), "run", "standalone"],
                cwd=self._folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_s
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self._folder / "server.log").read_bytes()[-2000:].decode(errors="replace")
                self.kill()
                raise RuntimeError(f"Milvus did not start within {timeout_s} s:\n{tail}")
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL, as a crash would; its data stay."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=10)
            self._process = None

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health_port}/healthz", timeout=2) as answer:
                return b"OK" in answer.read()
        except (urllib.error.URLError, OSError):
            return False


@contextlib.contextmanager
def milvus_server() -> Iterator[MilvusProcess]:
    """A started server, for as long as the block lasts; waits while another session has one."""
    with _LOCK.open("w") as lock, tempfile.TemporaryDirectory(prefix="memory3-milvus-") as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = MilvusProcess(Path(folder))
        process.start()
        try:
            yield process
        finally:
            process.kill()


def _free_ports() -> dict[str, int]:
    names = "etcd root_coord proxy proxy_internal query_coord query_node index_coord index_node data_coord data_node"
    return {f"{name}_port": _free_port() for name in names.split()}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
