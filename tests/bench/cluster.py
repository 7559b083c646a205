"""A broker with topics and catalog for benchmarks, and measured workers."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from aiokafka import AIOKafkaProducer

from rater.embedded import EmbeddedKafka
from rater.kafka.clients import lag
from rater.kafka.log import LogRecord
from rater.kafka.partitioning import partition_of
from rater.kafka.topic_admin import apply
from rater.kafka.topics import Topics, load_topics
from tests.bench import traffic
from tests.system.harness import Worker, publish

_POLL_S = 0.02
_BATCH_BYTES = 256 * 1024


@dataclass
class Cluster:
    """One broker with topics, catalog and accounts."""

    bootstrap: str
    topics: Topics
    prefix: str
    directory: Path
    _workers: list[Worker] = field(default_factory=list)

    async def publish(self, records: Iterable[LogRecord]) -> None:
        """Publish records, each to its partition."""
        await publish(self.bootstrap, self.topics, records)

    async def fill(self, calls: Iterable[LogRecord]) -> None:
        """Publish calls in whole record batches, which is fast enough for millions."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, max_batch_size=_BATCH_BYTES, request_timeout_ms=120_000)
        await producer.start()
        partitions = self.topics.account_partitions
        places: dict[bytes | None, int] = {}
        batches = {partition: producer.create_batch() for partition in range(partitions)}
        sends: list[asyncio.Future[object]] = []

        async def send(partition: int) -> None:
            batch, batches[partition] = batches[partition], producer.create_batch()
            batch.close()
            sends.append(await producer.send_batch(batch, self.topics.cdr, partition=partition))

        for call in calls:
            partition = places.get(call.key, -1)
            if partition < 0:
                partition = places[call.key] = partition_of((call.key or b"").decode(), partitions)
            while batches[partition].append(key=call.key, value=call.value, timestamp=call.timestamp) is None:
                await send(partition)
        for partition in range(partitions):
            await send(partition)
        await producer.flush()
        await asyncio.gather(*sends)
        await producer.stop()

    def worker(self, name: str = "worker-1", **settings: str) -> Worker:
        """A worker, not started yet; it ends with the cluster."""
        folder = self.directory / name
        folder.mkdir(exist_ok=True)
        worker = Worker(self.bootstrap, self.topics, self.prefix, folder, RATER_INSTANCE_ID=name, **settings)
        self._workers.append(worker)
        return worker

    async def lag(self) -> int:
        """How many input records are not committed."""
        return await lag(self.bootstrap, self.topics, self._workers[0].app_id)

    async def until_below(self, records: int) -> int:
        """Wait until fewer than `records` input records are left; returns how many."""
        while (left := await self.lag()) >= records:
            for worker in self._workers:
                worker.check_alive()
            await asyncio.sleep(_POLL_S)
        return left

    def close(self) -> None:
        """Stop all workers."""
        for worker in self._workers:
            worker.close()


@asynccontextmanager
async def cluster(
    partitions: int = 4, organizations: int = 200, prefix: str = "bench.", properties: Mapping[str, str] | None = None
) -> AsyncIterator[Cluster]:
    """A new broker in a temporary folder; `properties` overrides its settings."""
    with TemporaryDirectory() as name, EmbeddedKafka(Path(name) / "kafka", properties=properties) as kafka:
        topics = load_topics(prefix, partitions)
        await apply(kafka.bootstrap, topics)
        made = Cluster(kafka.bootstrap, topics, prefix, Path(name))
        try:
            await made.publish([*traffic.catalog(topics), *traffic.accounts(topics, organizations)])
            yield made
        finally:
            made.close()


@dataclass(frozen=True)
class Taken:
    """Time and CPU for a number of CDRs."""

    cdrs: int
    wall_s: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """CDRs per second."""
        return self.cdrs / self.wall_s

    @property
    def cpu_us(self) -> float:
        """CPU µs per CDR."""
        return self.cpu_s / self.cdrs * 1e6


async def drain(made: Cluster, *workers: Worker) -> Taken:
    """Start workers on waiting input; measures from their first commits of calls to the last."""
    for worker in workers:
        worker.start()
    before = await made.lag()
    left = await made.until_below(int(before * 0.95))
    processes = [psutil.Process(worker.pid) for worker in workers]
    start_s, start_cpu_s = time.perf_counter(), sum(map(cpu_s, processes))
    await made.until_below(1)
    taken = Taken(left, time.perf_counter() - start_s, sum(map(cpu_s, processes)) - start_cpu_s)
    for worker in workers:
        assert worker.stop() == 0
    return taken


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)
