"""`rater call`: takes back a rated call."""

from __future__ import annotations

import click

from rater.cli.administering import OperatorCommands, command_options
from rater.cli.options import org_argument


@click.group(short_help="Take back a rated call.")
def call() -> None:
    """Take back a rated call."""


@call.command(short_help="Give back a call's money and minutes.")
@org_argument
@click.argument("cdr_id")
@click.option("--reason", required=True, help="Reason, for the books.")
@command_options
def void(runner: OperatorCommands, org: str, cdr_id: str, reason: str) -> None:
    """Take back the rated call CDR_ID of ORG. Its money returns to the lots that paid, its minutes to their pool.

    \b
    Example:
      rater call void contoso sbc1:8f3a --reason "disputed, ticket 4711"
    """
    runner.run_one("call.void", org, cdr_id=cdr_id, reason=reason)
