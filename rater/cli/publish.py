"""`rater publish`: calls from a file or a stream, to where the rater reads them."""

from __future__ import annotations

import asyncio
import sys
from asyncio import Future
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from rater.bootstrap import topics_of
from rater.cli.options import bootstrap_option, prefix_option, settings_with
from rater.domain.reading import read_cdr
from rater.domain.rejection import Rejected
from rater.kafka.clients import producer, require_topics
from rater.kafka.connection import Brokers
from rater.kafka.topic_admin import TopicAdminError

_FAULTS_SHOWN_MAX = 100
#: Sent and not yet acknowledged, at most: what a stream can make us hold is bounded.
_UNDER_WAY_MAX = 5000


@click.command(short_help="Publish calls from a file or a stream.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--format", "format_", type=click.Choice(["json"]), required=True, help="json: the contract's CDRs, one a line.")
@bootstrap_option
@prefix_option
def publish(file: Path, format_: str, bootstrap: str | None, topic_prefix: str | None) -> None:
    """Publish the calls in FILE (`-`: standard input), each under its organization's key.

    A line that is no CDR is named and left out, the others are published; exit code 1 then. Published twice, a call is
    rated once.
    """
    assert format_ == "json", format_
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    stream = sys.stdin.buffer if str(file) == "-" else file.open("rb")
    total_bytes = None if str(file) == "-" else file.stat().st_size
    publishing = _Publishing(stream, total_bytes)
    try:
        with stream:
            asyncio.run(publishing.run(settings.brokers, topics_of(settings).cdr))
    except TopicAdminError as error:
        raise click.ClickException(str(error)) from error
    except KafkaError as error:
        done = f"{publishing.acknowledged} CDRs are published for certain"
        raise click.ClickException(f"Kafka at {settings.bootstrap}: {error}; {done}; again does no harm") from error
    click.echo(f"{publishing.acknowledged} CDRs published")
    if publishing.faults:
        raise click.ClickException(f"lines left out: {publishing.faults}")


class _Publishing:
    """One run over a stream; its counts stand even when it fails."""

    def __init__(self, stream: BinaryIO, total_bytes: int | None) -> None:
        self.acknowledged = 0
        self.faults = 0
        self._stream = stream
        self._total_bytes = total_bytes
        self._console = Console(stderr=True)

    async def run(self, brokers: Brokers, topic: str) -> None:
        """Publish everything, and return when it is all acknowledged. Raises KafkaError."""
        under_way: list[Future[Any]] = []
        async with producer(brokers) as out:
            await require_topics(out.client, [topic])
            with self._progress() as progress:
                task = progress.add_task("publishing", total=self._total_bytes, calls=0)
                for key, value, read_bytes in self._calls():
                    under_way.append(await out.send(topic, value, key=key))
                    if len(under_way) >= _UNDER_WAY_MAX:
                        await self._settle(under_way)
                        progress.update(task, completed=read_bytes, calls=self.acknowledged)
                await self._settle(under_way)
                progress.update(task, completed=self._total_bytes, calls=self.acknowledged)

    async def _settle(self, under_way: list[Future[Any]]) -> None:
        for acknowledgement in under_way:
            await acknowledgement
            self.acknowledged += 1
        under_way.clear()

    def _calls(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Key, value, and how many bytes have been read, of every line that is a CDR."""
        read_bytes = 0
        for number, line in enumerate(self._stream, 1):
            read_bytes += len(line)
            value = line.strip()
            if not value:
                continue
            try:
                org_id = read_cdr(value).org_id
            except Rejected as rejected:
                self.faults += 1
                if self.faults <= _FAULTS_SHOWN_MAX:
                    self._console.print(f"line {number}: {rejected}", markup=False, highlight=False, soft_wrap=True)
                continue
            yield org_id.encode(), value, read_bytes

    def _progress(self) -> Progress:
        calls = TextColumn("{task.fields[calls]} CDRs")
        columns = (BarColumn(), DownloadColumn(), calls, TimeRemainingColumn())
        return Progress(*columns, console=self._console, disable=not self._console.is_terminal, transient=True)
