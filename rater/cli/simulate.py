"""`rater simulate LOG…`: rates a log without Kafka and writes every output record as a line."""

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
@click.option("--topic-prefix", default="", help="Prefix of the topic names in the log.")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, writable=True), help="File to write instead of standard output."
)
def simulate(logs: tuple[str, ...], topic_prefix: str, output: str | None) -> None:
    """Rate the records in LOG… (`-`: standard input) in order, and write every output record as a line of the same form.

    A log has one JSON object per line, {"topic", "key"?, "timestamp", "headers"?, "value"}: a command, plan, rate or CDR. The
    same log through Kafka gives the same records.
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
    except BrokenPipeError:  # the reader has closed the pipe, as in `rater simulate log | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _lines(logs: Iterable[str]) -> Iterator[bytes]:
    for log in logs:
        try:
            with contextlib.nullcontext(sys.stdin.buffer) if log == "-" else Path(log).open("rb") as lines:
                yield from lines
        except OSError as error:
            raise click.ClickException(f"{log}: {error.strerror}") from None
