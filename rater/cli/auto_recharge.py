"""`rater auto-recharge`: sets how an account tops itself up."""

from __future__ import annotations

from typing import Any

import click

from rater.cli.administering import OperatorCommands, command_options
from rater.cli.options import org_argument


@click.group("auto-recharge", short_help="Set how an account tops itself up.")
def auto_recharge() -> None:
    """Set how an account tops itself up."""


@auto_recharge.command("set", short_help="Set trigger, amount, card and caps.")
@org_argument
@click.option("--trigger", "trigger_amount", required=True, help="Recharge when the balance falls below this.")
@click.option("--amount", "recharge_amount", required=True, help="Amount of a recharge, more than zero.")
@click.option("--payment-method", required=True, help="What to charge, by the payment gateway's name for it.")
@click.option("--max-per-day", type=click.IntRange(1, 1_000_000_000), help="Maximum recharges a day.  [default: no cap]")
@click.option("--max-per-month", "max_amount_per_month", help="Maximum amount a month.  [default: no cap]")
@click.option("--currency", help="If given, must be the account's currency.")
@click.option("--on/--off", "enabled", default=True, show_default=True, help="Switch it on or off.")
@command_options
def set_(runner: OperatorCommands, org: str, **fields: Any) -> None:
    """Set auto-recharge of ORG. This replaces all of its settings: a cap you don't give is removed.

    If a card was declined for good, auto-recharge is `disabled`; setting it on enables it again.

    \b
    Examples:
      rater auto-recharge set contoso --trigger 10 --amount 50 --payment-method pm_1 --max-per-day 3
      rater auto-recharge set contoso --trigger 10 --amount 50 --payment-method pm_1 --off
    """
    # Written in this order, not in that of the command line: a repeat under the same id must have the same bytes.
    order = ("enabled", "trigger_amount", "recharge_amount", "payment_method", "max_per_day", "max_amount_per_month")
    runner.run_one("auto_recharge.put", org, **{name: fields[name] for name in (*order, "currency")})
