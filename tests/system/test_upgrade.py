"""A rolling upgrade as in docs/how-to/upgrade.md: one worker after the other under load, then one of them back again."""

import asyncio
import os
import shutil
import socket
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from rater import __version__
from rater.audit import Books, audit
from rater.embedded import EmbeddedKafka
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics
from tests.bench import traffic
from tests.system.harness import Worker, publish, read_outputs, until_done

ROOT = Path(__file__).parents[2]
OTHER_VERSION = "0.0.9"
ORGANIZATIONS = 40
BURST_CDRS = 100
BURST_EVERY_S = 0.1
READY_TIMEOUT_S = 30.0
#: Longer than a restart takes even on a busy machine.
SESSION_TIMEOUT_MS = 30_000


async def test_workers_are_upgraded_one_by_one_under_load_and_every_call_is_rated_once(
    kafka: EmbeddedKafka, topics: Topics, tmp_path: Path
) -> None:
    prefix = topics.cdr.removesuffix("telephony.cdr.v1")
    other = another_version(tmp_path / "other")
    ports = {1: free_port(), 2: free_port()}

    def worker(number: int, is_new: bool) -> Worker:
        """A worker with the instance id and the data of its number, in the new or the old version."""
        folder = tmp_path / f"worker-{number}"
        folder.mkdir(exist_ok=True)
        settings = {
            "RATER_INSTANCE_ID": f"worker-{number}",
            "RATER_HTTP_PORT": str(ports[number]),
            "RATER_SESSION_TIMEOUT_MS": str(SESSION_TIMEOUT_MS),
        }
        if is_new:
            return Worker(kafka.bootstrap, topics, prefix, folder, **settings)
        return Worker(kafka.bootstrap, topics, prefix, folder, code=str(other), RATER_PURE="1", **settings)

    await publish(kafka.bootstrap, topics, [*traffic.catalog(topics), *traffic.accounts(topics, ORGANIZATIONS)])
    workers = {1: worker(1, is_new=False), 2: worker(2, is_new=False)}
    try:
        for old in workers.values():
            old.start()
        for number in workers:
            assert await until_ready(ports[number], workers[number]) == OTHER_VERSION
        load = Load(kafka.bootstrap, topics)
        async with asyncio.TaskGroup() as group:
            loading, watching = group.create_task(load.publish()), group.create_task(load.watch())
            await asyncio.sleep(1)
            for number, is_new in ((1, True), (2, True), (2, False)):
                assert await asyncio.to_thread(workers[number].stop) == 0
                workers[number] = worker(number, is_new)
                workers[number].start()
                assert await until_ready(ports[number], workers[number]) == (__version__ if is_new else OTHER_VERSION)
            await asyncio.sleep(1)
            load.enough.set()
            await loading
            await until_done(kafka.bootstrap, topics, workers[1])
            watching.cancel()
        for ended in workers.values():
            assert await asyncio.to_thread(ended.stop) == 0
    finally:
        for left in workers.values():
            left.close()

    outputs = await read_outputs(kafka.bootstrap, topics)
    rated = Counter(cdr_id(record) for record in outputs if record.topic == topics.rated)
    assert rated.keys() == load.published
    assert set(rated.values()) == {1}
    assert not [record for record in outputs if record.topic == topics.dead_letter]
    assert audit(Books.of(topics, outputs)) == []
    print(f"{len(rated)} calls through three restarts; the longest a partition went without one: {load.longest_gap_s:.2f} s")


class Load:
    """Publishes calls all the time, and measures how long each partition goes without a rated call."""

    def __init__(self, bootstrap: str, topics: Topics) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        self._calls: Iterator[LogRecord] = traffic.calls(topics, 1_000_000, ORGANIZATIONS)
        self.published: set[str] = set()
        self.longest_gap_s = 0.0
        self.enough = asyncio.Event()

    async def publish(self) -> None:
        """Publish calls until `enough` is set."""
        while not self.enough.is_set():
            now_ms = time.time_ns() // 1_000_000
            burst = [msgspec.structs.replace(call, timestamp=now_ms) for call in islice(self._calls, BURST_CDRS)]
            await publish(self._bootstrap, self._topics, burst)
            self.published |= {cdr_id(call) for call in burst}
            await asyncio.sleep(BURST_EVERY_S)

    async def watch(self) -> None:
        """Watch the rated calls until it is cancelled."""
        tps = [TopicPartition(self._topics.rated, partition) for partition in range(self._topics.account_partitions)]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="latest",
            fetch_max_wait_ms=50,
        )
        await consumer.start()
        try:
            consumer.assign(tps)
            last_s: dict[TopicPartition, float] = defaultdict(time.monotonic)
            while True:
                for tp in await consumer.getmany(timeout_ms=100):
                    self.longest_gap_s = max(self.longest_gap_s, time.monotonic() - last_s[tp])
                    last_s[tp] = time.monotonic()
        finally:
            await consumer.stop()


def another_version(folder: Path) -> Path:
    """A copy of the code with another version number. Its core is not compiled."""
    for part in ("rater", "topics", "schemas", "samples", "deploy"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "built"))
    init = folder / "rater" / "__init__.py"
    text = init.read_text()
    assert f'__version__ = "{__version__}"' in text
    init.write_text(text.replace(f'__version__ = "{__version__}"', f'__version__ = "{OTHER_VERSION}"'))
    return folder


async def until_ready(port: int, worker: Worker) -> str:
    """Wait until the worker is ready. Returns the version that it reports."""
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    environment = os.environ | {"RATER_HTTP_PORT": str(port)}
    while True:
        probe = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rater.ops.probe", "readyz", env=environment, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await probe.communicate()
        if probe.returncode == 0:
            return await version_at(port)
        worker.check_alive()
        assert time.monotonic() < deadline_s, said.decode() + worker.log_tail()


async def version_at(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    (line,) = (line for line in text.splitlines() if line.startswith("rater_build_info{"))
    return line.partition('version="')[2].partition('"')[0]


def cdr_id(record: LogRecord) -> str:
    found: str = msgspec.json.decode(record.value or b"")["cdr_id"]
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
