"""`rater numbers`: an organization's own phone numbers."""

from __future__ import annotations

import click
import msgspec

from rater.accounts import directory
from rater.bootstrap import topics_of
from rater.cli.administering import OperatorCommands, command_options
from rater.cli.kafka_work import run_with_kafka
from rater.cli.options import bootstrap_option, json_option, org_argument, prefix_option, settings_with


@click.group(short_help="Set, remove and list an organization's own numbers.")
def numbers() -> None:
    """Set, remove and list an organization's own phone numbers. Calls to them are free."""


@numbers.command("set", short_help="Register a number.")
@org_argument
@click.argument("number")
@click.option("--kind", type=click.Choice(["subscriber", "service", "toll-free"]), required=True, help="What it is for.")
@click.option("--user", "user_id", help="User the number belongs to.")
@command_options
def set_(runner: OperatorCommands, org: str, number: str, kind: str, user_id: str | None) -> None:
    """Register NUMBER (E.164, with its +) as one of ORG's own.

    \b
    Examples:
      rater numbers set contoso +14255550100 --kind service
      rater numbers set contoso +14255550101 --kind subscriber --user ann@contoso.example
    """
    runner.run_one("number.put", org, number=number, kind=kind, user_id=user_id)


@numbers.command(short_help="Remove a number.")
@org_argument
@click.argument("number")
@command_options
def remove(runner: OperatorCommands, org: str, number: str) -> None:
    """Remove NUMBER from ORG's own.

    \b
    Example:
      rater numbers remove contoso +14255550100
    """
    runner.run_one("number.remove", org, number=number)


@numbers.command("list", short_help="List the numbers.")
@org_argument
@json_option
@bootstrap_option
@prefix_option
def list_(org: str, as_json: bool, bootstrap: str | None, topic_prefix: str | None) -> None:
    """List the numbers of ORG.

    \b
    Example:
      rater numbers list contoso
    """
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    for entry in run_with_kafka(settings, directory(settings.brokers, topics_of(settings), org, "number")):
        if as_json:
            click.echo(msgspec.json.encode(entry).decode())
        else:
            click.echo(f"{entry['number']:16}  {entry['kind']:10}  {entry['user_id'] or ''}".rstrip())
