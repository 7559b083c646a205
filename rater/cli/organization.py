"""`rater organization`: creates an organization, or changes its settings."""

from __future__ import annotations

from typing import Any

import click

from rater.cli.administering import OperatorCommands, command_options
from rater.cli.options import org_argument


@click.group(short_help="Create an organization, or change its settings.")
def organization() -> None:
    """Create an organization, or change its settings. For many at once, use `rater load organizations`."""


@organization.command("set", short_help="Create or change it.")
@org_argument
@click.option("--name", required=True, help="Name, as in mails and reports.")
@click.option("--country", required=True, help="ISO 3166 code, such as US.")
@click.option("--currency", required=True, help="ISO 4217 code; can't be changed later.")
@click.option("--offer", type=click.Choice(["commercial", "education", "nonprofit", "government"]), required=True)
@click.option("--email", "emails", multiple=True, help="Address for notifications; may be repeated.")
@click.option("--time-zone", default="UTC", show_default=True, help="Decides when a month begins.")
@click.option("--rate-card", default="default", show_default=True, help="Rate card that prices its calls.")
@click.option("--low-balance", "low_balance_amount", help="Without auto-recharge, warn when the balance falls below this.")
@command_options
def set_(runner: OperatorCommands, org: str, emails: tuple[str, ...], **fields: Any) -> None:
    """Create ORG, or replace all its settings. Users, funds and auto-recharge stay as they are.

    \b
    Example:
      rater organization set contoso --name Contoso --country US --currency USD --offer commercial \\
        --email telecom@contoso.example --time-zone America/New_York --low-balance 10.00
    """
    runner.run_one("organization.put", org, emails=list(emails), **fields)
