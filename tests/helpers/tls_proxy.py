"""TLS in front of a server that speaks none: handshakes with real certificates, bytes passed on as they are."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator

from tests.helpers.certificates import Pair

_PIECE = 65_536


@contextlib.contextmanager
def tls_proxy(target: str, pair: Pair, *, alpn: str) -> Iterator[str]:
    """Address of a TLS port (localhost:port) that leads to `target` ("host:port"); `alpn` is what it offers."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    context.set_alpn_protocols([alpn])
    host, _, port = target.rpartition(":")

    async def serve(client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pass_on(client, writer), _pass_on(reader, answer))

    loop = asyncio.new_event_loop()  # in a thread, for the test may run one of its own
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    starting = asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    server = asyncio.run_coroutine_threadsafe(starting, loop).result(10)
    try:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """All that comes; a broken connection ends it as an ended one does."""
    with contextlib.suppress(OSError, ssl.SSLError):
        while piece := await source.read(_PIECE):
            sink.write(piece)
            await sink.drain()
    with contextlib.suppress(OSError, ssl.SSLError):
        sink.close()
        await sink.wait_closed()


async def _end(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
