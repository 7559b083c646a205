"""A cluster of embedded Kafka nodes, for synchronous and async code.

With three or more nodes topics have three replicas, of which at least two must be in sync. With fewer nodes they have one. The
data stays in the folder: a cluster started on the same folder with the same number of nodes finds it again.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rater.embedded.node import HOST, START_TIMEOUT_S, Node
from rater.embedded.runtime import EmbeddedKafkaError, fetch
from rater.embedded.security import ClusterSecurity

_HEAP_MB = 512
_START_TRIES = 3


class EmbeddedKafka:
    """`brokers` Kafka nodes under `data_dir`, on free ports of 127.0.0.1 (the first one on `port`, if given).

    `properties` overrides broker settings. With `security`, clients need TLS, a user and rights.
    You may stop, kill and start single `nodes`.
    """

    def __init__(
        self,
        data_dir: Path | str,
        brokers: int = 1,
        *,
        port: int | None = None,
        heap_mb: int = _HEAP_MB,
        properties: Mapping[str, str] | None = None,
        security: ClusterSecurity | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        if brokers < 1:
            raise ValueError(f"brokers must be at least 1, not {brokers}")
        self.data_dir = Path(data_dir).absolute()
        self.nodes: list[Node] = []
        self._brokers = brokers
        self._port = port
        self._heap_mb = heap_mb
        self._properties = dict(properties or {})
        self._security = security
        self._start_timeout_s = start_timeout_s

    @property
    def bootstrap(self) -> str:
        """The address for clients: "127.0.0.1:port", comma separated for several brokers. Raises if it isn't running."""
        if not self.nodes:
            raise EmbeddedKafkaError("the embedded Kafka has not been started")
        return ",".join(node.address for node in self.nodes)

    @property
    def replication_factor(self) -> int:
        """How many replicas topics get."""
        return min(self._brokers, 3)

    def start(self) -> None:
        """Start all nodes and return once all answer. If it raises EmbeddedKafkaError, nothing is left running."""
        if self.nodes:
            raise EmbeddedKafkaError("the embedded Kafka is already running")
        runtime = fetch()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        for left in reversed(range(_START_TRIES)):
            self.nodes = [
                Node(number, self.data_dir / f"node-{number}", runtime, self._heap_mb, self._security)
                for number in range(1, self._brokers + 1)
            ]
            try:
                self._start_nodes()
                return
            except EmbeddedKafkaError as error:
                self.stop()
                # A port that was free when we looked may be taken by the time the broker binds it.
                if not left or "Address already in use" not in str(error):
                    raise
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Stop all nodes. Does nothing if none is running."""
        # All at once: if they stopped one by one, the last ones would wait for a quorum that is gone.
        for node in self.nodes:
            node.ask_to_stop()
        for node in self.nodes:
            node.stop()
        self.nodes = []

    def _start_nodes(self) -> None:
        if self._port is not None:
            _check_free(self._port)
        ports = _free_ports(2 * self._brokers)
        controller_ports = {node.node_id: ports.pop() for node in self.nodes}
        client_ports = ports if self._port is None else [self._port, *ports[1:]]
        cluster_id = self._cluster_id()
        for node, port in zip(self.nodes, client_ports, strict=True):
            node.configure(cluster_id, port, controller_ports, self._properties)
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_until_answering(self._start_timeout_s)

    def _cluster_id(self) -> str:
        file = self.data_dir / "cluster.id"
        if not file.exists():
            file.write_text(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))
        return file.read_text()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)


def _free_ports(count: int) -> list[int]:
    """Free ports. All sockets stay open until all ports are found, so that the ports differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for holder in held:
            holder.bind((HOST, 0))
        return [int(holder.getsockname()[1]) for holder in held]
    finally:
        for holder in held:
            holder.close()


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise EmbeddedKafkaError(f"port {port} of {HOST} is taken: {error.strerror}") from error
