"""`rater organization`: an organization's own settings."""

from __future__ import annotations

from typing import Any

import click

from rater.cli.administering import Act, acting, org_argument


@click.group(short_help="Make an organization, or change its settings.")
def organization() -> None:
    """Make an organization, or change its settings. Many at once: `rater load organizations`."""


@organization.command("set", short_help="Make it, or change it.")
@org_argument
@click.option("--name", required=True)
@click.option("--country", required=True, help="As in US.")
@click.option("--currency", required=True, help="ISO 4217; once made, it stays.")
@click.option("--offer", type=click.Choice(["commercial", "education", "nonprofit", "government"]), required=True)
@click.option("--email", "emails", multiple=True, help="Who is told; may be given more than once.")
@click.option("--time-zone", default="UTC", show_default=True, help="Where its months begin.")
@click.option("--rate-card", default="default", show_default=True)
@click.option("--low-balance", "low_balance_amount", help="Below this the balance is low, where there is no auto-recharge.")
@acting
def set_(act: Act, org: str, emails: tuple[str, ...], **fields: Any) -> None:
    """Make ORG, or set all its settings anew. Users, funds and auto-recharge stay as they are.

    \b
    Example:
      rater organization set contoso --name Contoso --country US --currency USD --offer commercial \\
        --email telecom@contoso.example --time-zone America/New_York --low-balance 10.00
    """
    act.one("organization.put", org, emails=list(emails), **fields)
