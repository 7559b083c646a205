"""A real worker on a real broker, and what a `read_committed` reader sees of its output."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from rater.domain.dead_letters import OFFSET_HEADER, PARTITION_HEADER
from rater.kafka.clients import lag
from rater.kafka.log import LogRecord
from rater.kafka.partitioning import partition_of
from rater.kafka.topics import Topics

APP_ID_PREFIX = "rater-"
UP_TIMEOUT_S = 30.0
DONE_TIMEOUT_S = 150.0


class Worker:
    """`rater worker` as a separate process, which can be killed and started again."""

    def __init__(
        self,
        bootstrap: str,
        topics: Topics,
        prefix: str,
        directory: Path,
        agents: str = "rating",
        code: str | None = None,
        **settings: str,
    ) -> None:
        """`code` is a folder that holds another version of the package `rater`; None runs this version."""
        self.app_id = APP_ID_PREFIX + prefix.rstrip(".")
        self._agents = agents
        self._code = code
        self._log = directory / f"{agents}.log"
        self._environment = os.environ | {
            "RATER_BOOTSTRAP": bootstrap,
            "RATER_TOPIC_PREFIX": prefix,
            "RATER_APP_ID": self.app_id,
            "RATER_INSTANCE_ID": "worker-1",
            "RATER_PARTITIONS": str(topics.account_partitions),
            "RATER_DATA_DIR": str(directory / "data"),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._started_at = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rater", "worker", "--agents", self._agents],
                env=self._environment,
                cwd=self._code,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> int:
        """Send SIGTERM, once the worker handles it. Returns the exit code."""
        assert self._process is not None
        deadline_s = time.monotonic() + UP_TIMEOUT_S
        while b"agents: " not in self._log.read_bytes()[self._started_at :] and self._process.poll() is None:
            assert time.monotonic() < deadline_s, self.log_tail()
            time.sleep(0.05)
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(30)
        self._process = None
        return code

    def close(self) -> None:
        if self._process is not None:
            self.kill()

    def check_alive(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the worker ended with {self._process.returncode}:\n{self.log_tail()}")

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def log_tail(self) -> str:
        return self.log[-4000:]


async def publish(bootstrap: str, topics: Topics, records: Iterable[LogRecord]) -> None:
    """Publish each record to the partition of its key, as any producer would."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, max_request_size=4_000_000)
    await producer.start()
    catalog = {topics.plan, topics.rate}
    sends = []
    for record in records:
        partition = 0 if record.topic in catalog else partition_of((record.key or b"").decode(), topics.account_partitions)
        sends.append(
            await producer.send(
                record.topic,
                record.value,
                key=record.key,
                partition=partition,
                timestamp_ms=record.timestamp,
                headers=list(record.headers),
            )
        )
    await producer.flush()
    for send in sends:
        await send
    await producer.stop()


async def until_done(bootstrap: str, topics: Topics, worker: Worker) -> None:
    """Wait until all input is committed."""
    await until_below(1, bootstrap, topics, worker)


async def until_below(records: int, bootstrap: str, topics: Topics, worker: Worker) -> int:
    """Wait until fewer than `records` input records are left to commit. Returns how many are left."""
    deadline_s = time.monotonic() + DONE_TIMEOUT_S
    while (left := await lag(bootstrap, topics, worker.app_id)) >= records:
        worker.check_alive()
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{left} records were left after {DONE_TIMEOUT_S} s:\n{worker.log_tail()}")
        await asyncio.sleep(0.05)
    return left


async def read_outputs(bootstrap: str, topics: Topics) -> list[LogRecord]:
    """Every committed record of the rater's output topics, each partition in its order."""
    names = [getattr(topics, name) for name in OUTPUTS]
    tps = [TopicPartition(topic, p) for topic in names for p in range(topics.account_partitions)]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        found: list[LogRecord] = []
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [LogRecord(r.topic, r.timestamp, r.key, r.value, r.headers) for r in records]
        return found
    finally:
        await consumer.stop()


OUTPUTS = ("rated", "ledger", "event", "state", "notification", "recharge_request", "directory", "dead_letter")
_PLACE_HEADERS = {PARTITION_HEADER, OFFSET_HEADER}  # a log has no partitions


def by_organization(topics: Topics, records: Sequence[LogRecord]) -> dict[tuple[str, bytes | None], list[Any]]:
    """Topic and key → records in order. Of the compacted state topic, only the latest record."""
    found: dict[tuple[str, bytes | None], list[Any]] = defaultdict(list)
    for record in records:
        place = (record.topic, record.key)
        headers = tuple((name, value) for name, value in record.headers if name not in _PLACE_HEADERS)
        if record.topic == topics.state:
            found[place] = []
        found[place].append((record.timestamp, record.value, headers))
    return dict(found)


def assert_same(topics: Topics, expected: Sequence[LogRecord], actual: Sequence[LogRecord]) -> None:
    """Compare, organization by organization and record by record."""
    wanted, found = by_organization(topics, expected), by_organization(topics, actual)
    assert wanted.keys() == found.keys()
    for place, records in wanted.items():
        for i, (a, b) in enumerate(zip(records, found[place], strict=False)):
            assert a == b, f"{place} record {i}:\nexpected {a}\nfound    {b}"
        assert len(records) == len(found[place]), (place, len(records), len(found[place]))
