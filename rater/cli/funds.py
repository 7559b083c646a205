"""`rater funds`: adds credit to an account, or corrects its balance."""

from __future__ import annotations

import click

from rater.cli.administering import OperatorCommands, command_options
from rater.cli.options import org_argument


@click.group(short_help="Add credit, or correct a balance.")
def funds() -> None:
    """Add credit to an account, or correct its balance.

    Write amounts as decimal numbers with at most six digits after the point: 50, 50.00, 0.013.
    """


@funds.command(short_help="Credit a purchase.")
@org_argument
@click.option("--amount", required=True, help="Amount bought, more than zero.")
@click.option("--currency", required=True, help="ISO 4217 code; must be the account's currency.")
@click.option("--reference", "payment_reference", required=True, help="Reference of the payment, for the books.")
@click.option(
    "--channel",
    "purchase_channel",
    type=click.Choice(["web-direct", "csp"]),
    default="web-direct",
    show_default=True,
    help="Where it was bought. Credit is sold web-direct only; any other channel is refused.",
)
@command_options
def add(runner: OperatorCommands, org: str, amount: str, currency: str, payment_reference: str, purchase_channel: str) -> None:
    """Credit a purchase to ORG as a lot that expires in twelve months. The lot repays any overdraft first.

    \b
    Example:
      rater funds add contoso --amount 50.00 --currency USD --reference invoice-4711
    """
    purchase = {"purchase_channel": purchase_channel, "payment_reference": payment_reference}
    runner.run_one("funds.add", org, amount=amount, currency=currency, **purchase)


@funds.command(short_help="Correct the balance, up or down.")
@org_argument
@click.option("--amount", required=True, help="Signed amount, such as 3.50 or -3.50; not zero.")
@click.option("--reason", required=True, help="Reason, for the books.")
@click.option("--currency", help="If given, must be the account's currency.")
@command_options
def adjust(runner: OperatorCommands, org: str, amount: str, reason: str, currency: str | None) -> None:
    """Correct the balance of ORG by an amount, up or down.

    \b
    Examples:
      rater funds adjust contoso --amount -3.50 --reason "credited twice"
      rater funds adjust contoso --amount 10 --reason goodwill --currency USD
    """
    runner.run_one("funds.adjust", org, amount=amount, reason=reason, currency=currency)
