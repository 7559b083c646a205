"""`python -m tests.chaos`: runs faults for as long as you like. Prints the seed; the same seed gives the same schedule."""

import asyncio
import logging
import random
import sys
import tempfile
from pathlib import Path

import click

from tests.chaos.run import ChaosError, Plan, run


@click.command()
@click.option("--seed", type=int, help="Seed of schedule and load; random by default.")
@click.option("--minutes", type=float, default=5.0, show_default=True, help="How long load and faults last.")
@click.option("--rate", type=int, default=300, show_default=True, help="CDRs per second.")
@click.option("--directory", type=click.Path(path_type=Path), help="Folder for logs and stores; temporary by default.")
def main(seed: int | None, minutes: float, rate: int, directory: Path | None) -> None:
    """Rate a steady load while workers and brokers are killed, frozen, doubled and moved; then check every record."""
    plan = Plan(random.SystemRandom().randrange(2**31) if seed is None else seed, minutes * 60, rate)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # our own clients needn't log that brokers come and go
    click.echo(f"seed {plan.seed}: {len(plan.schedule)} faults in {minutes} minutes")
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as temporary:
        try:
            click.echo(asyncio.run(run(plan, directory or Path(temporary))))
        except ChaosError as error:
            click.echo(error, err=True)
            sys.exit(1)


if __name__ == "__main__":
    main()
