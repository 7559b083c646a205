"""Commands about the balance: purchases, corrections, expiry and its warnings."""

from typing import Any, NamedTuple

from rater.domain import moments, recharge
from rater.domain.account import Account
from rater.domain.commands.context import CommandContext, amount_fields, check_currency, check_room, positive_micros
from rater.domain.event_writer import Movement, repaying, spending
from rater.domain.messages import Command, FundsAdd, FundsAdjust, FundsExpire, FundsWarn
from rater.domain.money import parse_micros
from rater.domain.rejection import Refused
from rater.domain.rows import Lot
from rater.domain.wallet import WARNING_DAYS


class Credit(NamedTuple):
    """Money that comes in: the kind of transaction, the new lot, the ledger account it comes from, and the event it makes."""

    kind: str
    lot_id: str
    micros: int
    from_account: str
    event: str


def add_funds(context: CommandContext, account: Account, command: FundsAdd) -> None:
    """Credit a purchase. Refused: purchase_channel_not_allowed, currency_mismatch, invalid_field."""
    if command.purchase_channel != "web-direct":
        raise Refused("purchase_channel_not_allowed", "credits are sold web-direct only")
    check_currency(account, command.currency)
    micros = positive_micros(command.amount)
    check_room(account, micros)
    purchase = Credit("purchase", f"purchase:{command.command_id}", micros, "sales", "funds.added")
    credit(context, account, command, purchase, {"payment_reference": command.payment_reference})


def adjust_funds(context: CommandContext, account: Account, command: FundsAdjust) -> None:
    """Correct the balance by hand. Refused: invalid_field, currency_mismatch."""
    check_currency(account, command.currency)
    micros = parse_micros(command.amount)
    if micros == 0:
        raise Refused("invalid_field", "amount: zero")
    check_room(account, micros)
    data: dict[str, Any] = {"reason": command.reason}
    if micros > 0:
        adjustment = Credit("adjustment", f"adjustment:{command.command_id}", micros, "adjustments", "funds.adjusted")
        credit(context, account, command, adjustment, data)
        return
    event_writer, wallet = context.event_writer, account.wallet
    before = wallet.balance
    movements = spending(*wallet.spend(-micros, event_writer.now_us))
    movements.append(("adjustments", -micros, None))
    event_writer.transaction(account, "adjustment", command.command_id, movements, command_id=command.command_id)
    event_writer.event(account, "funds.adjusted", data | amount_fields(account, command, micros))
    recharge.balance_changed(event_writer, account, before)


def expire_funds(context: CommandContext, account: Account, command: FundsExpire) -> None:
    """Forfeit the lots that have expired by `as_of`, and warn of those that expire soon (rule 18)."""
    event_writer, wallet = context.event_writer, account.wallet
    as_of_us = moments.to_us(command.as_of)
    before = wallet.balance
    gone = wallet.forfeit(as_of_us)
    left = wallet.balance
    # One transaction for each lot, with the balance after that lot.
    wallet.balance = before
    for lot in gone:
        wallet.balance -= lot.remaining
        movements: list[Movement] = [("wallet", -lot.remaining, lot.lot_id), ("forfeited", lot.remaining, None)]
        reference = f"{command.command_id}:{lot.lot_id}"
        event_writer.transaction(account, "expiry", reference, movements, command_id=command.command_id)
        event_writer.event(account, "credit.expired", _lot_fields(account, command, lot))
    assert wallet.balance == left, (wallet.balance, left)
    _warn(context, account, command, as_of_us)
    if gone:
        recharge.balance_changed(event_writer, account, before)


def warn_of_expiry(context: CommandContext, account: Account, command: FundsWarn) -> None:
    """Warn of the lots that expire soon; no money moves."""
    _warn(context, account, command, moments.to_us(command.as_of))


def credit(context: CommandContext, account: Account, command: Command, money: Credit, data: dict[str, Any]) -> None:
    """Take money in: a new lot, which first repays overdraft, its transaction and its event with `data` and the amount."""
    event_writer, wallet = context.event_writer, account.wallet
    before = wallet.balance
    _, repaid = wallet.add(money.lot_id, money.micros, event_writer.now_us)
    assert wallet.balance == before + money.micros, (wallet.balance, before, money)
    movements: list[Movement] = [
        ("wallet", money.micros, money.lot_id),
        (money.from_account, -money.micros, None),
        *repaying(repaid),
    ]
    reference = money.lot_id.partition(":")[2]
    event_writer.transaction(account, money.kind, reference, movements, command_id=command.command_id)
    data = {**data, "lot_id": money.lot_id, **amount_fields(account, command, money.micros)}
    event_writer.event(account, money.event, data)
    recharge.balance_changed(event_writer, account, before)


def _warn(context: CommandContext, account: Account, command: Command, as_of_us: int) -> None:
    """Warn of each lot that has come within 30 or 7 days of its expiry, once for each of these."""
    for lot in account.wallet.lots:
        ahead_us = lot.expires_us - as_of_us
        reached = [days for days in WARNING_DAYS if 0 < ahead_us <= days * moments.DAY_US]
        if reached and (lot.warned_days == 0 or reached[-1] < lot.warned_days):
            lot.warned_days = reached[-1]
            context.event_writer.event(account, "credit.expiring", {"days": reached[-1], **_lot_fields(account, command, lot)})


def _lot_fields(account: Account, command: Command, lot: Lot) -> dict[str, Any]:
    return {
        "lot_id": lot.lot_id,
        "expires_at": moments.to_text(lot.expires_us),
        **amount_fields(account, command, lot.remaining),
    }
