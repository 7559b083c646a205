"""`rater load`: loads rates, plans and organizations from files. Checks the whole file before it publishes anything."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from rater.bootstrap import topics_of
from rater.catalog import CheckedFile, DeckDefaults, check_organizations, check_plans, check_rates
from rater.cli.kafka_work import run_with_kafka
from rater.cli.options import bootstrap_option, echo_errors, prefix_option, settings_with
from rater.kafka.clients import publish_rows

_defaults = DeckDefaults()


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a checked file goes: to the topics of these settings, or with `dry_run` nowhere."""

    bootstrap: str | None
    topic_prefix: str | None
    dry_run: bool

    def publish(self, checked: CheckedFile, what: Literal["rate", "plan", "command"]) -> None:
        """Publish the rows, or print the faults. Raises UsageError for the settings, ClickException for anything else."""
        if checked.faults:
            echo_errors(checked.faults)
            raise click.ClickException(f"faults: {len(checked.faults)}; nothing was published")
        settings = settings_with(bootstrap=self.bootstrap, topic_prefix=self.topic_prefix)
        topics = topics_of(settings)
        if self.dry_run:
            click.echo(f"{len(checked.rows)} {what} records are valid; nothing was published (--dry-run)")
            return
        work = publish_rows(settings.brokers, getattr(topics, what), checked.rows)
        run_with_kafka(settings, work, lambda: "; load the file again, which is safe")
        click.echo(f"{len(checked.rows)} {what} records published")


def _load_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all files share; the function gets `target=_Target(…)` in place of them."""

    @functools.wraps(function)
    def wrapped(bootstrap: str | None, topic_prefix: str | None, dry_run: bool, **given: Any) -> None:
        function(target=_Target(bootstrap, topic_prefix, dry_run), **given)

    options = (
        click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        bootstrap_option,
        prefix_option,
        click.option("--dry-run", is_flag=True, help="Only check the file."),
    )
    decorated: Callable[..., None] = wrapped
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


@click.group(short_help="Load rates, plans or organizations from a file.")
def load() -> None:
    """Check a whole file, then publish it. If it has faults, print each with its line and column and publish nothing."""


@load.command(short_help="Load a rate deck from CSV.")
@_load_options
@click.option("--rate-card", default=_defaults.rate_card, show_default=True, help="Card the rates belong to.")
@click.option("--service", default=_defaults.service, show_default=True, help="Service the rates are for.")
@click.option("--currency", default=_defaults.currency, show_default=True, help="ISO 4217 code.")
@click.option("--effective-from", default=_defaults.effective_from, show_default=True, help="Start of validity, RFC 3339.")
@click.option("--connection-fee", default=_defaults.connection_fee, show_default=True, help="Fee per call.")
@click.option("--increments", default="60/60", show_default=True, help="Initial and further increment, in seconds.")
def rates(target: _Target, file: Path, increments: str, **columns: Any) -> None:
    """Load a rate deck from CSV with the public deck's columns or the contract's. Options fill in what the file leaves out."""
    try:
        initial_s, increment_s = (int(part) for part in increments.split("/"))
    except ValueError:
        raise click.UsageError(f"--increments: {increments!r} is not like 60/60") from None
    defaults = DeckDefaults(**columns, initial_increment_s=initial_s, increment_s=increment_s)
    with file.open(newline="", encoding="utf-8-sig") as lines:
        checked = check_rates(lines, defaults)
    target.publish(checked, "rate")


@load.command(short_help="Load plans from JSON.")
@_load_options
def plans(target: _Target, file: Path) -> None:
    """Load plans from JSON: an array, or one object per line."""
    target.publish(check_plans(_text(file)), "plan")


@load.command(short_help="Load organizations from JSON.")
@_load_options
def organizations(target: _Target, file: Path) -> None:
    """Load organizations from JSON, each with its users, numbers, funds and auto-recharge."""
    target.publish(check_organizations(_text(file)), "command")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{file}: not UTF-8 at byte {error.start}") from None
