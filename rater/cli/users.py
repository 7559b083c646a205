"""`rater users`: who an organization's users are, and their licences."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from rater.accounts.lookup import directory
from rater.bootstrap import topics_of
from rater.catalog.users import COLUMNS, check_users
from rater.cli.administering import Act, acting, json_option, org_argument, with_kafka
from rater.cli.options import bootstrap_option, prefix_option, settings_with

_file = click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Many users, as CSV.",
)


@click.group(short_help="Set, remove and list users.")
def users() -> None:
    """Set, remove and list the users of an organization, one by one or many from a CSV file.

    \b
    A file's columns, of which the licences may be left out:
      user_id,usage_country,phone_system,calling_plan,audio_conferencing,communications_credits
      ann@contoso.example,US,yes,domestic-us,,yes
    """


@users.command("set", short_help="Make users, or change them.")
@org_argument
@click.argument("user", required=False)
@click.option("--country", "usage_country", help="Where the user is, as in US.")
@click.option("--phone-system/--no-phone-system", default=None, help="Licence.")
@click.option("--calling-plan", metavar="PLAN", help="Plan of included outbound minutes.")
@click.option("--audio-conferencing", metavar="PLAN", help="Plan of included conference dial-out minutes.")
@click.option("--communications-credits/--no-communications-credits", default=None, help="Licence to spend credit.")
@_file
@acting
def set_(act: Act, org: str, user: str | None, file: Path | None, **fields: Any) -> None:
    """Set USER of ORG, or the users of a CSV file, with all licences: one that is not given is not held.

    A file is checked whole; one fault, and nothing is published.

    \b
    Examples:
      rater users set contoso ann@contoso.example --country US --calling-plan domestic-us --communications-credits
      rater users set contoso --file users.csv
    """
    if (user is None) == (file is None):
        raise click.UsageError("give either USER or --file")
    if file is not None:
        if any(value is not None for value in fields.values()):
            raise click.UsageError("with --file, country and licences stand in the file")
        _in_bulk(act, org, file, remove=False)
        return
    country = fields.pop("usage_country")
    if country is None:
        raise click.UsageError("--country is missing")
    licences = {name: value for name, value in fields.items() if value is not None}
    act.one("user.put", org, user_id=user, usage_country=country, licences=licences)


@users.command(short_help="Take users away.")
@org_argument
@click.argument("user", required=False)
@_file
@acting
def remove(act: Act, org: str, user: str | None, file: Path | None) -> None:
    """Remove USER of ORG, or the users of a CSV file (its column user_id is enough).

    \b
    Examples:
      rater users remove contoso ann@contoso.example
      rater users remove contoso --file leavers.csv
    """
    if (user is None) == (file is None):
        raise click.UsageError("give either USER or --file")
    if file is not None:
        _in_bulk(act, org, file, remove=True)
    else:
        act.one("user.remove", org, user_id=user)


@users.command("list", short_help="Who the users are, with their licences.")
@org_argument
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV that `rater users set --file` reads.")
@json_option
@bootstrap_option
@prefix_option
def list_(org: str, as_csv: bool, as_json: bool, bootstrap: str | None, topic_prefix: str | None) -> None:
    """List the users of ORG by their ids.

    \b
    Examples:
      rater users list contoso
      rater users list contoso --csv > users.csv
    """
    if as_csv and as_json:
        raise click.UsageError("give either --csv or --json")
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    found = with_kafka(settings, directory(settings.brokers, topics_of(settings), org, "user"))
    show: Callable[[list[dict[str, Any]]], None] = _as_csv if as_csv else _as_json if as_json else _as_text
    show(found)


def _in_bulk(act: Act, org: str, file: Path, remove: bool) -> None:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        loaded = check_users(lines, org, act.command_id, remove)
    act.many(org, loaded, "users removed" if remove else "users set")


def _as_csv(found: list[dict[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for user in found:
        fields = user | user["licences"]
        writer.writerow([{True: "yes", False: "no", None: ""}.get(fields[name], fields[name]) for name in COLUMNS])


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
