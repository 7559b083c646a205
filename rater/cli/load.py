"""`rater load`: rates, plans and organizations from files, checked whole before anything is published."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
from aiokafka.errors import KafkaError

from rater.bootstrap import topics_of
from rater.catalog import DeckDefaults, Loaded, check_organizations, check_plans, check_rates
from rater.cli.options import bootstrap_option, prefix_option, settings_with
from rater.kafka.clients import publish_rows
from rater.kafka.topic_admin import TopicAdminError
from rater.kafka.topics import Topics

_FAULTS_SHOWN_MAX = 100
_file = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
_dry_run = click.option("--dry-run", is_flag=True, help="Only check.")
_defaults = DeckDefaults()


@click.group(short_help="Load rates, plans or organizations from a file.")
def load() -> None:
    """Check a whole file, then publish it. Every fault is named with its line and column; one fault, and nothing is sent."""


@load.command()
@_file
@bootstrap_option
@prefix_option
@_dry_run
@click.option("--rate-card", default=_defaults.rate_card, show_default=True)
@click.option("--service", default=_defaults.service, show_default=True)
@click.option("--currency", default=_defaults.currency, show_default=True)
@click.option("--effective-from", default=_defaults.effective_from, show_default=True, help="RFC 3339.")
@click.option("--connection-fee", default=_defaults.connection_fee, show_default=True)
@click.option("--increments", default="60/60", show_default=True, help="Initial and further increment, in seconds.")
def rates(
    file: Path,
    bootstrap: str | None,
    topic_prefix: str | None,
    dry_run: bool,
    rate_card: str,
    service: str,
    currency: str,
    effective_from: str,
    connection_fee: str,
    increments: str,
) -> None:
    """A rate deck as CSV: the public deck's columns or the contract's; options fill in what the file leaves out."""
    try:
        initial_s, increment_s = (int(part) for part in increments.split("/"))
    except ValueError:
        raise click.UsageError(f"--increments: {increments!r} is not like 60/60") from None
    defaults = DeckDefaults(rate_card, service, currency, effective_from, connection_fee, initial_s, increment_s)
    with file.open(newline="", encoding="utf-8-sig") as lines:
        loaded = check_rates(lines, defaults)
    _publish(loaded, "rate", bootstrap, topic_prefix, dry_run)


@load.command()
@_file
@bootstrap_option
@prefix_option
@_dry_run
def plans(file: Path, bootstrap: str | None, topic_prefix: str | None, dry_run: bool) -> None:
    """Plans as JSON: an array, or one a line."""
    _publish(check_plans(_text(file)), "plan", bootstrap, topic_prefix, dry_run)


@load.command()
@_file
@bootstrap_option
@prefix_option
@_dry_run
def organizations(file: Path, bootstrap: str | None, topic_prefix: str | None, dry_run: bool) -> None:
    """Organizations as JSON, each with its users, numbers, funds and auto-recharge."""
    _publish(check_organizations(_text(file)), "command", bootstrap, topic_prefix, dry_run)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{file}: not UTF-8 at byte {error.start}") from None


def _publish(loaded: Loaded, what: str, bootstrap: str | None, topic_prefix: str | None, dry_run: bool) -> None:
    if loaded.faults:
        for fault in loaded.faults[:_FAULTS_SHOWN_MAX]:
            click.echo(str(fault), err=True)
        if len(loaded.faults) > _FAULTS_SHOWN_MAX:
            click.echo(f"and {len(loaded.faults) - _FAULTS_SHOWN_MAX} more", err=True)
        raise click.ClickException(f"faults: {len(loaded.faults)}; nothing was published")
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    topics: Topics = topics_of(settings)
    if dry_run:
        click.echo(f"{len(loaded.rows)} {what} records are in order; nothing was published (--dry-run)")
        return
    try:
        asyncio.run(publish_rows(settings.brokers, getattr(topics, what), loaded.rows))
    except TopicAdminError as error:
        raise click.ClickException(str(error)) from error
    except KafkaError as error:
        raise click.ClickException(f"Kafka at {settings.bootstrap}: {error}; publish it again, that does no harm") from error
    click.echo(f"{len(loaded.rows)} {what} records published")
