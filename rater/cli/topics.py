"""`rater topics`: creates the topics, or shows in what a cluster differs from their definition."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

import click

from rater.cli.options import bootstrap_option, prefix_option, settings_with
from rater.settings import Settings
from rater.topics import Topics, TopicsError, apply, diff, load_topics

Result = TypeVar("Result")

_partitions_option = click.option(
    "--partitions",
    type=click.IntRange(1, 1000),
    help="Partitions of every account topic.  [env: RATER_PARTITIONS; default: 4]",
)


@click.group()
def topics() -> None:
    """Create the topics, or show how a cluster's differ. Never deletes, never alters."""


@topics.command("apply")
@bootstrap_option
@prefix_option
@_partitions_option
@click.option(
    "--replication-factor",
    type=click.IntRange(1, 5),
    help="Copies of each.  [env: RATER_REPLICATION_FACTOR; default: 3, or as many as there are brokers]",
)
def apply_command(
    bootstrap: str | None, topic_prefix: str | None, partitions: int | None, replication_factor: int | None
) -> None:
    """Create what is missing. Exits with 1 if something is there but differs: that is left to you."""
    settings = settings_with(
        bootstrap=bootstrap,
        topic_prefix=topic_prefix,
        partitions=partitions,
        replication_factor=replication_factor,
    )
    wanted = load_topics(settings.topic_prefix, settings.partitions)
    copies = settings.replication_factor if "replication_factor" in settings.model_fields_set else None
    created = _run(apply(settings.bootstrap, wanted, copies))
    for name in created:
        click.echo(f"created {name}")
    if not created:
        click.echo("all topics exist")
    _report(settings, wanted)


@topics.command("diff")
@bootstrap_option
@prefix_option
@_partitions_option
def diff_command(bootstrap: str | None, topic_prefix: str | None, partitions: int | None) -> None:
    """Show what is missing or differs: partitions and settings. Exits with 1 if anything does."""
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix, partitions=partitions)
    _report(settings, load_topics(settings.topic_prefix, settings.partitions))
    click.echo("no difference")


def _report(settings: Settings, wanted: Topics) -> None:
    """Say what differs, and fail if anything does."""
    differences = _run(diff(settings.bootstrap, wanted))
    for difference in differences:
        click.echo(str(difference))
    if differences:
        raise click.ClickException(f"{len(differences)} differences")


def _run(work: Coroutine[None, None, Result]) -> Result:
    try:
        return asyncio.run(work)
    except TopicsError as error:
        raise click.ClickException(str(error)) from error
