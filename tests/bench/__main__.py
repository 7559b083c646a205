"""`python -m tests.bench [NAME…] [--quick]`: runs benchmarks on one machine; only ratios hold for other machines.

Without a name it runs `throughput`, as `make bench` does.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import click
from rich.console import Console

from tests.bench import backlog, footprint, hot_key, latency, month, restart, restore, scaling, throughput, watching

BENCHES: dict[str, Callable[[Console, bool], Awaitable[None]]] = {
    "throughput": throughput.run,
    "month": month.run,
    "latency": latency.run,
    "hot-key": hot_key.run,
    "scaling": scaling.run,
    "restart": restart.run,
    "restore": restore.run,
    "backlog": backlog.run,
    "watching": watching.run,
    "footprint": footprint.run,
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*BENCHES, "all"]))
@click.option("--quick", is_flag=True, help="A tenth of the work: shows that it runs, not how fast.")
def main(names: tuple[str, ...], quick: bool) -> None:
    """Run benchmarks by name."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a new topic has no leader yet
    console = Console(width=110)
    for name in BENCHES if "all" in names else names or ("throughput",):
        console.rule(name)
        asyncio.run(_run(BENCHES[name], console, quick))


async def _run(bench: Callable[[Console, bool], Awaitable[None]], console: Console, quick: bool) -> None:
    await bench(console, quick)


if __name__ == "__main__":
    main()
