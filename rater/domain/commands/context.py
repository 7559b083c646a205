"""What the command handlers share: their context, the checks of amounts, and the data of their events."""

from typing import Any

import msgspec

from rater.domain.account import Account
from rater.domain.catalog import Catalog
from rater.domain.event_writer import EventWriter
from rater.domain.idempotency import IdempotencyStore
from rater.domain.messages import Command
from rater.domain.money import SUM_MICROS_MAX, parse_micros
from rater.domain.rejection import Refused


class CommandContext:
    """What a handler works with beside the account and the command."""

    __slots__ = ("catalog", "event_writer", "idempotency")

    def __init__(self, catalog: Catalog, event_writer: EventWriter, idempotency: IdempotencyStore) -> None:
        self.catalog = catalog
        self.event_writer = event_writer
        self.idempotency = idempotency


def positive_micros(amount: str) -> int:
    """An amount in micros. Refused: invalid_field if it isn't more than zero."""
    micros = parse_micros(amount)
    if micros <= 0:
        raise Refused("invalid_field", "amount: must be more than zero")
    return micros


def check_room(account: Account, micros: int) -> None:
    """Check that the wallet can hold the balance after a change by `micros`. Refused: invalid_field."""
    if abs(account.wallet.balance + micros) > SUM_MICROS_MAX:
        raise Refused("invalid_field", "amount: beyond what a wallet holds")


def check_currency(account: Account, currency: str | None) -> None:
    """Check that a currency, if given, is the wallet's (rule 2). Refused: currency_mismatch."""
    if currency is not None and currency != account.state.currency:
        raise Refused("currency_mismatch", f"the wallet is in {account.state.currency}, not {currency} (rule 2)")


def fields_of(command: Command) -> dict[str, Any]:
    """A command's fields as event data: all but the type and the organization, which the event itself has."""
    data: dict[str, Any] = msgspec.to_builtins(command)
    del data["org_id"], data["type"]
    return data


def amount_fields(account: Account, command: Command, micros: int) -> dict[str, Any]:
    """The event data of a movement of money: how much, and the balance after it."""
    return {
        "amount": account.text(micros),
        "currency": account.state.currency,
        "balance": account.balance_text(),
        "command_id": command.command_id,
    }
