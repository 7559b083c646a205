"""Bytes per CDR in each topic's log and in the worker's store, from a backlog and at steady rates.

A log's bytes are also its topic's network traffic: once in, and once for each reader and each additional replica.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path

from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from rater.kafka.log import LogRecord
from rater.kafka.partitioning import partition_of
from tests.bench import traffic
from tests.bench.cluster import Cluster, cluster
from tests.system.harness import Worker

ORGANIZATIONS = 200
BACKLOG_CDRS = 400_000
STEADY_RATES = (1_000, 100)
STEADY_SECONDS = 20
_TICK_S = 0.01

_TOPICS = ("cdr", "rated", "ledger", "event", "state", "changelog")


async def run(console: Console, quick: bool) -> None:
    """Measure and print."""
    share = 10 if quick else 1
    backlog = await _measure(BACKLOG_CDRS // share, _backlog)
    steady = [await _measure(rate * STEADY_SECONDS // share, partial(_steady, rate)) for rate in STEADY_RATES]
    table = Table("bytes per CDR", "out of a backlog", *(f"at {rate:,} per second" for rate in STEADY_RATES))
    for what in backlog:
        shown = [backlog, *steady] if what != "store" else [backlog]  # too little traffic to say anything about large files
        table.add_row(what, *(f"{found[what]:.0f}" for found in shown))
    console.print(table)


async def _measure(cdrs: int, feed: Callable[[Cluster, Worker, list[LogRecord]], Awaitable[None]]) -> dict[str, float]:
    """Topic or "store" → bytes per CDR."""
    async with cluster(organizations=ORGANIZATIONS) as made:
        worker = made.worker()
        worker.start()
        await made.until_below(1)  # accounts are created
        before = _sizes(made)
        await feed(made, worker, list(traffic.calls(made.topics, cdrs, ORGANIZATIONS)))
        await made.until_below(1)
        assert worker.stop() == 0
        return {what: (size - before[what]) / cdrs for what, size in _sizes(made).items()}


async def _backlog(made: Cluster, worker: Worker, calls: list[LogRecord]) -> None:
    """All calls are waiting when the worker starts."""
    worker.kill()
    await made.fill(calls)
    worker.start()


async def _steady(rate: int, made: Cluster, worker: Worker, calls: list[LogRecord]) -> None:
    """Each call is sent on its own, at its time, as switches do."""
    producer = AIOKafkaProducer(bootstrap_servers=made.bootstrap)
    await producer.start()
    feed = iter(calls)
    start_s = time.perf_counter()
    sent = 0
    while sent < len(calls):
        due = min(len(calls), int((time.perf_counter() - start_s) * rate))
        for call in islice(feed, due - sent):
            partition = partition_of((call.key or b"").decode(), made.topics.account_partitions)
            await producer.send(call.topic, call.value, key=call.key, partition=partition)
        sent = due
        await asyncio.sleep(_TICK_S)
    await producer.stop()


def _sizes(made: Cluster) -> dict[str, int]:
    """Topic or "store" → bytes in its log or files."""
    names = {use: getattr(made.topics, use) for use in _TOPICS}
    logs = {name: list((made.directory / "kafka").rglob(f"{name}-*/*.log")) for name in names.values()}
    return {name: _bytes(logs[name]) for name in names.values()} | {
        "store": _bytes((made.directory / "worker-1" / "data").rglob("*"))
    }


def _bytes(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())
