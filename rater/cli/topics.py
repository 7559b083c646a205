"""`rater topics`: creates the topics, compares a cluster with their definitions, and grants rights."""

from __future__ import annotations

import click

from rater.cli.kafka_work import run_with_kafka
from rater.cli.options import bootstrap_option, prefix_option, settings_with
from rater.kafka.topic_admin import apply, diff
from rater.kafka.topics import Topics, load_topics
from rater.settings import Settings

_partitions_option = click.option(
    "--partitions",
    type=click.IntRange(1, 1000),
    help="Partitions of each account topic.  [env: RATER_PARTITIONS; default: 4]",
)


@click.group(short_help="Create and compare topics, and grant rights.")
def topics() -> None:
    """Create the topics, compare a cluster with their definitions, and grant rights. Never deletes or changes a topic."""


@topics.command("apply")
@bootstrap_option
@prefix_option
@_partitions_option
@click.option(
    "--replication-factor",
    type=click.IntRange(1, 5),
    help="Copies of each topic.  [env: RATER_REPLICATION_FACTOR; default: 3, or the number of brokers if there are fewer]",
)
def apply_command(
    bootstrap: str | None, topic_prefix: str | None, partitions: int | None, replication_factor: int | None
) -> None:
    """Create the missing topics. Existing topics are not changed: if one differs, the exit code is 1."""
    settings = settings_with(
        bootstrap=bootstrap,
        topic_prefix=topic_prefix,
        partitions=partitions,
        replication_factor=replication_factor,
    )
    wanted = load_topics(settings.topic_prefix, settings.partitions)
    copies = settings.replication_factor if "replication_factor" in settings.model_fields_set else None
    created = run_with_kafka(settings, apply(settings.brokers, wanted, copies))
    for name in created:
        click.echo(f"created {name}")
    if not created:
        click.echo("all topics exist")
    _report(settings, wanted)


@topics.command("diff", short_help="Show missing topics and those that differ.")
@bootstrap_option
@prefix_option
@_partitions_option
def diff_command(bootstrap: str | None, topic_prefix: str | None, partitions: int | None) -> None:
    """Show missing topics, and partitions and settings that differ. If there are any, the exit code is 1."""
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix, partitions=partitions)
    _report(settings, load_topics(settings.topic_prefix, settings.partitions))
    click.echo("no difference")


@topics.command("acls", short_help="Print or grant the rights of each role.")
@bootstrap_option
@prefix_option
@click.argument("roles", nargs=-1)
@click.option("--user", help="User who gets the rights; only with a single role.  [default: the user in the role]")
@click.option("--apply", "apply_now", is_flag=True, help="Grant the rights instead of printing commands.")
def acls_command(
    roles: tuple[str, ...], user: str | None, apply_now: bool, bootstrap: str | None, topic_prefix: str | None
) -> None:
    """Print commands for Kafka's own tool that grant each role its rights on the brokers, or grant them now (--apply).

    ROLES are names from deploy/kafka/roles.toml; the default is all of them. Never revokes a right.
    """
    from rater.kafka.acls import acls_of, command_lines, grant_acls, load_roles

    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    known = load_roles()
    unknown = [name for name in roles if name not in known]
    if unknown:
        raise click.UsageError(f"there is no role {', '.join(unknown)}; the roles are {', '.join(known)}")
    if user is not None and len(roles) != 1:
        raise click.UsageError("--user needs exactly one role")
    wanted = load_topics(settings.topic_prefix, settings.partitions)
    for name in roles or known:
        role = known[name]
        acls = acls_of(role, wanted, settings.app_id)
        if apply_now:
            run_with_kafka(settings, grant_acls(settings.brokers, user or role.user, acls))
            click.echo(f"{name}: {len(acls)} rights for {user or role.user}")
        else:
            click.echo("\n".join(command_lines(role, acls, settings.bootstrap, user or role.user)))


def _report(settings: Settings, wanted: Topics) -> None:
    """Print the differences. Raises ClickException if there are any."""
    differences = run_with_kafka(settings, diff(settings.brokers, wanted))
    for difference in differences:
        click.echo(str(difference))
    if differences:
        raise click.ClickException(f"{len(differences)} differences")
