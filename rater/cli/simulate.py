"""`rater simulate LOG…`: rates a log with no Kafka; every output record is a line on standard output."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from rater.kafka.log import LogError, LogWriter, read_log
from rater.kafka.topics import load_topics
from rater.simulation import simulate as simulate_records


@click.command(short_help="Rate a log without Kafka.")
@click.argument("logs", nargs=-1, required=True, metavar="LOG…")
@click.option("--topic-prefix", default="", help="What stands before every topic's name in the log.")
@click.option("--output", "-o", type=click.Path(dir_okay=False, writable=True), help="Write to a file instead.")
def simulate(logs: tuple[str, ...], topic_prefix: str, output: str | None) -> None:
    """Rate the records of LOG… (`-`: standard input) in order and write every output record.

    A log is JSON lines {"topic", "key"?, "timestamp", "headers"?, "value"}: commands, plans, rates and CDRs. The same log
    through Kafka gives the same records.
    """
    writer = LogWriter()
    try:
        with Path(output).open("wb") if output else contextlib.nullcontext(sys.stdout.buffer) as out:
            records = read_log(_lines(logs))
            for record in simulate_records(load_topics(topic_prefix), records):
                out.write(writer.line(record))
            out.flush()
    except LogError as error:
        raise click.ClickException(str(error)) from None
    except BrokenPipeError:  # the reader has seen enough, as in `rater simulate log | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _lines(logs: Iterable[str]) -> Iterator[bytes]:
    for log in logs:
        try:
            with contextlib.nullcontext(sys.stdin.buffer) if log == "-" else Path(log).open("rb") as lines:
                yield from lines
        except OSError as error:
            raise click.ClickException(f"{log}: {error.strerror}") from None
