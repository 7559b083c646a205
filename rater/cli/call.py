"""`rater call`: what an administrator does to a rated call."""

from __future__ import annotations

import click

from rater.cli.administering import Act, acting, org_argument


@click.group(short_help="Take a rated call back.")
def call() -> None:
    """What an administrator does to a rated call."""


@call.command(short_help="Give a call's money and minutes back.")
@org_argument
@click.argument("cdr_id")
@click.option("--reason", required=True, help="Why, for the books.")
@acting
def void(act: Act, org: str, cdr_id: str, reason: str) -> None:
    """Take the rated call CDR_ID of ORG back: its money to the lots it came from, its minutes to their pool.

    \b
    Example:
      rater call void contoso sbc1:8f3a --reason "disputed, ticket 4711"
    """
    act.one("call.void", org, cdr_id=cdr_id, reason=reason)
