"""Restart: from `kill -9` to the first rated call after it, with many accounts in the store."""

import time
from statistics import median

from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console
from rich.table import Table

from tests.bench import traffic
from tests.bench.cluster import Cluster, cluster

ACCOUNTS = 100_000
TIMES = 5
CALLS = 100_000  # enough that the worker is killed before it has rated them all


async def run(console: Console, quick: bool) -> None:
    """Measure and print."""
    accounts = ACCOUNTS // 10 if quick else ACCOUNTS
    async with cluster(organizations=1) as made:
        await made.publish(traffic.small_accounts(made.topics, accounts))
        worker = made.worker()
        worker.start()
        await made.until_below(1)
        table = Table("restart", "s from kill -9 to the next rated call")
        found = []
        for i in range(TIMES):
            await made.fill(traffic.calls(made.topics, CALLS, 1, i, f"restart-{i}"))
            await made.until_below(CALLS * 9 // 10)
            worker.kill()
            killed_s = time.perf_counter()
            worker.start()
            found.append(await _first_rated(made) - killed_s)
            table.add_row(f"{i + 1}", f"{found[-1]:.2f}")
            await made.until_below(1)
        assert worker.stop() == 0
        table.add_row("median", f"{median(found):.2f}")
    console.print(f"{accounts:,} accounts in the store")
    console.print(table)


async def _first_rated(made: Cluster) -> float:
    """The time a `read_committed` reader sees the next rated call."""
    tps = [TopicPartition(made.topics.rated, partition) for partition in range(made.topics.account_partitions)]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=made.bootstrap, isolation_level="read_committed", enable_auto_commit=False, fetch_max_wait_ms=5
    )
    await consumer.start()
    try:
        consumer.assign(tps)
        await consumer.seek_to_end(*tps)
        for tp in tps:
            await consumer.position(tp)
        while not await consumer.getmany(timeout_ms=1000):
            pass
        return time.perf_counter()
    finally:
        await consumer.stop()
