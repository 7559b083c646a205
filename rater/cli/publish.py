"""`rater publish`: publishes calls from a file or a stream."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from rater.bootstrap import topics_of
from rater.cli.kafka_work import run_with_kafka
from rater.cli.options import bootstrap_option, prefix_option, settings_with
from rater.domain.rejection import Rejected
from rater.kafka.call_publisher import CallPublisher

_FAULTS_SHOWN_MAX = 100


@click.command(short_help="Publish calls from a file or a stream.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--format", "format_", type=click.Choice(["json"]), required=True, help="json: the contract's CDRs, one per line."
)
@bootstrap_option
@prefix_option
def publish(file: Path, format_: str, bootstrap: str | None, topic_prefix: str | None) -> None:
    """Publish the calls in FILE (`-`: standard input), each under its organization's key.

    A line that is not a CDR is reported and left out; the others are published, and the exit code is 1. You can publish a file
    again: each call is rated only once.
    """
    assert format_ == "json", format_
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    stream = sys.stdin.buffer if str(file) == "-" else file.open("rb")
    total_bytes = None if str(file) == "-" else file.stat().st_size
    with stream, _Display(total_bytes) as display:
        publisher = CallPublisher(stream, display.rejected, display.progressed)
        run_with_kafka(
            settings,
            publisher.run(settings.brokers, topics_of(settings).cdr),
            lambda: f"; at least {publisher.acknowledged} CDRs are published: publish the file again, which is safe",
        )
    click.echo(f"{publisher.acknowledged} CDRs published")
    if publisher.rejected:
        raise click.ClickException(f"lines left out: {publisher.rejected}")


class _Display:
    """A progress bar, and the first 100 lines that are not CDRs."""

    def __init__(self, total_bytes: int | None) -> None:
        self._total_bytes = total_bytes
        self._console = Console(stderr=True)
        calls = TextColumn("{task.fields[calls]} CDRs")
        columns = (BarColumn(), DownloadColumn(), calls, TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal, transient=True)
        self._faults = 0

    def __enter__(self) -> _Display:
        self._progress.start()
        self._task = self._progress.add_task("publishing", total=self._total_bytes, calls=0)
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def rejected(self, line_number: int, rejected: Rejected) -> None:
        """Print a line that is not a CDR."""
        self._faults += 1
        if self._faults <= _FAULTS_SHOWN_MAX:
            self._console.print(f"line {line_number}: {rejected}", markup=False, highlight=False, soft_wrap=True)

    def progressed(self, read_bytes: int, acknowledged: int) -> None:
        """Move the progress bar."""
        self._progress.update(self._task, completed=read_bytes, calls=acknowledged)
