"""The messages that come in (docs/contract.md, "Messages"): every field with its type, range and length.

Unknown fields are ignored. `reading` decodes and checks them.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from rater.domain import money

DURATION_MS_MAX = 31 * 86_400_000  # no call is longer than a month

Id = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=256)]
Amount = Annotated[str, Meta(pattern=money.AMOUNT_PATTERN)]
SignedAmount = Annotated[str, Meta(pattern=money.SIGNED_AMOUNT_PATTERN)]
Moment = Annotated[datetime, Meta(tz=True)]
Country = Annotated[str, Meta(pattern=r"\A[A-Z]{2}\Z")]
Currency = Annotated[str, Meta(pattern=r"\A[A-Z]{3}\Z")]
Number = Annotated[str, Meta(pattern=r"\A\+[1-9][0-9]{1,14}\Z")]
Whole = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Positive = Annotated[int, Meta(ge=1, le=1_000_000_000)]
NumberKind = Literal["subscriber", "service", "toll-free"]
Service = Literal["outbound", "toll-free-inbound", "conference-dial-out"]
CallType = Literal[
    "user_in",
    "conf_in",
    "ucap_in",
    "unassigned_in",
    "user_out",
    "user_out_conf",
    "user_out_transfer",
    "user_out_forwarding",
    "ucap_out",
    "conf_out",
    "emergency_out",
]


class Cdr(Struct, omit_defaults=True, gc=False):
    """A call-detail record as a switch publishes it. `duration_ms` counts from answer to end (rule 4)."""

    cdr_id: Id
    org_id: Id
    call_type: CallType
    callee: Text
    answered_at: Moment
    duration_ms: Annotated[int, Meta(ge=-(2**53), le=DURATION_MS_MAX)]
    user_id: Id | None = None
    number_type: NumberKind = "subscriber"
    caller: Text | None = None
    conference_id: Text | None = None
    source: Text | None = None
    switch: Text | None = None
    trunk: Text | None = None


class Rate(Struct, omit_defaults=True):
    """A row of a rate deck; its rate per minute, fee per call and minimum charge per call are in `currency`."""

    rate_id: Id
    service: Service
    prefix: Annotated[str, Meta(pattern=r"\A[0-9]{1,15}\Z")]
    destination: Text
    country: Country
    currency: Currency
    rate_per_minute: Amount
    effective_from: Moment
    rate_card: Id = "default"
    number_type: Text = ""
    connection_fee: Amount = "0"
    initial_increment_s: Whole = 60
    increment_s: Positive = 60
    minimum_charge: Amount | None = None
    effective_to: Moment | None = None


class Allowance(Struct, omit_defaults=True):
    """Minutes that a plan includes per user and month, for some destinations (rule 10)."""

    allowance_id: Id
    minutes_per_user: Positive
    destinations: list[Country] | Literal["*"]
    number_types: list[Text] | None = None


class Plan(Struct, omit_defaults=True):
    """A plan that users hold by licence (rules 10 to 12)."""

    plan_id: Id
    name: Text
    service: Service
    allowances: Annotated[list[Allowance], Meta(min_length=1, max_length=64)]
    joint_exhaustion: bool = False


class Envelope(Struct):
    """The fields every command has: enough to answer it, whatever is wrong with the rest."""

    command_id: Id
    type: Annotated[str, Meta(min_length=1, max_length=64)]
    org_id: Id
    issued_at: Moment


class Licences(Struct):
    """What a user is licensed for."""

    phone_system: bool = False
    calling_plan: Id | None = None
    audio_conferencing: Id | None = None
    communications_credits: bool = False


class Command(Struct, tag_field="type"):
    """The fields all commands share."""

    command_id: Id
    org_id: Id


class OrganizationPut(Command, tag="organization.put"):
    """Create an organization, or change it; its currency can't change (rule 2)."""

    name: Text
    country: Country
    currency: Currency
    offer: Literal["commercial", "education", "nonprofit", "government"]
    emails: Annotated[list[Annotated[str, Meta(min_length=3, max_length=254)]], Meta(max_length=50)] = []
    time_zone: Annotated[str, Meta(max_length=64)] = "UTC"
    rate_card: Id = "default"
    low_balance_amount: Amount | None = None


class UserPut(Command, tag="user.put"):
    """Create a user, or change it."""

    user_id: Id
    usage_country: Country
    licences: Licences


class UserRemove(Command, tag="user.remove"):
    """Remove a user."""

    user_id: Id


class NumberPut(Command, tag="number.put"):
    """Register a number of the organization."""

    number: Number
    kind: NumberKind
    user_id: Id | None = None


class NumberRemove(Command, tag="number.remove"):
    """Remove a number of the organization."""

    number: Number


class FundsAdd(Command, tag="funds.add"):
    """Credit a purchase."""

    amount: Amount
    currency: Currency
    purchase_channel: Literal["web-direct", "csp"]
    payment_reference: Text


class FundsAdjust(Command, tag="funds.adjust"):
    """Correct the balance by hand, up or down."""

    amount: SignedAmount
    reason: Text
    currency: Currency | None = None


class FundsExpire(Command, tag="funds.expire"):
    """Forfeit the credit that has expired by `as_of` (rule 18)."""

    as_of: Moment


class FundsWarn(Command, tag="funds.warn"):
    """Warn of credit that expires soon after `as_of`."""

    as_of: Moment


class AutoRechargePut(Command, tag="auto_recharge.put"):
    """Set how the wallet is topped up automatically (rules 20 to 22)."""

    enabled: bool
    trigger_amount: Amount
    recharge_amount: Amount
    payment_method: Text
    max_per_day: Positive | None = None
    max_amount_per_month: Amount | None = None
    currency: Currency | None = None


class RechargeSucceeded(Command, tag="recharge.succeeded"):
    """The payment side collected the money of a recharge."""

    recharge_id: Annotated[str, Meta(min_length=1, max_length=160)]
    amount: Amount
    payment_reference: Text
    currency: Currency | None = None


class RechargeFailed(Command, tag="recharge.failed"):
    """The payment side could not collect the money; `attempt` says which try failed, if known."""

    recharge_id: Annotated[str, Meta(min_length=1, max_length=160)]
    code: Text
    retryable: bool
    attempt: Positive | None = None


class RechargeRetry(Command, tag="recharge.retry"):
    """Try a softly declined recharge again; `attempt` says which try is due (rule 22)."""

    recharge_id: Annotated[str, Meta(min_length=1, max_length=160)]
    attempt: Positive


class NotificationSent(Command, tag="notification.sent"):
    """A mail or webhook about an event was accepted by its recipient."""

    notification_id: Text
    channel: Literal["mail", "webhook"]
    recipient: Annotated[str, Meta(max_length=2048)]


class NotificationFailed(Command, tag="notification.failed"):
    """A mail or webhook about an event can't be delivered and will not be tried again."""

    notification_id: Text
    channel: Literal["mail", "webhook"]
    recipient: Annotated[str, Meta(max_length=2048)]
    reason: Text


class CallVoid(Command, tag="call.void"):
    """Void a rated call: return its money and minutes (rule 19)."""

    cdr_id: Id
    reason: Text


AnyCommand = (
    OrganizationPut
    | UserPut
    | UserRemove
    | NumberPut
    | NumberRemove
    | FundsAdd
    | FundsAdjust
    | FundsExpire
    | FundsWarn
    | AutoRechargePut
    | RechargeSucceeded
    | RechargeFailed
    | RechargeRetry
    | NotificationSent
    | NotificationFailed
    | CallVoid
)
