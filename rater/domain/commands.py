"""What each command does to an account.

A handler checks first and raises `Refused` before it changed anything; then it changes the account, writes the ledger, then
the events. `HANDLERS` is the whole list, `COMMAND_TYPES` what they are called.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from rater.domain import moments, recharge
from rater.domain.account import Account
from rater.domain.catalog import Catalog
from rater.domain.event_writer import EventWriter, Movement, repaying
from rater.domain.messages import (
    AutoRechargePut,
    CallVoid,
    Command,
    FundsAdd,
    FundsAdjust,
    FundsExpire,
    FundsWarn,
    NotificationFailed,
    NotificationSent,
    NumberPut,
    NumberRemove,
    OrganizationPut,
    RechargeFailed,
    RechargeRetry,
    RechargeSucceeded,
    UserPut,
    UserRemove,
)
from rater.domain.money import SUM_MICROS_MAX, parse_micros
from rater.domain.rejection import Refused
from rater.domain.rows import AutoRecharge, Call, Lot, User, decode_call, encode_row

#: Days before its expiry at which a lot is warned of, the first warning first.
WARNING_DAYS = (30, 7)


class CommandContext:
    """What a handler works with: the catalog, the event_writer, and the calls that are remembered."""

    __slots__ = ("calls", "catalog", "event_writer", "remember")

    def __init__(
        self,
        catalog: Catalog,
        event_writer: EventWriter,
        calls: Callable[[bytes], bytes | None],
        remember: Callable[[int, bytes, bytes], None],
    ) -> None:
        self.catalog = catalog
        self.event_writer = event_writer
        self.calls = calls
        self.remember = remember


def put_organization(context: CommandContext, account: Account, command: OrganizationPut) -> None:
    """Make or change an organization. Refused: currency_mismatch, invalid_field."""
    state = account.state
    if state.exists and command.currency != state.currency:
        raise Refused("currency_mismatch", f"the wallet is in {state.currency}; a wallet has one currency")
    try:
        moments.calendar(command.time_zone)
    except ValueError as error:
        raise Refused("invalid_field", f"time_zone: {error}") from None
    state.exists = True
    state.name = command.name
    state.country = command.country
    state.currency = command.currency
    state.time_zone = command.time_zone
    state.rate_card = command.rate_card
    state.offer = command.offer
    state.emails = command.emails
    state.low_balance = None if command.low_balance_amount is None else parse_micros(command.low_balance_amount)
    account.settings_changed()
    context.event_writer.event(account, "organization.changed", _plain(command))


def put_user(context: CommandContext, account: Account, command: UserPut) -> None:
    """Make or change a user. Refused: unknown_plan."""
    licences = command.licences
    for plan_id in (licences.calling_plan, licences.audio_conferencing):
        if plan_id is not None and plan_id not in context.catalog.plans:
            raise Refused("unknown_plan", f"no plan {plan_id!r} in the catalog")
    user = User(
        command.usage_country,
        licences.phone_system,
        licences.calling_plan,
        licences.audio_conferencing,
        licences.communications_credits,
    )
    account.put_user(command.user_id, user)
    context.event_writer.event(account, "user.changed", {"change": "put", **_plain(command)})
    context.event_writer.list_user(account, command.user_id, command)


def remove_user(context: CommandContext, account: Account, command: UserRemove) -> None:
    """Take a user away. Refused: unknown_user."""
    if account.user(command.user_id) is None:
        raise Refused("unknown_user", f"no user {command.user_id!r}")
    account.put_user(command.user_id, None)
    context.event_writer.event(account, "user.changed", {"change": "remove", **_plain(command)})
    context.event_writer.list_user(account, command.user_id, None)


def put_number(context: CommandContext, account: Account, command: NumberPut) -> None:
    """Register a number. Refused: unknown_user."""
    if command.user_id is not None and account.user(command.user_id) is None:
        raise Refused("unknown_user", f"no user {command.user_id!r}")
    account.put_number(command.number, command.kind)
    context.event_writer.event(account, "organization.changed", {"change": "number.put", **_plain(command)})
    context.event_writer.list_number(account, command.number, command)


def remove_number(context: CommandContext, account: Account, command: NumberRemove) -> None:
    """Take a number away. Refused: unknown_number."""
    if command.number not in account.numbers:
        raise Refused("unknown_number", f"{command.number} is not the organization's")
    account.put_number(command.number, None)
    context.event_writer.event(account, "organization.changed", {"change": "number.remove", **_plain(command)})
    context.event_writer.list_number(account, command.number, None)


def add_funds(context: CommandContext, account: Account, command: FundsAdd) -> None:
    """Credit a purchase. Refused: purchase_channel_not_allowed, currency_mismatch, invalid_field."""
    if command.purchase_channel != "web-direct":
        raise Refused("purchase_channel_not_allowed", "credits are sold web-direct only")
    _same_currency(account, command.currency)
    lot_id = f"purchase:{command.command_id}"
    micros = _positive(command.amount)
    _check_room(account, micros)
    data = {"payment_reference": command.payment_reference}
    _credit(context, account, command, "purchase", lot_id, micros, "sales", "funds.added", data)


def adjust_funds(context: CommandContext, account: Account, command: FundsAdjust) -> None:
    """Correct the balance by hand. Refused: invalid_field, currency_mismatch."""
    _same_currency(account, command.currency)
    micros = parse_micros(command.amount)
    if micros == 0:
        raise Refused("invalid_field", "amount: zero")
    _check_room(account, micros)
    data: dict[str, Any] = {"reason": command.reason}
    if micros > 0:
        lot_id = f"adjustment:{command.command_id}"
        _credit(context, account, command, "adjustment", lot_id, micros, "adjustments", "funds.adjusted", data)
        return
    before = account.wallet.balance
    parts, short = account.wallet.spend(-micros, context.event_writer.now_us)
    movements: list[Movement] = [("wallet", -part.micros, part.lot_id) for part in parts]
    if short:
        movements.append(("wallet", -short, None))
    movements.append(("adjustments", -micros, None))
    context.event_writer.transaction(account, "adjustment", command.command_id, movements, command_id=command.command_id)
    data |= _moved(account, command, micros)
    context.event_writer.event(account, "funds.adjusted", data)
    recharge.balance_changed(context.event_writer, account, before)


def expire_funds(context: CommandContext, account: Account, command: FundsExpire) -> None:
    """Forfeit what has expired by `as_of`, and warn of what soon will (rule 18)."""
    event_writer, wallet = context.event_writer, account.wallet
    as_of_us = moments.to_us(command.as_of)
    before = wallet.balance
    gone = wallet.forfeit(as_of_us)
    left = wallet.balance
    # One transaction a lot, each with the balance as it was then.
    wallet.balance = before
    for lot in gone:
        wallet.balance -= lot.remaining
        movements: list[Movement] = [("wallet", -lot.remaining, lot.lot_id), ("forfeited", lot.remaining, None)]
        reference = f"{command.command_id}:{lot.lot_id}"
        event_writer.transaction(account, "expiry", reference, movements, command_id=command.command_id)
        event_writer.event(account, "credit.expired", _lot(account, command, lot))
    assert wallet.balance == left, (wallet.balance, left)
    _warn(context, account, command, as_of_us)
    if gone:
        recharge.balance_changed(event_writer, account, before)


def warn_of_expiry(context: CommandContext, account: Account, command: FundsWarn) -> None:
    """Warn of what expires soon, once a lot and horizon; no money moves."""
    _warn(context, account, command, moments.to_us(command.as_of))


def put_auto_recharge(context: CommandContext, account: Account, command: AutoRechargePut) -> None:
    """Set auto-recharge, which also switches it on again after a hard failure. Refused: currency_mismatch, invalid_field."""
    _same_currency(account, command.currency)
    state = account.state
    month_cap = command.max_amount_per_month
    state.auto = AutoRecharge(
        command.enabled,
        parse_micros(command.trigger_amount),
        _positive(command.recharge_amount),
        command.payment_method,
        command.max_per_day,
        None if month_cap is None else parse_micros(month_cap),
    )
    recharging = state.recharging
    recharging.capped = ""
    if recharging.state == "disabled":
        recharging.state = "idle"
    if not command.enabled and recharging.retry_us:  # between two tries: no card is charged once it is switched off
        recharge.give_up(context.event_writer, account)
        recharging.state = "idle"
    context.event_writer.event(account, "auto_recharge.changed", _plain(command))
    recharge.consider(context.event_writer, account)


def succeed_recharge(context: CommandContext, account: Account, command: RechargeSucceeded) -> None:
    """Credit a top-up once, whatever repeats (rule 21). Refused: unknown_recharge, currency_mismatch, invalid_field."""
    _same_currency(account, command.currency)
    micros = _positive(command.amount)
    _check_room(account, micros)
    episode = _episode(account, command.recharge_id)
    recharging = account.state.recharging
    if episode == recharging.episode and recharging.state == "pending":
        recharging.state = "idle"
        recharging.retry_us = 0
    elif episode in recharging.failed:  # given up, and the money came after all
        recharging.failed = [e for e in recharging.failed if e != episode]
    else:
        return
    data = {"recharge_id": command.recharge_id, "payment_reference": command.payment_reference}
    lot_id = f"recharge:{command.recharge_id}"
    _credit(context, account, command, "recharge", lot_id, micros, "sales", "recharge.succeeded", data)


def fail_recharge(context: CommandContext, account: Account, command: RechargeFailed) -> None:
    """A try failed (rule 22). Refused: unknown_recharge."""
    episode = _episode(account, command.recharge_id)
    recharging = account.state.recharging
    pending = episode == recharging.episode and recharging.state == "pending" and recharging.retry_us == 0
    if pending and command.attempt in (None, recharging.attempt):
        recharge.failed(context.event_writer, account, command.code, command.retryable, command.command_id)


def retry_recharge(context: CommandContext, account: Account, command: RechargeRetry) -> None:
    """The next try of a softly declined top-up, if it is due and still to be made (rule 22). Refused: unknown_recharge."""
    episode = _episode(account, command.recharge_id)
    recharging = account.state.recharging
    if episode == recharging.episode and command.attempt == recharging.attempt + 1:
        recharge.retry_if_due(context.event_writer, account)


def note_delivery(context: CommandContext, account: Account, command: NotificationSent | NotificationFailed) -> None:
    """What came of telling somebody of an event."""
    type_ = "notification.sent" if isinstance(command, NotificationSent) else "notification.failed"
    context.event_writer.event(account, type_, _plain(command))


def void_call(context: CommandContext, account: Account, command: CallVoid) -> None:
    """Take a rated call back: its money to the lots it came from, its minutes to their pool (rule 19).

    Refused: unknown_call, already_voided, invalid_field.
    """
    event_writer, wallet = context.event_writer, account.wallet
    key = account.call_prefix + command.cdr_id.encode()
    row = context.calls(key)
    call = None if row is None else decode_call(row)
    if call is None or call.forget_us <= event_writer.now_us:
        raise Refused("unknown_call", f"no rated call {command.cdr_id!r} is remembered")
    if call.voided:
        raise Refused("already_voided", f"call {command.cdr_id!r} was voided before")
    before = wallet.balance
    collected = sum(part.micros for part in call.parts)
    charge = collected + call.overdrawn
    _check_room(account, charge)
    if charge:
        given, to_overdraft, repaid = wallet.give_back(
            call.parts, call.overdrawn, f"void:{command.cdr_id}", event_writer.now_us
        )
        movements: list[Movement] = [("wallet", part.micros, part.lot_id) for part in given]
        if to_overdraft:
            movements.append(("wallet", to_overdraft, None))
        movements.append(("usage", -charge, None))
        movements += repaying(repaid)
        assert wallet.balance == before + charge, (wallet.balance, before, charge)
        event_writer.transaction(account, "void", command.cdr_id, movements, command.cdr_id, command.command_id)
    pool = None if call.pool is None else account.pools.get(call.pool)
    if pool is not None:
        pool.used -= call.included_minutes
        assert pool.used >= 0, pool
    voided = Call(call.digest, call.forget_us, voided=True)
    context.remember(moments.day_of(call.forget_us) + 1, key, encode_row(voided))
    event_writer.event(
        account,
        "call.voided",
        {
            "cdr_id": command.cdr_id,
            "reason": command.reason,
            "amount": account.text(charge),
            "currency": account.state.currency,
            "included_minutes": call.included_minutes,
            "balance": account.balance_text(),
            "command_id": command.command_id,
        },
    )
    if charge:
        recharge.balance_changed(event_writer, account, before)


HANDLERS: dict[type[Command], Callable[[CommandContext, Account, Any], None]] = {
    OrganizationPut: put_organization,
    UserPut: put_user,
    UserRemove: remove_user,
    NumberPut: put_number,
    NumberRemove: remove_number,
    FundsAdd: add_funds,
    FundsAdjust: adjust_funds,
    FundsExpire: expire_funds,
    FundsWarn: warn_of_expiry,
    AutoRechargePut: put_auto_recharge,
    RechargeSucceeded: succeed_recharge,
    RechargeFailed: fail_recharge,
    RechargeRetry: retry_recharge,
    NotificationSent: note_delivery,
    NotificationFailed: note_delivery,
    CallVoid: void_call,
}
COMMAND_TYPES = frozenset(str(command.__struct_config__.tag) for command in HANDLERS)


def _credit(
    context: CommandContext,
    account: Account,
    command: Command,
    kind: str,
    lot_id: str,
    micros: int,
    against: str,
    event: str,
    data: dict[str, Any],
) -> None:
    """Money comes in: a lot, which first repays overdraft, its transaction and event."""
    before = account.wallet.balance
    _, repaid = account.wallet.add(lot_id, micros, context.event_writer.now_us)
    assert account.wallet.balance == before + micros, (account.wallet.balance, before, micros)
    movements: list[Movement] = [("wallet", micros, lot_id), (against, -micros, None), *repaying(repaid)]
    reference = lot_id.partition(":")[2]
    context.event_writer.transaction(account, kind, reference, movements, command_id=command.command_id)
    context.event_writer.event(account, event, {**data, "lot_id": lot_id, **_moved(account, command, micros)})
    recharge.balance_changed(context.event_writer, account, before)


def _warn(context: CommandContext, account: Account, command: Command, as_of_us: int) -> None:
    """Say of each lot that the nearest horizon it has come within is reached, if that was not said before."""
    for lot in account.wallet.lots:
        ahead_us = lot.expires_us - as_of_us
        reached = [days for days in WARNING_DAYS if 0 < ahead_us <= days * moments.DAY_US]
        if reached and (lot.warned_days == 0 or reached[-1] < lot.warned_days):
            lot.warned_days = reached[-1]
            context.event_writer.event(account, "credit.expiring", {"days": reached[-1], **_lot(account, command, lot)})


def _moved(account: Account, command: Command, micros: int) -> dict[str, Any]:
    return {
        "amount": account.text(micros),
        "currency": account.state.currency,
        "balance": account.balance_text(),
        "command_id": command.command_id,
    }


def _lot(account: Account, command: Command, lot: Lot) -> dict[str, Any]:
    return {
        "lot_id": lot.lot_id,
        "expires_at": moments.to_text(lot.expires_us),
        **_moved(account, command, lot.remaining),
    }


def _plain(command: Command) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(command)
    del data["org_id"], data["type"]
    return data


def _positive(amount: str) -> int:
    micros = parse_micros(amount)
    if micros <= 0:
        raise Refused("invalid_field", "amount: must be more than zero")
    return micros


def _check_room(account: Account, micros: int) -> None:
    if abs(account.wallet.balance + micros) > SUM_MICROS_MAX:
        raise Refused("invalid_field", "amount: beyond what a wallet holds")


def _same_currency(account: Account, currency: str | None) -> None:
    if currency is not None and currency != account.state.currency:
        raise Refused("currency_mismatch", f"the wallet is in {account.state.currency}, not {currency} (rule 2)")


def _episode(account: Account, recharge_id: str) -> int:
    """The episode a recharge id stands for, if this account ever began it."""
    _, _, number = recharge_id.rpartition(":")
    # Compared as a whole: no other spelling of the id (leading zeros, other digits) may pass for it.
    if number.isascii() and number.isdigit() and len(number) < 12:
        episode = int(number)
        if recharge_id == recharge.recharge_id(account, episode) and 1 <= episode <= account.state.recharging.episode:
            return episode
    raise Refused("unknown_recharge", f"no recharge {recharge_id!r} was asked for")
