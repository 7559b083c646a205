"""Latency at a steady rate: from producing a call to a `read_committed` reader seeing it rated."""

import asyncio
import time
from itertools import islice

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from rich.console import Console
from rich.table import Table

from rater.kafka.log import LogRecord
from rater.kafka.partitioning import partition_of
from tests.bench import traffic
from tests.bench.cluster import Cluster, cluster

RATES = (100, 1_000, 10_000)
SECONDS = 20
WARM_S = 3
ORGANIZATIONS = 200
_TICK_S = 0.002


class _Rated(msgspec.Struct):
    cdr_id: str


async def run(console: Console, quick: bool) -> None:
    """Measure and print."""
    seconds = 5 if quick else SECONDS
    table = Table("CDRs/s", "p50, ms", "p99, ms", "max, ms")
    async with cluster(organizations=ORGANIZATIONS) as made:
        worker = made.worker()
        worker.start()
        await made.until_below(1)
        for seed, rate in enumerate(RATES):
            calls = list(traffic.calls(made.topics, rate * (WARM_S + seconds), ORGANIZATIONS, seed, f"latency-{rate}"))
            latencies = sorted(await _latencies(made, calls, rate))
            marks = (latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100], latencies[-1])
            table.add_row(f"{rate:,}", *(f"{mark * 1000:.0f}" for mark in marks))
        assert worker.stop() == 0
    console.print(table)


async def _latencies(made: Cluster, calls: list[LogRecord], rate: int) -> list[float]:
    """Seconds from sending each call to seeing it rated, without the calls of the first seconds."""
    sent_s: dict[str, float] = {}
    reader = asyncio.create_task(_read(made, len(calls)))
    await asyncio.sleep(1)
    producer = AIOKafkaProducer(bootstrap_servers=made.bootstrap)
    await producer.start()
    ids = [msgspec.json.decode(call.value or b"", type=_Rated).cdr_id for call in calls]
    places = [partition_of((call.key or b"").decode(), made.topics.account_partitions) for call in calls]
    feed = zip(calls, ids, places, strict=True)
    start_s = time.perf_counter()
    done = 0
    while done < len(calls):
        due = min(len(calls), int((time.perf_counter() - start_s) * rate))
        for call, cdr_id, partition in islice(feed, due - done):
            sent_s[cdr_id] = time.perf_counter()
            await producer.send(call.topic, call.value, key=call.key, partition=partition)
        done = due
        await asyncio.sleep(_TICK_S)
    await producer.stop()
    seen_s = await reader
    warm = set(ids[: rate * WARM_S])
    return [seen_s[cdr_id] - at_s for cdr_id, at_s in sent_s.items() if cdr_id not in warm]


async def _read(made: Cluster, count: int) -> dict[str, float]:
    """When each rated call was seen."""
    tps = [TopicPartition(made.topics.rated, partition) for partition in range(made.topics.account_partitions)]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=made.bootstrap, isolation_level="read_committed", enable_auto_commit=False, fetch_max_wait_ms=5
    )
    await consumer.start()
    try:
        consumer.assign(tps)
        await consumer.seek_to_end(*tps)
        seen_s: dict[str, float] = {}
        decode = msgspec.json.Decoder(_Rated).decode
        while len(seen_s) < count:
            polled = await consumer.getmany(timeout_ms=1000)
            now_s = time.perf_counter()
            for records in polled.values():
                seen_s.update((decode(record.value).cdr_id, now_s) for record in records)
        return seen_s
    finally:
        await consumer.stop()
