"""A real S3 server (SeaweedFS) in a process of its own: on free ports, in a folder of its own, gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import minio
import urllib3
from minio.error import S3Error

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret-0123456789"
READ_ONLY_ACCESS_KEY, READ_ONLY_SECRET_KEY = "test-reader", "test-reader-secret-0123"

_IDENTITIES = {
    "identities": [
        {
            "name": "writer",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": READ_ONLY_ACCESS_KEY, "secretKey": READ_ONLY_SECRET_KEY}],
            "actions": ["Read", "List"],
        },
    ]
}
_GRPC_OFFSET = 10_000
"""Each of its services also listens at its port + this."""


class S3Server:
    """`weed mini`; killed and started again it serves the same objects at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = _free_ports(6)
        s3, master, volume, filer, admin, metrics = self._ports
        self.endpoint = f"http://127.0.0.1:{s3}"
        self._address = f"127.0.0.1:{s3}"
        self._metrics = f"http://127.0.0.1:{metrics}/metrics"
        for name in ("data", "log"):
            (folder / name).mkdir(parents=True)
        (folder / "s3.json").write_text(json.dumps(_IDENTITIES))
        self._command = [
            str(Path(sys.executable).with_name("weed")),
            f"-logdir={folder / 'log'}",
            "mini",
            f"-dir={folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.port={s3}",
            f"-s3.config={folder / 's3.json'}",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            f"-admin.port={admin}",
            f"-metricsPort={metrics}",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]

    def uri(self, bucket: str) -> str:
        """The store URI of a bucket here."""
        return f"s3://{bucket}?endpoint={self.endpoint}"

    def admin(self) -> minio.Minio:
        """A client that may do all."""
        pool = urllib3.PoolManager(timeout=urllib3.Timeout(5.0), retries=False)
        return minio.Minio(
            self._address,
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            secure=False,
            region="us-east-1",
            http_client=pool,
        )

    def sent_bytes(self, bucket: str) -> int:
        """Bytes of objects it has sent since it started; it counts a moment after the receiver has them."""
        counter = f'SeaweedFS_s3_bucket_traffic_sent_bytes_total{{bucket="{bucket}"}} '
        metrics = urllib3.request("GET", self._metrics, timeout=10.0).data.decode()
        return sum(int(float(line.removeprefix(counter))) for line in metrics.splitlines() if line.startswith(counter))

    def start(self, timeout_s: float = 60.0) -> None:
        """Start, and wait until it takes a signed write. Raises AssertionError with the end of its log otherwise."""
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_s
        client = self.admin()
        while True:
            with contextlib.suppress(S3Error, urllib3.exceptions.HTTPError, OSError):
                if not client.bucket_exists(bucket_name="ready"):
                    client.make_bucket(bucket_name="ready")
                client.put_object(bucket_name="ready", object_name="ready", data=_Once(b"ready"), length=5)
                return
            tail = (self._folder / "output").read_text(errors="replace")[-2000:]
            assert self._process.poll() is None, f"weed ended with {self._process.returncode}:\n{tail}"
            assert time.monotonic() < deadline, f"weed takes no writes:\n{tail}"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def remove_sockets(self) -> None:
        """It keeps Unix sockets in /tmp, whatever TMPDIR says, and leaves them there when killed."""
        for port in self._ports:
            for number in (port, port + _GRPC_OFFSET):
                for path in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    path.unlink(missing_ok=True)

    def pause(self) -> None:
        """SIGSTOP: connections stay, nothing is answered."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)


class _Once:
    """The bytes as a stream, which is what the SDK wants."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, _: int = -1) -> bytes:
        data, self._data = self._data, b""
        return data


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """A started server; killed and its folder removed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="memory3-s3-", ignore_cleanup_errors=True) as folder:
        server = S3Server(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.kill()
            server.remove_sockets()


def _free_ports(count: int) -> list[int]:
    """Ports that are free together with their gRPC twins."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            http, grpc = (held.enter_context(socket.socket()) for _ in range(2))
            http.bind(("127.0.0.1", 0))
            port = http.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):  # taken, or beyond 65535: on to the next
                grpc.bind(("127.0.0.1", port + _GRPC_OFFSET))
                ports.append(port)
    return ports
