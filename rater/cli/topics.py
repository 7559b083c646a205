"""`rater topics`: creates the topics, shows in what a cluster differs from their definition, grants who may do what."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

import click

from rater.cli.options import bootstrap_option, prefix_option, settings_with
from rater.kafka.topic_admin import TopicAdminError, apply, diff
from rater.kafka.topics import Topics, load_topics
from rater.settings import Settings

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
    created = _run(apply(settings.brokers, wanted, copies))
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


@topics.command("acls")
@bootstrap_option
@prefix_option
@click.argument("roles", nargs=-1)
@click.option("--user", help="Who gets the rights; one role alone. By default the user that the role names.")
@click.option("--apply", "really", is_flag=True, help="Grant them, instead of showing the commands that would.")
def acls_command(
    roles: tuple[str, ...], user: str | None, really: bool, bootstrap: str | None, topic_prefix: str | None
) -> None:
    """What each role may do on the brokers: as commands for Kafka's own tool, or granted at once (--apply).

    The roles are those of deploy/kafka/roles.toml: all of them, unless some are named. Never takes a right away.
    """
    from rater.kafka.acls import acls_of, command_lines, grant_acls, load_roles

    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    known = load_roles()
    unknown = [name for name in roles if name not in known]
    if unknown:
        raise click.UsageError(f"there is no role {', '.join(unknown)}; there is {', '.join(known)}")
    if user is not None and len(roles) != 1:
        raise click.UsageError("--user is for one role")
    wanted = load_topics(settings.topic_prefix, settings.partitions)
    for name in roles or known:
        role = known[name]
        allowed = acls_of(role, wanted, settings.app_id)
        if really:
            _run(grant_acls(settings.brokers, user or role.user, allowed))
            click.echo(f"{name}: {len(allowed)} rights for {user or role.user}")
        else:
            click.echo("\n".join(command_lines(role, allowed, settings.bootstrap, user or role.user)))


def _report(settings: Settings, wanted: Topics) -> None:
    """Say what differs, and fail if anything does."""
    differences = _run(diff(settings.brokers, wanted))
    for difference in differences:
        click.echo(str(difference))
    if differences:
        raise click.ClickException(f"{len(differences)} differences")


def _run(work: Coroutine[None, None, Result]) -> Result:
    try:
        return asyncio.run(work)
    except TopicAdminError as error:
        raise click.ClickException(str(error)) from error
