"""`rater demo`: see it work, with no broker and no Docker."""

from __future__ import annotations

import asyncio
import sys

import click
from rich.console import Console


@click.command(short_help="See it work: a real Kafka, a real worker, live.")
@click.option("--keep", is_flag=True, help="Leave broker and worker running until Ctrl-C.")
@click.option("--seconds", default=20.0, show_default=True, type=click.FloatRange(1, 3600), help="How long calls come in.")
@click.option("--calls-per-second", default=150, show_default=True, type=click.IntRange(1, 5000))
def demo(keep: bool, seconds: float, calls_per_second: int) -> None:
    """Start a real Kafka and a real worker, load a real rate deck, publish lifelike calls, and show what comes of them.

    Ends with a summary and an audit of every balance; exit code 1 if the audit finds a difference.
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
