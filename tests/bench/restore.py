"""From an empty disk: a million rows out of the changelog, into the store, through the engine's own restore."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rater.engine.api import Record, Sink, State
from rater.engine.checkpoint import Checkpoint, TaskId
from rater.engine.kafka import AiokafkaKafka
from rater.engine.stats import BatchHistograms, TaskStats
from rater.engine.store import StoreIdentity, open_store
from rater.settings import Settings
from tests.bench.cluster import Cluster, cluster

ROWS = 1_000_000
BATCH = 20_000
VALUE = b"x" * 120
DAY = 20_000
_SCATTER = 0x9E3779B97F4A7C15  # keys come in no order, as accounts and calls do


class _Writer:
    """Writes rows whenever it is told to: half of them each on its own, half packed in segments."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._written = 0

    async def process(self, records: Sequence[Record]) -> None:
        """There is no input."""

    def next_due_ms(self) -> int | None:
        """Whenever it is asked."""
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
    """Write the rows with one checkpoint, restore them with another."""
    rows = ROWS // 10 if quick else ROWS
    async with cluster(partitions=1, organizations=1) as made:
        kafka = AiokafkaKafka(Settings(bootstrap=made.bootstrap))
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
    table = Table("rows", "s", "rows/s", "CPU µs a row")
    table.add_row(f"{rows:,}", f"{wall_s:.2f}", f"{rows / wall_s:,.0f}", f"{cpu_s / rows * 1e6:.2f}")
    console.print(table)


def _checkpoint(kafka: AiokafkaKafka, made: Cluster, folder: Path) -> Checkpoint:
    topics = made.topics
    task = TaskId("restore", "rating", 0, (topics.command, topics.cdr), topics.changelog)
    identity = StoreIdentity(task.app_id, task.group, task.changelog, task.partition)
    settings = Settings()

    def processor(partition: int, state: State, sink: Sink) -> _Writer:
        return _Writer(state)

    return Checkpoint(
        task,
        kafka,
        lambda: open_store(folder, identity, settings.store_cache_bytes),
        processor,
        TaskStats(),
        BatchHistograms(),
        settings.store_age_ms_max,
        settings.accept_lost_input,
        settings.broker_timeout_ms / 1000,
    )
