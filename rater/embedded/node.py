"""One Kafka node: its configuration, storage and process.

A node is broker and controller in one JVM. Invariants:

- It listens only on 127.0.0.1.
- It never outlives the Python process that started it. A "leash" ensures that: a tiny shell script reads from a pipe and kills
  the JVM when the pipe closes, however the Python process ended. (PR_SET_PDEATHSIG doesn't work here: it follows the *thread*
  that forked, and a broker may be started from a worker thread.)
- It counts as started once it has answered a request. A KRaft broker answers none before the controller has admitted it.
"""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from rater.embedded.runtime import EmbeddedKafkaError, Runtime
from rater.embedded.security import ClusterSecurity

HOST = "127.0.0.1"
MESSAGE_BYTES_MAX = 12 * 1024 * 1024
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
_POLL_S = 0.05
_LOG_TAIL_LINES = 25
# A length, then ApiVersions v0 (key 18) with correlation id 1 and no client id: every broker answers that.
_PROBE = struct.pack(">ihhih", 10, 18, 0, 1, -1)
_LEASH = 'read -r _; kill -9 "$0"'


class Node:
    """One node of an embedded cluster. You may call `start`, `stop` and `kill` repeatedly."""

    def __init__(
        self, node_id: int, folder: Path, runtime: Runtime, heap_mb: int, security: ClusterSecurity | None = None
    ) -> None:
        self.node_id = node_id
        self.folder = folder
        self.log_file = folder / "kafka.log"
        self._runtime = runtime
        self._heap_mb = heap_mb
        self._security = security
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The node's address for clients, "127.0.0.1:port"; only valid after `configure`."""
        return f"{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The JVM's process id; None if it isn't running."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def configure(self, cluster_id: str, port: int, controller_ports: Mapping[int, int], properties: Mapping[str, str]) -> None:
        """Write server.properties for these ports, and format the storage the first time. Raises EmbeddedKafkaError."""
        self._port = port
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = _properties(self.node_id, port, controller_ports, self.folder / "data")
        if self._security is not None:
            settings |= self._security.properties(HOST, port, controller_ports[self.node_id])
        settings |= dict(properties)
        self._config_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(cluster_id)

    def start(self) -> None:
        """Start the JVM; `wait_until_answering` waits until it is usable."""
        assert self.pid is None, f"node {self.node_id} is already running"
        with self.log_file.open("ab") as log:
            # Its own session: Ctrl-C in the terminal must reach only the Python process, which first stops what depends on
            # the broker.
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._config_file)),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        self._leash = subprocess.Popen(
            ["/bin/sh", "-c", _LEASH, str(self._process.pid)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def wait_until_answering(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return once the broker answers a request. Raises EmbeddedKafkaError if it ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if self.pid is None:
                code = self._process.returncode if self._process else None
                raise self._error(f"Kafka node {self.node_id} ended with code {code} instead of starting")
            if time.monotonic() > deadline:
                raise self._error(f"Kafka node {self.node_id} did not answer within {timeout_s:.0f} s")
            time.sleep(_POLL_S)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop it with SIGTERM, or by force if that takes too long. Does nothing if it isn't running."""
        self.ask_to_stop()
        self._wait_for_end(timeout_s)

    def ask_to_stop(self) -> None:
        """Send SIGTERM and return at once; then call `stop` to wait. To stop several nodes at the same time."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Kill it (SIGKILL), like a crash."""
        self._wait_for_end(0)

    @property
    def _config_file(self) -> Path:
        return self.folder / "server.properties"

    def _wait_for_end(self, timeout_s: float) -> None:
        process, leash = self._process, self._leash
        self._process = self._leash = None
        try:
            if process is not None:
                try:
                    process.wait(timeout_s)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        finally:
            # The leash kills the JVM's process id when its pipe closes. The JVM has ended, so that id may belong to another
            # process by now: kill the leash before closing its pipe.
            if leash is not None:
                leash.kill()
                leash.wait()
                assert leash.stdin is not None
                leash.stdin.close()

    def _format(self, cluster_id: str) -> None:
        users = [] if self._security is None else self._security.format_arguments()
        done = subprocess.run(
            self._java("kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(self._config_file), *users),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode:
            shutil.rmtree(self.folder / "data", ignore_errors=True)
            raise EmbeddedKafkaError(f"could not format {self.folder / 'data'}: {done.stderr or done.stdout}")

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        return [
            str(self._runtime.java),
            f"-Xms{min(self._heap_mb, 128)}m",
            f"-Xmx{self._heap_mb}m",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.net.preferIPv4Stack=true",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
            "-cp", self._runtime.classpath, main_class, *arguments,
        ]  # fmt: skip

    def _answers(self) -> bool:
        try:
            with self._connected() as connection:
                connection.sendall(_PROBE)
                return len(connection.recv(8)) == 8
        except OSError:
            return False

    def _connected(self) -> socket.socket:
        connection = socket.create_connection((HOST, self._port), timeout=1)
        return connection if self._security is None else self._security.wrapped(connection)

    def _error(self, what: str) -> EmbeddedKafkaError:
        lines = self.log_file.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        tail = "\n".join(f"  {line}" for line in lines) or "  (the log is empty)"
        return EmbeddedKafkaError(f"{what}. The end of {self.log_file}:\n{tail}")


def _properties(node_id: int, port: int, controller_ports: Mapping[int, int], data: Path) -> dict[str, str]:
    nodes = len(controller_ports)
    replicas = str(min(nodes, 3))
    in_sync_min = str(2 if nodes >= 3 else 1)
    voters = ",".join(f"{node}@{HOST}:{at}" for node, at in controller_ports.items())
    return {
        "process.roles": "broker,controller",
        "node.id": str(node_id),
        "controller.quorum.voters": voters,
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_ports[node_id]}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync_min,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync_min,
        "transaction.state.log.num.partitions": "8",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync_min,
        "group.initial.rebalance.delay.ms": "0",
        "message.max.bytes": str(MESSAGE_BYTES_MAX),
        "replica.fetch.max.bytes": str(MESSAGE_BYTES_MAX),
        # A killed node can't register again until its old session has timed out, 9 s by default.
        "broker.session.timeout.ms": "5000",
        "broker.heartbeat.interval.ms": "1000",
        # The log cleaner allocates this buffer on the heap at start, 128 MB by default.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        # Demos and tests replay calls of months ago with their original timestamps. Deletion by age would remove them within a
        # minute.
        "log.initial.task.delay.ms": str(2**31 - 1),
        "log.retention.check.interval.ms": str(2**31 - 1),
    }
