"""`rater demo`: shows the rater at work; needs neither a broker nor Docker."""

from __future__ import annotations

import asyncio
import sys

import click
from rich.console import Console


@click.command(short_help="See the rater at work on a real Kafka.")
@click.option("--keep", is_flag=True, help="Keep broker and worker running until you press Ctrl-C.")
@click.option("--seconds", default=20.0, show_default=True, type=click.FloatRange(1, 3600), help="How long to publish calls.")
@click.option("--calls-per-second", default=150, show_default=True, type=click.IntRange(1, 5000), help="Rate of calls.")
def demo(keep: bool, seconds: float, calls_per_second: int) -> None:
    """Start a real Kafka and a real worker, load a real rate deck, publish lifelike calls, and show how they are rated.

    Ends with a summary and an audit of every balance. If the audit finds a difference, the exit code is 1.
    """
    from rater.demo.run import Demo
    from rater.demo.worker_process import DemoError

    try:
        code = asyncio.run(Demo(Console(), calls_per_second, seconds, keep).run())
    except DemoError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
