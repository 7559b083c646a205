"""Restore to an empty disk: a million rows from the changelog into the store, with the engine's own restore.

Then the same for what live traffic leaves, transactions of a few calls: a whole worker, until it is ready.
"""

import asyncio
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from rich.console import Console
from rich.table import Table

from rater.bootstrap import engine_settings
from rater.engine.aiokafka_broker import AiokafkaBroker
from rater.engine.api import Record, Sink, State
from rater.engine.checkpoint import Checkpoint
from rater.engine.groups import TaskId
from rater.engine.stats import EngineStats
from rater.engine.store import StoreIdentity, open_store
from rater.settings import Settings
from tests.bench import traffic
from tests.bench.cluster import Cluster, cluster, drain
from tests.engine.inline_agent import InlineAgent
from tests.system.harness import Worker, until_done

ROWS = 1_000_000
BATCH = 20_000
VALUE = b"x" * 120
DAY = 20_000
LIVE_CALLS = 80_000
LIVE_BATCH = 8  # as at some 1,000 calls a second
_OPEN = "open, reading on"
_PARTITIONS = 4
_CLEANS_OFTEN = {"log.cleaner.backoff.ms": "500"}
_QUIET_S = 8.0
_SCATTER = 0x9E3779B97F4A7C15  # keys come in random order, like accounts and calls


class _Writer:
    """Writes rows at every tick: half of them as single rows, half packed in segments."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._written = 0

    async def process(self, records: Sequence[Record]) -> None:
        """There is no input."""

    def next_due_ms(self) -> int | None:
        """It is always due."""
        return 0

    async def tick(self, now_ms: int) -> None:
        """Write the next rows."""
        for number in range(self._written, self._written + BATCH):
            key = b"%016x" % (number * _SCATTER % 2**64)
            if number % 2:
                self._state.put(b"p" + key, VALUE)
            else:
                self._state.append(DAY, b"a" + key, VALUE)
        self._written += BATCH


async def run(console: Console, quick: bool) -> None:
    """Measure and print."""
    await _rows(console, quick)
    await _live(console, quick)


async def _live(console: Console, quick: bool) -> None:
    """Rate calls a few at a time; then time the worker's start with its store and without."""
    calls = LIVE_CALLS // 10 if quick else LIVE_CALLS
    async with cluster(properties=_CLEANS_OFTEN) as made:
        await made.fill(traffic.calls(made.topics, calls, 200))
        worker = made.worker(RATER_BATCH_RECORDS_MAX=str(LIVE_BATCH))
        await drain(made, worker)
        warm_s = await _ready_s(worker)
        as_written_s = await _without_its_disk(made, worker) - warm_s
        written_bytes = _changelog_bytes(made)
        await _compact(made, worker)
        warm_s = await _ready_s(worker)
        compacted_s = await _without_its_disk(made, worker) - warm_s
        kept_bytes = _changelog_bytes(made)
    table = Table(
        f"{calls:,} calls, {LIVE_BATCH} per transaction", "bytes per call", "s above a start with its disk", "calls/s"
    )
    table.add_row("as written", f"{written_bytes / calls:.0f}", f"{as_written_s:.2f}", f"{calls / as_written_s:,.0f}")
    table.add_row("compacted", f"{kept_bytes / calls:.0f}", f"{compacted_s:.2f}", f"{calls / compacted_s:,.0f}")
    console.print(table)


async def _without_its_disk(made: Cluster, worker: Worker) -> float:
    """Seconds to start without the store. It must be the same member, or the group would wait for the old one."""
    shutil.rmtree(made.directory / "worker-1" / "data")
    return await _ready_s(worker)


async def _compact(made: Cluster, worker: Worker) -> None:
    """Make the broker compact the changelog; returns once the log stops changing."""
    admin = AIOKafkaAdminClient(bootstrap_servers=made.bootstrap)
    await admin.start()
    wanted = made.topics[made.topics.changelog].configs | {"segment.ms": "1000", "min.cleanable.dirty.ratio": "0.001"}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, made.topics.changelog, configs=wanted)])
    await admin.close()
    # The active segment is never compacted: a few more calls start a new one.
    await asyncio.sleep(1.5)
    await made.fill(traffic.calls(made.topics, 400, 200, seed=2, switch="later"))
    worker.start()
    await until_done(made.bootstrap, made.topics, worker)
    assert await asyncio.to_thread(worker.stop) == 0
    size, since_s = 0, time.monotonic()
    while time.monotonic() - since_s < _QUIET_S:
        await asyncio.sleep(0.5)
        if (now := _changelog_bytes(made)) != size:
            size, since_s = now, time.monotonic()


def _changelog_bytes(made: Cluster) -> int:
    logs = (made.directory / "kafka").rglob(f"{made.topics.changelog}-*/*.log")
    return sum(log.stat().st_size for log in logs)


async def _ready_s(worker: Worker) -> float:
    """Seconds from start until all partitions are open; then stops it."""
    before = worker.log.count(_OPEN)
    start_s = time.perf_counter()
    worker.start()
    while worker.log.count(_OPEN) < before + _PARTITIONS:
        worker.check_alive()
        await asyncio.sleep(0.01)
    taken_s = time.perf_counter() - start_s
    assert await asyncio.to_thread(worker.stop) == 0
    return taken_s


async def _rows(console: Console, quick: bool) -> None:
    """Write rows with one checkpoint, restore them with another."""
    rows = ROWS // 10 if quick else ROWS
    async with cluster(partitions=1, organizations=1) as made:
        kafka = AiokafkaBroker(engine_settings(Settings(bootstrap=made.bootstrap)))
        await kafka.start()
        writing = _checkpoint(kafka, made, made.directory / "first")
        await writing.open()
        console.print(f"writing {rows:,} rows …")
        for _ in range(rows // BATCH):
            await writing.tick(0)
        await writing.close()
        restoring = _checkpoint(kafka, made, made.directory / "second")
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        await restoring.open()
        wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        await restoring.close()
        await kafka.stop()
    table = Table("rows", "s", "rows/s", "CPU µs per row")
    table.add_row(f"{rows:,}", f"{wall_s:.2f}", f"{rows / wall_s:,.0f}", f"{cpu_s / rows * 1e6:.2f}")
    console.print(table)


def _checkpoint(kafka: AiokafkaBroker, made: Cluster, folder: Path) -> Checkpoint:
    topics = made.topics
    task = TaskId("restore", "rating", 0, (topics.command, topics.cdr), topics.changelog)
    identity = StoreIdentity(task.app_id, task.group, task.changelog, task.partition)
    settings = Settings()

    def memory(partition: int, state: State, sink: Sink) -> _Writer:
        return _Writer(state)

    return Checkpoint(
        task,
        kafka,
        lambda: open_store(folder, identity, settings.store_cache_bytes),
        memory,
        InlineAgent(),
        EngineStats().task("rating", 0),
        engine_settings(settings),
    )
