"""The messages that go out, with the fields of the contract (docs/contract.md, "Messages")."""

from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec
from msgspec import Struct

from rater.domain.messages import Licences, NumberKind

encode = msgspec.json.Encoder().encode

#: Types of the events that people are told about, by mail or webhook.
NOTIFIED = frozenset(
    {
        "allowance.exhausted",
        "allowance.low",
        "auto_recharge.capped",
        "auto_recharge.disabled",
        "balance.depleted",
        "balance.low",
        "balance.restored",
        "credit.expired",
        "credit.expiring",
        "recharge.failed",
        "recharge.succeeded",
    }
)


class TopicNames(Protocol):
    """The names of the topics, prefix included."""

    @property
    def cdr(self) -> str: ...
    @property
    def command(self) -> str: ...
    @property
    def plan(self) -> str: ...
    @property
    def rate(self) -> str: ...
    @property
    def rated(self) -> str: ...
    @property
    def ledger(self) -> str: ...
    @property
    def event(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def recharge_request(self) -> str: ...
    @property
    def notification(self) -> str: ...
    @property
    def directory(self) -> str: ...
    @property
    def dead_letter(self) -> str: ...


class Record(Protocol):
    """An input record from Kafka; `timestamp` is in ms since the epoch."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Any: ...


class Emit(Protocol):
    """Takes the output records."""

    def __call__(self, topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Any = ()) -> None:
        """Take one record."""
        ...


class LotAmount(Struct, gc=False):
    """What a lot paid for a call."""

    lot_id: str
    amount: str


class RatedCall(Struct, gc=False):
    """A rated call; the charge can be computed again from this record alone."""

    cdr_id: str
    org_id: str
    user_id: str | None
    call_type: str
    caller: str | None
    callee: str
    answered_at: datetime
    duration_ms: int
    service: str
    destination: str | None
    destination_country: str | None
    rate_id: str | None
    plan_id: str | None
    allowance_id: str | None
    billed_s: int
    included_minutes: int
    priced_s: int
    rate_per_minute: str | None
    connection_fee: str | None
    charge: str
    collected: str
    currency: str
    funded_by: str
    reason: str | None
    lots: list[LotAmount]
    overdraft: str
    balance_after: str
    version: int
    rated_at: str


class Posting(Struct, omit_defaults=True, gc=False):
    """One side of a movement of money."""

    account: str
    amount: str
    lot_id: str | None = None


class Transaction(Struct, omit_defaults=True, gc=False):
    """A movement of money, double entry: its postings sum to zero (rule 19)."""

    transaction_id: str
    org_id: str
    kind: str
    currency: str
    postings: list[Posting]
    balance_after: str
    at: str
    cdr_id: str | None = None
    command_id: str | None = None


class Event(Struct):
    """Something that happened on an account; `seq` counts an organization's events without a gap."""

    event_id: str
    seq: int
    type: str
    org_id: str
    at: str
    data: dict[str, Any]


class Notification(Struct):
    """A mail or webhook to send about an event."""

    notification_id: str
    org_id: str
    event_id: str
    type: str
    name: str
    emails: list[str]
    at: str
    data: dict[str, Any]


class RechargeRequest(Struct):
    """A top-up to charge to a card, under an id fixed beforehand (rule 20)."""

    recharge_id: str
    org_id: str
    episode: int
    attempt: int
    amount: str
    currency: str
    payment_method: str
    requested_at: str


class UserEntry(Struct, tag_field="entry", tag="user"):
    """A directory entry of a user: as it was put, or with only its id if it was removed."""

    org_id: str
    user_id: str
    change: Literal["put", "remove"]
    usage_country: str | None
    licences: Licences | None
    at: str


class NumberEntry(Struct, tag_field="entry", tag="number"):
    """A directory entry of a number: as it was put, or with only the number if it was removed."""

    org_id: str
    number: str
    change: Literal["put", "remove"]
    kind: NumberKind | None
    user_id: str | None
    at: str
