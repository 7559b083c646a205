"""`rater topics`: creates the topics, or shows in what a cluster differs from their definition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

import click

from rater.topics import Topics, TopicsError, apply, diff, load_topics

Result = TypeVar("Result")

_WHERE = (
    click.option("--bootstrap", envvar="RATER_BOOTSTRAP", required=True, help="Kafka's address, host:port."),
    click.option("--prefix", envvar="RATER_TOPIC_PREFIX", default="", help="Prefix of the topics' names."),
    click.option(
        "--partitions",
        envvar="RATER_ACCOUNT_PARTITIONS",
        type=click.IntRange(1, 10_000),
        help="Partitions of every account topic.  [default: as defined]",
    ),
)


def _where(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_WHERE):
        function = option(function)
    return function


@click.group()
def topics() -> None:
    """Create the topics, or show how a cluster's differ. Never deletes, never alters."""


@topics.command("apply")
@_where
@click.option(
    "--replication-factor", type=click.IntRange(1, 9), help="Copies.  [default: 3, or fewer brokers]"
)
def apply_command(
    bootstrap: str, prefix: str, partitions: int | None, replication_factor: int | None
) -> None:
    """Create what is missing. Exits with 1 if something is there but differs: that is left to you."""
    wanted = _load(prefix, partitions)
    created = _run(apply(bootstrap, wanted, replication_factor))
    for name in created:
        click.echo(f"created {name}")
    if not created:
        click.echo("all topics exist")
    _report(bootstrap, wanted)


@topics.command("diff")
@_where
def diff_command(bootstrap: str, prefix: str, partitions: int | None) -> None:
    """Show what is missing or differs: partitions and settings. Exits with 1 if anything does."""
    _report(bootstrap, _load(prefix, partitions))
    click.echo("no difference")


def _load(prefix: str, partitions: int | None) -> Topics:
    try:
        return load_topics(prefix, partitions)
    except TopicsError as error:
        raise click.UsageError(str(error)) from error


def _report(bootstrap: str, wanted: Topics) -> None:
    """Say what differs, and fail if anything does."""
    differences = _run(diff(bootstrap, wanted))
    for difference in differences:
        click.echo(str(difference))
    if differences:
        raise click.ClickException(f"{len(differences)} differences")


def _run(work: Coroutine[None, None, Result]) -> Result:
    try:
        return asyncio.run(work)
    except TopicsError as error:
        raise click.ClickException(str(error)) from error
