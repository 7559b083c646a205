"""Writes the output records about an account: ledger transactions, rated calls, events, notifications, its state.

A core has one event writer. `open` sets it to an input record, whose timestamp is the "now" of everything written for it
(rule 3).
"""

from typing import Any

from rater.domain import moments
from rater.domain.account import Account
from rater.domain.encoding import Writer
from rater.domain.messages import NumberPut, UserPut
from rater.domain.outputs import (
    NOTIFIED,
    Emit,
    Event,
    Notification,
    NumberEntry,
    Posting,
    RatedCall,
    RechargeRequest,
    TopicNames,
    Transaction,
    UserEntry,
)
from rater.domain.rows import Part
from rater.domain.tracing import Headers

Movement = tuple[str, int, str | None]  # ledger account, micros, lot_id


class EventWriter:
    """Writes output records at the time of the current input record: `timestamp_ms`, `now_us`, and `now_text` in RFC 3339."""

    __slots__ = ("_emit", "_names", "_second", "_second_text", "_writer", "now_text", "now_us", "timestamp_ms")

    def __init__(self, names: TopicNames, emit: Emit, writer: Writer) -> None:
        self._names = names
        self._emit = emit
        self._writer = writer
        self.timestamp_ms = -1
        self.now_us = 0
        self.now_text = ""
        self._second = -1
        self._second_text = ""

    def open(self, timestamp_ms: int) -> None:
        """Set the time to that of an input record."""
        if timestamp_ms == self.timestamp_ms:  # many records share a millisecond
            return
        self.timestamp_ms = timestamp_ms
        self.now_us = timestamp_ms * 1000
        second, ms = divmod(timestamp_ms, 1000)
        if second != self._second:
            self._second = second
            self._second_text = moments.to_text(second * moments.SECOND_US)[:-1]
        self.now_text = f"{self._second_text}.{ms:03d}Z" if ms else self._second_text + "Z"

    def event(self, account: Account, type_: str, data: dict[str, Any]) -> None:
        """Write an event, and a notification if people are told about events of this type."""
        state = account.state
        state.seq += 1
        event_id = f"{state.org_id}:{state.seq}"
        event = Event(event_id, state.seq, type_, state.org_id, self.now_text, data)
        self._emit(self._names.event, account.key, self._writer.json(event), self.timestamp_ms)
        if type_ in NOTIFIED:
            note = Notification(event_id, state.org_id, event_id, type_, state.name, state.emails, self.now_text, data)
            self._emit(self._names.notification, account.key, self._writer.json(note), self.timestamp_ms)

    def rated_call(self, account: Account, rated: RatedCall, trace: Headers) -> None:
        """Write a rated call; `trace` is the headers that name its trace."""
        self._emit(self._names.rated, account.key, self._writer.json(rated), self.timestamp_ms, trace)

    def state_record(self, account: Account, message: dict[str, Any]) -> None:
        """Write the account's state, at the time of its last change."""
        self._emit(self._names.state, account.key, self._writer.json(message), account.state.updated_us // 1000)

    def transaction(
        self,
        account: Account,
        kind: str,
        reference: str,
        movements: list[Movement],
        cdr_id: str | None = None,
        command_id: str | None = None,
    ) -> None:
        """Write a ledger transaction; its movements sum to zero (rule 19)."""
        total = 0
        for _, micros, _ in movements:
            total += micros
        assert total == 0, (kind, reference, movements)
        text = account.text
        state = account.state
        transaction = Transaction(
            f"{state.org_id}:{kind}:{reference}",
            state.org_id,
            kind,
            state.currency,
            [Posting(name, text(micros), lot_id) for name, micros, lot_id in movements],
            account.balance_text(),
            self.now_text,
            cdr_id,
            command_id,
        )
        self._emit(self._names.ledger, account.key, self._writer.json(transaction), self.timestamp_ms)

    def list_user(self, account: Account, user_id: str, put: UserPut | None) -> None:
        """Write the directory entry of a user that was put, or (None) removed."""
        org_id = account.state.org_id
        if put is None:
            self._list(account, UserEntry(org_id, user_id, "remove", None, None, self.now_text))
        else:
            self._list(account, UserEntry(org_id, user_id, "put", put.usage_country, put.licences, self.now_text))

    def list_number(self, account: Account, number: str, put: NumberPut | None) -> None:
        """Write the directory entry of a number that was put, or (None) removed."""
        org_id = account.state.org_id
        if put is None:
            self._list(account, NumberEntry(org_id, number, "remove", None, None, self.now_text))
        else:
            self._list(account, NumberEntry(org_id, number, "put", put.kind, put.user_id, self.now_text))

    def _list(self, account: Account, entry: UserEntry | NumberEntry) -> None:
        self._emit(self._names.directory, account.key, self._writer.json(entry), self.timestamp_ms)

    def recharge_request(self, account: Account, recharge_id: str) -> None:
        """Ask the payment side for the top-up that is pending on the account (rule 20)."""
        state = account.state
        assert state.auto is not None
        assert state.recharging.state == "pending", state.recharging
        request = RechargeRequest(
            recharge_id,
            state.org_id,
            state.recharging.episode,
            state.recharging.attempt,
            account.text(state.recharging.amount),
            state.currency,
            state.auto.payment_method,
            self.now_text,
        )
        self._emit(self._names.recharge_request, account.key, self._writer.json(request), self.timestamp_ms)


def spending(parts: list[Part], overdrawn: int) -> list[Movement]:
    """The wallet's movements when it pays: out of the lots, and out of the wallet at large for what becomes overdraft."""
    movements: list[Movement] = [("wallet", -part.micros, part.lot_id) for part in parts]
    if overdrawn:
        movements.append(("wallet", -overdrawn, None))
    return movements


def repaying(parts: list[Part]) -> list[Movement]:
    """The movements when lots repay overdraft: out of the lots, and into the wallet at large."""
    moved = sum(part.micros for part in parts)
    movements: list[Movement] = [("wallet", -part.micros, part.lot_id) for part in parts]
    if moved:
        movements.append(("wallet", moved, None))
    return movements
