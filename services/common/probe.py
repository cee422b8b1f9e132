"""`python -m services.common.probe PORT [SERVICE]`: exit 0 if grpc.health.v1 on this machine says SERVING.

The health check of an image. SERVICE "alive": the event loop turns; none: the tier can serve.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_S = 3.0


def is_serving(port: int, service: str = "") -> bool:
    """Whether the server says so; False, too, where none answers."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_TIMEOUT_S)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def main() -> None:
    """Command line."""
    if len(sys.argv) not in (2, 3) or not sys.argv[1].isdecimal():
        sys.exit("usage: python -m services.common.probe PORT [SERVICE]")
    sys.exit(0 if is_serving(int(sys.argv[1]), *sys.argv[2:]) else 1)


if __name__ == "__main__":
    main()
