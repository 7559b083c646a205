"""What monitoring costs a worker, as a share of its CPU per CDR.

- counting calls in the core: an upper bound, because it is timed interpreted and with the loop around it
- collecting counts, gauges and histograms once per batch
- scrapes of /metrics every 15 s, with four partitions and calls of all kinds
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import generate_latest
from rich.console import Console
from rich.table import Table

from rater.bootstrap import make_agents
from rater.domain.counts import Counts
from rater.engine.stats import BatchHistograms, Lag
from rater.kafka.topics import load_topics
from rater.ops.metrics import registry_of
from rater.settings import Settings
from rater.simulation import Simulation
from tests.bench import traffic
from tests.bench.cluster import cluster, drain

CDRS = 200_000
CALLS = 50_000
BATCH = 1000  # smaller than a busy worker's batches, so again an upper bound
PARTITIONS = 4
SCRAPES_PER_S = 1 / 15
RUNS = 5


def counting_s() -> float:
    """CPU a call, of what the core does to count it."""
    counts = Counts()

    def count() -> None:
        for _ in range(CALLS):
            counts.add_call("outbound", "credit", "USD", 400_000, 400_000)

    return cpu_s(count) / CALLS


def once_a_batch_s() -> float:
    """CPU seconds per batch that the checkpoint needs to collect the core's counts and gauges and fill the histograms."""
    topics = load_topics()
    simulation = Simulation(topics)
    simulation.rate([*traffic.catalog(topics), *traffic.accounts(topics, 200)])
    records = list(traffic.calls(topics, CALLS, 200))
    histograms = BatchHistograms()
    taken_s: list[float] = []
    for i in range(0, len(records), BATCH):
        simulation.rate(records[i : i + BATCH])
        simulation.core.flush()
        start_s = time.process_time()
        simulation.core.take_counts()
        simulation.core.gauges()
        histograms.observe(BATCH, 0.1, (0.1, 0.1, 0.1, 0.1))
        taken_s.append(time.process_time() - start_s)
    return sum(taken_s) / len(taken_s)


def scrape_s(directory: Path) -> float:
    """CPU seconds per scrape of a worker with all partitions."""
    settings = Settings(data_dir=directory)
    apps = make_agents(settings, ["rating", "timer"])
    for app in apps:
        group = app.engine.groups[0]
        for partition in range(PARTITIONS):
            task = app.engine.stats.task(group.name, partition)
            task.lag = {topic: Lag(1, 1.0) for topic in group.topics}
            app.engine._assigned[group.name, partition] = None  # type: ignore[assignment]
    calls = apps[0].engine.stats.task("rating", 0).counts
    for service in ("outbound", "inbound", "conference-dial-out", "toll-free-inbound", "emergency"):
        for funded_by in ("free", "included", "mixed", "credit", "unfunded"):
            calls["calls", service, funded_by] = 1
    registry = registry_of(apps, lambda: True, lambda: True)
    return cpu_s(lambda: generate_latest(registry))


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of the fastest of several runs."""
    found = []
    for _ in range(RUNS):
        start_s = time.process_time()
        work()
        found.append(time.process_time() - start_s)
    return min(found)


async def run(console: Console, quick: bool) -> None:
    """Measure and print."""
    cdrs = CDRS // 10 if quick else CDRS
    async with cluster() as made:
        await made.fill(traffic.calls(made.topics, cdrs, 200))
        worker = await drain(made, made.worker())
    with TemporaryDirectory() as name:
        costs_us = {
            "counting calls": counting_s() * 1e6,
            f"metrics of a batch of {BATCH}": once_a_batch_s() / BATCH * 1e6,
            "scrapes, one every 15 s": scrape_s(Path(name)) * SCRAPES_PER_S / worker.rate * 1e6,
        }
    table = Table("what", "CPU µs per CDR", "of the worker's")
    for what, cost_us in [*costs_us.items(), ("total", sum(costs_us.values()))]:
        table.add_row(what, f"{cost_us:.3f}", f"{cost_us / worker.cpu_us:.2%}")
    table.add_row("the worker", f"{worker.cpu_us:.1f}", "100%")
    console.print(table)
