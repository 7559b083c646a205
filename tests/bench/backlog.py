"""Overload: millions of CDRs are waiting. Memory must stay bounded, and throughput the same from first to last."""

import asyncio
import time

import psutil
from rich.console import Console
from rich.table import Table

from tests.bench import traffic
from tests.bench.cluster import cluster

CDRS = 5_000_000
ORGANIZATIONS = 200
PARTS = 10
_POLL_S = 0.1


async def run(console: Console, quick: bool) -> None:
    """Measure and print, a tenth of the backlog at a time."""
    cdrs = CDRS // 10 if quick else CDRS
    async with cluster(organizations=ORGANIZATIONS) as made:
        console.print(f"publishing {cdrs:,} calls …")
        await made.fill(traffic.calls(made.topics, cdrs, ORGANIZATIONS))
        worker = made.worker()
        worker.start()
        process = psutil.Process(worker.pid)
        await made.until_below(cdrs - 1)
        table = Table("of the backlog", "CDRs/s", "ratio to the first", "memory, MB")
        since_s, since_left, first_rate, memory_most = time.perf_counter(), await made.lag(), 0.0, 0
        for part in range(1, PARTS + 1):
            goal = max(1, cdrs - cdrs * part // PARTS)
            while (left := await made.lag()) >= goal:
                worker.check_alive()
                memory_most = max(memory_most, process.memory_info().rss)
                await asyncio.sleep(_POLL_S)
            now_s = time.perf_counter()
            rate = (since_left - left) / (now_s - since_s)
            first_rate = first_rate or rate
            memory_mb = process.memory_info().rss / 1e6
            table.add_row(f"{part}/{PARTS}", f"{rate:,.0f}", f"{rate / first_rate:.2f}", f"{memory_mb:.0f}")
            since_s, since_left = now_s, left
        assert worker.stop() == 0
    console.print(table)
    console.print(f"peak memory: {memory_most / 1e6:.0f} MB")
