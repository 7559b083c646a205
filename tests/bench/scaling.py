"""Two partitions: one worker for both, compared with one worker each."""

import os

from rich.console import Console
from rich.table import Table

from tests.bench import traffic
from tests.bench.cluster import cluster, drain

CDRS = 400_000
ORGANIZATIONS = 200


async def run(console: Console, quick: bool) -> None:
    """Measure and print."""
    cdrs = CDRS // 10 if quick else CDRS
    rates = {}
    for workers in (1, 2):
        async with cluster(partitions=2, organizations=ORGANIZATIONS) as made:
            await made.fill(traffic.calls(made.topics, cdrs, ORGANIZATIONS))
            rates[workers] = await drain(made, *(made.worker(f"worker-{i}") for i in range(workers)))
    table = Table("workers", "CDRs/s", "CPU µs per CDR", "ratio")
    for workers, taken in rates.items():
        table.add_row(f"{workers}", f"{taken.rate:,.0f}", f"{taken.cpu_us:.1f}", f"{taken.rate / rates[1].rate:.2f}")
    console.print(table)
    console.print(f"{os.cpu_count()} cores, shared by workers, broker and this benchmark")
