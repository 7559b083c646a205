"""`make bench`: four ways through the same calls, in one run on one machine. Ratios count; the figures are this machine's.

- core alone: `rater simulate`'s core, no Kafka
- aiokafka decode: a bare consumer that reads and decodes, and rates nothing
- worker: the real `rater worker`, exactly once, from a topic that is already full
- stock Faust: the same core, one record at a time, at least once
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console
from rich.table import Table

from rater.domain.reading import read_cdr
from rater.embedded import EmbeddedKafka
from rater.kafka import lag
from rater.simulation import Simulation
from rater.topics import Topics, apply, load_topics
from tests.bench import traffic
from tests.system.harness import Worker, publish, until_done

ORGANIZATIONS = 200
WORKER_CDRS = 400_000
CORE_CDRS = 100_000
STOCK_CDRS = 10_000
SLICE = 512


def core_alone(topics: Topics) -> tuple[float, float]:
    """CDRs/s and CPU µs a CDR."""
    simulation = Simulation(topics)
    simulation.rate([*traffic.catalog(topics), *traffic.accounts(topics, ORGANIZATIONS)])
    records = list(traffic.calls(topics, CORE_CDRS, ORGANIZATIONS))
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for i in range(0, len(records), SLICE):
        simulation.rate(records[i : i + SLICE])
    return _figures(CORE_CDRS, time.perf_counter() - start_s, time.process_time() - start_cpu_s)


async def bare_decode(bootstrap: str, topics: Topics) -> tuple[float, float]:
    """Read and decode everything in the CDR topic."""
    tps = [TopicPartition(topics.cdr, p) for p in range(topics.account_partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, max_partition_fetch_bytes=4 * 2**20, enable_auto_commit=False)
    await consumer.start()
    consumer.assign(tps)
    await consumer.seek_to_beginning(*tps)
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    count = 0
    while count < WORKER_CDRS:
        for records in (await consumer.getmany(timeout_ms=500, max_records=8000)).values():
            for record in records:
                read_cdr(record.value)
            count += len(records)
    figures = _figures(count, time.perf_counter() - start_s, time.process_time() - start_cpu_s)
    await consumer.stop()
    return figures


async def worker_alone(bootstrap: str, topics: Topics, prefix: str, directory: Path) -> tuple[float, float]:
    """From the worker's first commit of calls to its last."""
    worker = Worker(bootstrap, topics, prefix, directory)
    worker.start()
    try:
        assert worker._process is not None
        process = psutil.Process(worker._process.pid)
        while (left := await lag(bootstrap, topics, worker.app_id)) > WORKER_CDRS * 0.95:
            worker.check_alive()
            await asyncio.sleep(0.02)
        start_s, start_cpu_s = time.perf_counter(), _cpu_s(process)
        await until_done(bootstrap, topics, worker)
        figures = _figures(left, time.perf_counter() - start_s, _cpu_s(process) - start_cpu_s)
        assert worker.stop() == 0
        return figures
    finally:
        worker.close()


def stock_faust(bootstrap: str, prefix: str, directory: Path) -> tuple[float, float]:
    """Faust's own agent, table and producer."""
    settings = {"BOOTSTRAP": bootstrap, "PREFIX": prefix, "COUNT": str(STOCK_CDRS), "ORGANIZATIONS": str(ORGANIZATIONS)}
    command = [sys.executable, "-m", "tests.bench.stock_faust", "worker", "-l", "error"]
    environment = os.environ | settings | {"DATA_DIR": str(directory)}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300, check=True)
    line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith(b'{"count"'))
    result = json.loads(line)
    return _figures(result["count"], result["wall_s"], result["cpu_s"])


async def run(console: Console) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name, EmbeddedKafka(Path(name) / "kafka") as kafka:
        prefix = "bench."
        topics = load_topics(prefix)
        await apply(kafka.bootstrap, topics)
        console.print(f"publishing {WORKER_CDRS:,} calls …")
        await publish(kafka.bootstrap, topics, [*traffic.catalog(topics), *traffic.accounts(topics, ORGANIZATIONS)])
        await publish(kafka.bootstrap, topics, traffic.calls(topics, WORKER_CDRS, ORGANIZATIONS))
        console.print("measuring, one after the other …")
        ways = {
            "core alone (simulate)": core_alone(topics),
            "aiokafka, decode only": await bare_decode(kafka.bootstrap, topics),
            "rater worker": await worker_alone(kafka.bootstrap, topics, prefix, Path(name)),
            "stock Faust": stock_faust(kafka.bootstrap, prefix, Path(name) / "stock"),
        }
    stock = ways["stock Faust"][0]
    table = Table("way", "CDRs/s", "CPU µs a CDR", "x stock Faust")
    for way, (rate, cost_us) in ways.items():
        table.add_row(way, f"{rate:,.0f}", f"{cost_us:.1f}", f"{rate / stock:.1f}")
    console.print(table)


def _figures(count: int, wall_s: float, cpu_s: float) -> tuple[float, float]:
    return count / wall_s, cpu_s / count * 1e6


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    asyncio.run(run(Console()))
