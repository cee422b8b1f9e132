"""What the S3 store makes of answers that a healthy server does not give: a small server says them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from memory3.errors import BackendUnavailableError, Memory3Error, StorageDeniedError, StorageFullError
from services.memory.config import S3Location
from services.memory.s3_store import S3ObjectStore


class Server(ThreadingHTTPServer):
    """Keeps objects and ignores If-None-Match, as some gateways do; or answers everything with `answer`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.answer: tuple[int, str] | None = None
        self.hold = threading.Event()
        self.hold.set()

    def handle_error(self, *_: object) -> None:
        """A client that gave up is what some of these tests want."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        """Silent."""

    def _say(self, status: int, body: bytes = b"", size: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Sun, 22 Nov 2026 12:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.hold.wait(5)
        if self.server.answer is not None:
            status, code = self.server.answer
            self._say(status, b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode())
        elif self.command == "PUT":
            self.server.objects[self.path] = body
            self._say(200)
        elif self.command == "DELETE" or "?delete" in self.path:
            self.server.objects.clear()
            self._say(200, b"<DeleteResult></DeleteResult>")
        elif self.path not in self.server.objects:
            self._say(404)
        elif self.command == "HEAD":
            self._say(200, size=len(self.server.objects[self.path]))
        else:
            self._say(200, self.server.objects[self.path])

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.hold.set()
        server.shutdown()
        thread.join()


def make_store(server: Server, timeout_s: float = 5.0) -> S3ObjectStore:
    endpoint = f"http://127.0.0.1:{server.server_port}"
    location = S3Location("bucket", endpoint, "us-east-1", path_style=True, create=True)
    return S3ObjectStore(location, "access", "the-secret", timeout_s=timeout_s)


async def test_a_server_that_overwrites_is_found_out_and_kept_from_it(server: Server) -> None:
    store = make_store(server)
    assert await store.put_new("a", b"first")
    assert not await store.put_new("a", b"second")
    assert await store.get("a", 100) == b"first"


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDenied", StorageDeniedError),
        (403, "SignatureDoesNotMatch", StorageDeniedError),
        (401, "", StorageDeniedError),
        (403, "QuotaExceeded", StorageFullError),
        (507, "", StorageFullError),
        (507, "XMinioStorageFull", StorageFullError),
        (503, "SlowDown", BackendUnavailableError),
        (500, "InternalError", BackendUnavailableError),
        (501, "NotImplemented", BackendUnavailableError),
        (404, "NoSuchBucket", BackendUnavailableError),
    ],
)
async def test_answers_are_translated(server: Server, status: int, code: str, error: type[Memory3Error]) -> None:
    store = make_store(server, timeout_s=0.5)
    assert await store.put_new("a", b"first")
    server.answer = (status, code)
    with pytest.raises(error) as caught:
        await store.replace("a", b"x")
    assert "bucket" in str(caught.value)
    assert "the-secret" not in str(caught.value)
    assert len(str(caught.value)) < 500, "obstore's debug output is in the message"


async def test_a_bucket_that_is_gone_is_not_a_missing_object(server: Server) -> None:
    store = make_store(server)
    server.answer = (404, "NoSuchBucket")
    with pytest.raises(BackendUnavailableError):
        await store.get("a", 100)
    server.answer = (404, "NoSuchKey")
    assert await store.get("a", 100) is None


async def test_no_answer_is_unavailable_in_time(server: Server) -> None:
    store = make_store(server, timeout_s=0.2)
    server.hold.clear()
    with pytest.raises(BackendUnavailableError):
        await store.get("a", 100)
    with pytest.raises(BackendUnavailableError, match="does not answer"):
        await store.check()


async def test_nobody_listens() -> None:
    with Server() as unused:
        store = make_store(unused)
    with pytest.raises(BackendUnavailableError):
        await store.get("a", 100)
    with pytest.raises(BackendUnavailableError, match="is the S3 server up"):
        await store.check()
