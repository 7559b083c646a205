"""`rater users`: an organization's users and their licences."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from rater.accounts import directory
from rater.bootstrap import topics_of
from rater.catalog import check_users, write_users
from rater.cli.administering import OperatorCommands, command_options
from rater.cli.kafka_work import run_with_kafka
from rater.cli.options import bootstrap_option, json_option, org_argument, prefix_option, settings_with

_file = click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV file of many users.",
)


@click.group(short_help="Set, remove and list users.")
def users() -> None:
    """Set, remove and list the users of an organization, one by one or many from a CSV file.

    \b
    A file has these columns; you may leave out licences:
      user_id,usage_country,phone_system,calling_plan,audio_conferencing,communications_credits
      ann@contoso.example,US,yes,domestic-us,,yes
    """


@users.command("set", short_help="Create or change users.")
@org_argument
@click.argument("user", required=False)
@click.option("--country", "usage_country", help="Country of the user, such as US.")
@click.option("--phone-system/--no-phone-system", default=None, help="Licence for the phone system.")
@click.option("--calling-plan", metavar="PLAN", help="Plan with included outbound minutes.")
@click.option("--audio-conferencing", metavar="PLAN", help="Plan with included conference dial-out minutes.")
@click.option("--communications-credits/--no-communications-credits", default=None, help="Licence to spend credit.")
@_file
@command_options
def set_(runner: OperatorCommands, org: str, user: str | None, file: Path | None, **fields: Any) -> None:
    """Set USER of ORG, or the users in a CSV file, with all their licences: a licence you don't give is removed.

    The whole file is checked first. If it has a fault, nothing is published.

    \b
    Examples:
      rater users set contoso ann@contoso.example --country US --calling-plan domestic-us --communications-credits
      rater users set contoso --file users.csv
    """
    if (user is None) == (file is None):
        raise click.UsageError("give either USER or --file")
    if file is not None:
        if any(value is not None for value in fields.values()):
            raise click.UsageError("with --file, put country and licences in the file")
        _run_file(runner, org, file, remove=False)
        return
    country = fields.pop("usage_country")
    if country is None:
        raise click.UsageError("--country is missing")
    licences = {name: value for name, value in fields.items() if value is not None}
    runner.run_one("user.put", org, user_id=user, usage_country=country, licences=licences)


@users.command(short_help="Remove users.")
@org_argument
@click.argument("user", required=False)
@_file
@command_options
def remove(runner: OperatorCommands, org: str, user: str | None, file: Path | None) -> None:
    """Remove USER of ORG, or the users in a CSV file, which needs only the column user_id.

    \b
    Examples:
      rater users remove contoso ann@contoso.example
      rater users remove contoso --file leavers.csv
    """
    if (user is None) == (file is None):
        raise click.UsageError("give either USER or --file")
    if file is not None:
        _run_file(runner, org, file, remove=True)
    else:
        runner.run_one("user.remove", org, user_id=user)


@users.command("list", short_help="List users with their licences.")
@org_argument
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV that `rater users set --file` can read.")
@json_option
@bootstrap_option
@prefix_option
def list_(org: str, as_csv: bool, as_json: bool, bootstrap: str | None, topic_prefix: str | None) -> None:
    """List the users of ORG, sorted by id.

    \b
    Examples:
      rater users list contoso
      rater users list contoso --csv > users.csv
    """
    if as_csv and as_json:
        raise click.UsageError("give either --csv or --json")
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    found = run_with_kafka(settings, directory(settings.brokers, topics_of(settings), org, "user"))
    show: Callable[[list[dict[str, Any]]], None] = _as_csv if as_csv else _as_json if as_json else _as_text
    show(found)


def _run_file(runner: OperatorCommands, org: str, file: Path, remove: bool) -> None:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        checked = check_users(lines, org, runner.command_id, remove)
    runner.run_file(org, checked, "users removed" if remove else "users set")


def _as_csv(found: list[dict[str, Any]]) -> None:
    write_users(found, sys.stdout)


def _as_json(found: list[dict[str, Any]]) -> None:
    for user in found:
        click.echo(msgspec.json.encode(user).decode())


def _as_text(found: list[dict[str, Any]]) -> None:
    width = max((len(user["user_id"]) for user in found), default=0)
    for user in found:
        licences = user["licences"]
        held = [licences[name] for name in ("calling_plan", "audio_conferencing") if licences[name]]
        held += [name.replace("_", " ") for name in ("phone_system", "communications_credits") if licences[name]]
        click.echo(f"{user['user_id']:{width}}  {user['usage_country']}  {', '.join(held) or 'no licence'}")
    click.echo(f"{len(found)} users", err=True)
