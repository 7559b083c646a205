"""`rater kafka`: runs the embedded broker in the foreground."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from rater.cli.options import prefix_option, settings_with
from rater.embedded import KAFKA_VERSION, EmbeddedKafka, EmbeddedKafkaError
from rater.kafka.topic_admin import TopicAdminError, apply
from rater.kafka.topics import load_topics

_POLL_S = 0.5


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9092,
    show_default=True,
    help="Port of the first broker; 0 means any free one.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data here between runs.  [default: a temporary folder, removed at the end]",
)
@click.option("--brokers", type=click.IntRange(1, 9), default=1, show_default=True, help="Number of brokers.")
@click.option("--topics", "with_topics", is_flag=True, help="Create the topics as well.")
@prefix_option
def kafka(port: int, data_dir: Path | None, brokers: int, with_topics: bool, topic_prefix: str | None) -> None:
    """Run a real Kafka on this machine until you press Ctrl-C.

    The first line on standard output is its address, for --bootstrap of other commands. It listens only on 127.0.0.1 and is
    meant for trials: with fewer than three brokers it keeps a single copy of the data, and it never deletes data by age.
    """
    settings = settings_with(topic_prefix=topic_prefix)
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell starts background jobs with SIGINT ignored
        signal.signal(number, _interrupt)
    try:
        with _folder(data_dir) as folder, EmbeddedKafka(folder, brokers, port=port or None) as running:
            if with_topics:
                wanted = load_topics(settings.topic_prefix, settings.partitions)
                created = asyncio.run(apply(running.bootstrap, wanted))
                click.echo(f"created {len(created)} topics", err=True)
            click.echo(running.bootstrap)
            click.echo(f"Kafka {KAFKA_VERSION} is running, data in {folder}. Press Ctrl-C to stop.", err=True)
            _watch(running)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
    except (EmbeddedKafkaError, TopicAdminError) as error:
        raise click.ClickException(str(error)) from error


def _watch(running: EmbeddedKafka) -> None:
    """Wait forever. Raises EmbeddedKafkaError if a node dies."""
    while True:
        for node in running.nodes:
            if node.pid is None:
                raise EmbeddedKafkaError(f"Kafka node {node.node_id} has died; its log: {node.log_file}")
        time.sleep(_POLL_S)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Make SIGTERM act like Ctrl-C, even during start-up."""
    raise KeyboardInterrupt


@contextmanager
def _folder(data_dir: Path | None) -> Iterator[Path]:
    if data_dir is not None:
        yield data_dir
        return
    with tempfile.TemporaryDirectory(prefix="rater-kafka-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
