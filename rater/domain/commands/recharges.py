"""Commands about auto-recharge and its top-ups (rules 20 to 22)."""

from rater.domain import recharge
from rater.domain.account import Account
from rater.domain.commands.context import CommandContext, check_currency, check_room, fields_of, positive_micros
from rater.domain.commands.funds import Credit, credit
from rater.domain.messages import AutoRechargePut, RechargeFailed, RechargeRetry, RechargeSucceeded
from rater.domain.money import parse_micros
from rater.domain.rejection import Refused
from rater.domain.rows import AutoRecharge


def put_auto_recharge(context: CommandContext, account: Account, command: AutoRechargePut) -> None:
    """Set auto-recharge; this also switches it on again after a hard failure. Refused: currency_mismatch, invalid_field."""
    check_currency(account, command.currency)
    state = account.state
    month_cap = command.max_amount_per_month
    state.auto = AutoRecharge(
        command.enabled,
        parse_micros(command.trigger_amount),
        positive_micros(command.recharge_amount),
        command.payment_method,
        command.max_per_day,
        None if month_cap is None else parse_micros(month_cap),
    )
    recharging = state.recharging
    recharging.capped = ""
    if recharging.state == "disabled":
        recharging.state = "idle"
    if not command.enabled and recharging.retry_us:  # the next try is still to come: once it is off, no card is charged
        recharge.give_up(context.event_writer, account)
        recharging.state = "idle"
    context.event_writer.event(account, "auto_recharge.changed", fields_of(command))
    recharge.consider(context.event_writer, account)


def succeed_recharge(context: CommandContext, account: Account, command: RechargeSucceeded) -> None:
    """Credit a top-up, once however often it is reported (rule 21).

    Refused: unknown_recharge, currency_mismatch, invalid_field.
    """
    check_currency(account, command.currency)
    micros = positive_micros(command.amount)
    check_room(account, micros)
    episode = _episode(account, command.recharge_id)
    recharging = account.state.recharging
    if episode == recharging.episode and recharging.state == "pending":
        recharging.state = "idle"
        recharging.retry_us = 0
    elif episode in recharging.failed:  # it was given up, and the money came after all
        recharging.failed = [e for e in recharging.failed if e != episode]
    else:
        return
    top_up = Credit("recharge", f"recharge:{command.recharge_id}", micros, "sales", "recharge.succeeded")
    data = {"recharge_id": command.recharge_id, "payment_reference": command.payment_reference}
    credit(context, account, command, top_up, data)


def fail_recharge(context: CommandContext, account: Account, command: RechargeFailed) -> None:
    """Handle a failed try of the pending top-up (rule 22). Refused: unknown_recharge."""
    episode = _episode(account, command.recharge_id)
    recharging = account.state.recharging
    pending = episode == recharging.episode and recharging.state == "pending" and recharging.retry_us == 0
    if pending and command.attempt in (None, recharging.attempt):
        recharge.failed(context.event_writer, account, command.code, command.retryable, command.command_id)


def retry_recharge(context: CommandContext, account: Account, command: RechargeRetry) -> None:
    """Make the next try of a softly declined top-up, if it is due and was not made yet (rule 22). Refused: unknown_recharge."""
    episode = _episode(account, command.recharge_id)
    recharging = account.state.recharging
    if episode == recharging.episode and command.attempt == recharging.attempt + 1:
        recharge.retry_if_due(context.event_writer, account)


def _episode(account: Account, recharge_id: str) -> int:
    """The episode that a recharge id names. Refused: unknown_recharge if this account never began it."""
    _, _, number = recharge_id.rpartition(":")
    # The id is compared as a whole, so no other spelling of it (leading zeros, other digits) is accepted.
    if number.isascii() and number.isdigit() and len(number) < 12:
        episode = int(number)
        if recharge_id == recharge.recharge_id(account, episode) and 1 <= episode <= account.state.recharging.episode:
            return episode
    raise Refused("unknown_recharge", f"no recharge {recharge_id!r} was asked for")
