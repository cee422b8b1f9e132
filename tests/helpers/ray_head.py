"""A head node of Ray in a process of its own, with its own environment: started, and stopped with all its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping

from tests.helpers.processes import ROOT

_HEAD = """
import signal, sys, ray
dashboard = int(sys.argv[1])
ray.init(
    num_cpus=2, include_dashboard=bool(dashboard), dashboard_host="127.0.0.1", dashboard_port=dashboard or None,
    object_store_memory=80_000_000, _node_ip_address="127.0.0.1", _system_config={"worker_niceness": 0},
    log_to_driver=False,
)
print("gcs", ray.get_runtime_context().gcs_address, flush=True)
signal.pause()
"""
"""A Ray node as the head pod has it; not `ray start`, which ends with any of its helpers, on a busy machine too."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def ray_head(env: Mapping[str, str], dashboard_port: int = 0) -> Iterator[str]:
    """The address of a head node that has started; without a dashboard if that has no port."""
    with subprocess.Popen(
        [sys.executable, "-c", _HEAD, str(dashboard_port)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as head:
        try:
            assert head.stdout is not None
            said = (line.split() for line in head.stdout)
            address = next((words[1] for words in said if words[:1] == ["gcs"]), None)
            assert address is not None, "the head ended before it told its address"
            yield address
        finally:
            head.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                head.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(head.pid, signal.SIGKILL)
