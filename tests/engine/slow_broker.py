"""A TCP proxy in front of a broker: it delays data, limits the bandwidth, or cuts connections."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from rater.embedded import EmbeddedKafka
from rater.embedded.node import HOST

_CHUNK_BYTES = 16 * 1024


class Proxy:
    """Delays each piece of data by `delay_s` and limits each connection to `bytes_per_s` (0: no limit). Both may be changed."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.delay_s = 0.0
        self.bytes_per_s = 0
        self.connections = 0
        self._target_port = target_port
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Abort every connection at once, even in the middle of a message."""
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target_port)
            self._open |= {writer, far_writer}
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK_BYTES):
                wait_s = self.delay_s + (len(data) / self.bytes_per_s if self.bytes_per_s else 0.0)
                if wait_s:
                    await asyncio.sleep(wait_s)
                sink.write(data)
                await sink.drain()
        sink.close()
        self._open.discard(sink)


@asynccontextmanager
async def behind_proxy(folder: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """A broker whose clients connect through the proxy; the proxy, and the bootstrap address."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    proxy = Proxy(port)
    await proxy.start()
    address = f"{HOST}:{proxy.port}"
    try:
        async with EmbeddedKafka(folder, port=port, properties={"advertised.listeners": f"PLAINTEXT://{address}"}):
            yield proxy, address
    finally:
        await proxy.stop()
