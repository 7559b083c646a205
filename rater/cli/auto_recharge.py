"""`rater auto-recharge`: how an account tops itself up."""

from __future__ import annotations

import click

from rater.cli.administering import Act, acting, org_argument


@click.group("auto-recharge", short_help="Set how an account tops itself up.")
def auto_recharge() -> None:
    """Set how an account tops itself up."""


@auto_recharge.command("set", short_help="Set trigger, amount, card and caps.")
@org_argument
@click.option("--trigger", "trigger_amount", required=True, help="Recharge when the balance falls below this.")
@click.option("--amount", "recharge_amount", required=True, help="How much a recharge takes, more than zero.")
@click.option("--payment-method", required=True, help="What to take it from, as the payment side calls it.")
@click.option("--max-per-day", type=click.IntRange(1, 1_000_000_000), help="Recharges a day at most.  [default: no cap]")
@click.option("--max-per-month", "max_amount_per_month", help="Money a month at most.  [default: no cap]")
@click.option("--currency", help="If given, must be the account's own.")
@click.option("--on/--off", "enabled", default=True, show_default=True, help="Switch it on or off.")
@acting
def set_(
    act: Act,
    org: str,
    trigger_amount: str,
    recharge_amount: str,
    payment_method: str,
    max_per_day: int | None,
    max_amount_per_month: str | None,
    currency: str | None,
    enabled: bool,
) -> None:
    """Set auto-recharge of ORG, all of it anew: a cap that is not given is none.

    Setting it on also ends the state `disabled` after a card was declined for good.

    \b
    Examples:
      rater auto-recharge set contoso --trigger 10 --amount 50 --payment-method pm_1 --max-per-day 3
      rater auto-recharge set contoso --trigger 10 --amount 50 --payment-method pm_1 --off
    """
    act.one(
        "auto_recharge.put",
        org,
        enabled=enabled,
        trigger_amount=trigger_amount,
        recharge_amount=recharge_amount,
        payment_method=payment_method,
        max_per_day=max_per_day,
        max_amount_per_month=max_amount_per_month,
        currency=currency,
    )
