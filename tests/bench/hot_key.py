"""One organization with all the traffic, compared with many: the partition's throughput must be the same."""

from rich.console import Console
from rich.table import Table

from tests.bench import traffic
from tests.bench.cluster import cluster, drain

CDRS = 200_000


async def run(console: Console, quick: bool) -> None:
    """Measure and print."""
    cdrs = CDRS // 10 if quick else CDRS
    rates = {}
    for organizations in (200, 1):
        async with cluster(partitions=1, organizations=organizations) as made:
            await made.fill(traffic.calls(made.topics, cdrs, organizations))
            rates[organizations] = await drain(made, made.worker())
    table = Table("organizations on the one partition", "CDRs/s", "CPU µs per CDR", "ratio")
    for organizations, taken in rates.items():
        table.add_row(f"{organizations}", f"{taken.rate:,.0f}", f"{taken.cpu_us:.1f}", f"{taken.rate / rates[200].rate:.2f}")
    console.print(table)
