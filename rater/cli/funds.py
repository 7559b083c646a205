"""`rater funds`: money on an account, by an administrator's hand."""

from __future__ import annotations

import click

from rater.cli.administering import Act, acting, org_argument


@click.group(short_help="Add credit, or correct a balance.")
def funds() -> None:
    """Add credit to an account, or correct its balance.

    Amounts are decimal strings with a point and at most six digits after it: 50, 50.00, 0.013.
    """


@funds.command(short_help="Credit a purchase.")
@org_argument
@click.option("--amount", required=True, help="What was bought, more than zero.")
@click.option("--currency", required=True, help="ISO 4217; must be the account's own.")
@click.option("--reference", "payment_reference", required=True, help="The payment's own reference, for the books.")
@click.option(
    "--channel",
    "purchase_channel",
    type=click.Choice(["web-direct", "csp"]),
    default="web-direct",
    show_default=True,
    help="Where it was bought. Credits are sold web-direct only.",
)
@acting
def add(act: Act, org: str, amount: str, currency: str, payment_reference: str, purchase_channel: str) -> None:
    """Credit a purchase to ORG: a lot that expires twelve months from now. It repays overdraft first.

    \b
    Example:
      rater funds add contoso --amount 50.00 --currency USD --reference invoice-4711
    """
    purchase = {"purchase_channel": purchase_channel, "payment_reference": payment_reference}
    act.one("funds.add", org, amount=amount, currency=currency, **purchase)


@funds.command(short_help="Correct the balance, up or down.")
@org_argument
@click.option("--amount", required=True, help="Signed: 3.50 or -3.50, not zero.")
@click.option("--reason", required=True, help="Why, for the books.")
@click.option("--currency", help="If given, must be the account's own.")
@acting
def adjust(act: Act, org: str, amount: str, reason: str, currency: str | None) -> None:
    """Correct the balance of ORG by an amount, up or down.

    \b
    Examples:
      rater funds adjust contoso --amount -3.50 --reason "credited twice"
      rater funds adjust contoso --amount 10 --reason goodwill --currency USD
    """
    act.one("funds.adjust", org, amount=amount, reason=reason, currency=currency)
