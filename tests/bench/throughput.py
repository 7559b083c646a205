"""`make bench`: four ways to process the same calls, in one run on one machine. Only the ratios hold for other machines.

- core alone: the core of `rater simulate`, without Kafka
- aiokafka decode: a plain consumer that reads and decodes but doesn't rate
- worker: the real `rater worker`, exactly once, from a topic that is already full
- stock Faust: the same core, one record at a time, at least once
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console
from rich.table import Table

from rater import compiled
from rater.domain.reading import read_cdr
from rater.kafka.topics import Topics, load_topics
from rater.simulation import Simulation
from tests.bench import traffic
from tests.bench.cluster import Taken, cluster, drain

ORGANIZATIONS = 200
WORKER_CDRS = 400_000
CORE_CDRS = 100_000
STOCK_CDRS = 10_000
SLICE = 512


def core_alone(pure: bool) -> Taken:
    """The core of `rater simulate`, in its own process: whether it is compiled is decided at its start."""
    environment = os.environ | {"RATER_PURE": "1" if pure else "0"}
    command = [sys.executable, "-m", "tests.bench.throughput"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=300, check=True)
    return Taken(CORE_CDRS, *json.loads(done.stdout))


def _rate_calls() -> tuple[float, float]:
    """Seconds and CPU seconds the core takes for `CORE_CDRS`."""
    topics = load_topics()
    simulation = Simulation(topics)
    simulation.rate([*traffic.catalog(topics), *traffic.accounts(topics, ORGANIZATIONS)])
    records = list(traffic.calls(topics, CORE_CDRS, ORGANIZATIONS))
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for i in range(0, len(records), SLICE):
        simulation.rate(records[i : i + SLICE])
    return time.perf_counter() - start_s, time.process_time() - start_cpu_s


async def bare_decode(bootstrap: str, topics: Topics, cdrs: int) -> Taken:
    """Read and decode everything in the CDR topic."""
    tps = [TopicPartition(topics.cdr, p) for p in range(topics.account_partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, max_partition_fetch_bytes=4 * 2**20, enable_auto_commit=False)
    await consumer.start()
    consumer.assign(tps)
    await consumer.seek_to_beginning(*tps)
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    count = 0
    while count < cdrs:
        for records in (await consumer.getmany(timeout_ms=500, max_records=8000)).values():
            for record in records:
                read_cdr(record.value)
            count += len(records)
    taken = Taken(count, time.perf_counter() - start_s, time.process_time() - start_cpu_s)
    await consumer.stop()
    return taken


def stock_faust(bootstrap: str, prefix: str, directory: Path) -> Taken:
    """Faust with its own agent, table and producer."""
    settings = {"BOOTSTRAP": bootstrap, "PREFIX": prefix, "COUNT": str(STOCK_CDRS), "ORGANIZATIONS": str(ORGANIZATIONS)}
    command = [sys.executable, "-m", "tests.bench.stock_faust", "worker", "-l", "error"]
    environment = os.environ | settings | {"DATA_DIR": str(directory)}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300, check=True)
    line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith(b'{"count"'))
    result = json.loads(line)
    return Taken(result["count"], result["wall_s"], result["cpu_s"])


async def run(console: Console, quick: bool) -> None:
    """Measure and print."""
    cdrs = WORKER_CDRS // 10 if quick else WORKER_CDRS
    async with cluster(organizations=ORGANIZATIONS) as made:
        console.print(f"publishing {cdrs:,} calls …")
        await made.fill(traffic.calls(made.topics, cdrs, ORGANIZATIONS))
        console.print("measuring, one after the other …")
        ways = {
            "core alone, interpreted": core_alone(pure=True),
            f"core alone, {'compiled' if compiled.is_used() else 'not compiled here'}": core_alone(pure=False),
            "aiokafka, decode only": await bare_decode(made.bootstrap, made.topics, cdrs),
            "rater worker": await drain(made, made.worker()),
            "stock Faust": stock_faust(made.bootstrap, made.prefix, made.directory / "stock"),
        }
    stock = ways["stock Faust"]
    table = Table("way", "CDRs/s", "CPU µs per CDR", "x stock Faust")
    for way, taken in ways.items():
        table.add_row(way, f"{taken.rate:,.0f}", f"{taken.cpu_us:.1f}", f"{taken.rate / stock.rate:.1f}")
    console.print(table)


if __name__ == "__main__":
    print(json.dumps(_rate_calls()))
