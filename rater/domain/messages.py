"""The messages that come in and how strictly they are read (contract, "Messages").

Every field has its type, range and length here; unknown fields are ignored. Reading a record either gives one of these
structs or raises `Rejected` with the contract's code, whatever the bytes are.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from rater.domain import moments, money
from rater.domain.currencies import CURRENCY_DIGITS
from rater.domain.rejection import Rejected

PAYLOAD_BYTES_MAX = 64 * 1024
DEPTH_MAX = 8
DURATION_MS_MAX = 31 * 86_400_000  # no call lasts longer than a month

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
    """A row of a rate deck. Money is a minute's, a call's and a call's least, in `currency`."""

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
    """Minutes a plan includes a user and month, to some destinations (rule 10)."""

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
    """What every command has: enough to answer it, whatever is wrong with the rest."""

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
    """A command's common part."""

    command_id: Id
    org_id: Id


class OrganizationPut(Command, tag="organization.put"):
    """Make an organization, or change it; its currency stays (rule 2)."""

    name: Text
    country: Country
    currency: Currency
    offer: Literal["commercial", "education", "nonprofit", "government"]
    emails: Annotated[list[Annotated[str, Meta(min_length=3, max_length=254)]], Meta(max_length=50)] = []
    time_zone: Annotated[str, Meta(max_length=64)] = "UTC"
    rate_card: Id = "default"
    low_balance_amount: Amount | None = None


class UserPut(Command, tag="user.put"):
    """Make a user, or change it."""

    user_id: Id
    usage_country: Country
    licences: Licences


class UserRemove(Command, tag="user.remove"):
    """Take a user away."""

    user_id: Id


class NumberPut(Command, tag="number.put"):
    """Register a number of the organization's own."""

    number: Number
    kind: NumberKind
    user_id: Id | None = None


class NumberRemove(Command, tag="number.remove"):
    """Take a number away."""

    number: Number


class FundsAdd(Command, tag="funds.add"):
    """Credits that were bought."""

    amount: Amount
    currency: Currency
    purchase_channel: Literal["web-direct", "csp"]
    payment_reference: Text


class FundsAdjust(Command, tag="funds.adjust"):
    """A correction of the balance by hand, up or down."""

    amount: SignedAmount
    reason: Text
    currency: Currency | None = None


class FundsExpire(Command, tag="funds.expire"):
    """Forfeit what has expired by `as_of` (rule 18)."""

    as_of: Moment


class FundsWarn(Command, tag="funds.warn"):
    """Warn of credit that expires soon, as seen at `as_of`."""

    as_of: Moment


class AutoRechargePut(Command, tag="auto_recharge.put"):
    """Set how the wallet is topped up by itself (rules 20 to 22)."""

    enabled: bool
    trigger_amount: Amount
    recharge_amount: Amount
    payment_method: Text
    max_per_day: Positive | None = None
    max_amount_per_month: Amount | None = None
    currency: Currency | None = None


class RechargeSucceeded(Command, tag="recharge.succeeded"):
    """The payment side took the money of a recharge."""

    recharge_id: Annotated[str, Meta(min_length=1, max_length=160)]
    amount: Amount
    payment_reference: Text
    currency: Currency | None = None


class RechargeFailed(Command, tag="recharge.failed"):
    """The payment side could not take the money; `attempt` says which try, where it is known."""

    recharge_id: Annotated[str, Meta(min_length=1, max_length=160)]
    code: Text
    retryable: bool
    attempt: Positive | None = None


class RechargeRetry(Command, tag="recharge.retry"):
    """Try a softly declined recharge again, now that its next try is due; `attempt` says which try that is (rule 22)."""

    recharge_id: Annotated[str, Meta(min_length=1, max_length=160)]
    attempt: Positive


class CallVoid(Command, tag="call.void"):
    """Take a rated call back (rule 19)."""

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
    | CallVoid
)

_cdr = msgspec.json.Decoder(Cdr)
_rate = msgspec.json.Decoder(Rate)
_plan = msgspec.json.Decoder(Plan)
_envelope = msgspec.json.Decoder(Envelope)
_command: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)
_any_json = msgspec.json.Decoder()


def read_cdr(value: bytes | None) -> Cdr:
    """Read a CDR. Raises `Rejected`."""
    payload = _payload(value)
    try:
        cdr = _cdr.decode(payload)
        if not payload.isascii():
            payload.decode()
            _check_text(cdr.cdr_id, cdr.org_id, cdr.user_id, cdr.caller, cdr.callee)
        elif b"\\u" in payload:
            _check_text(cdr.cdr_id, cdr.org_id, cdr.user_id, cdr.caller, cdr.callee)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise _explain(payload, error) from None
    if cdr.answered_at.tzinfo is not UTC:
        cdr.answered_at = _in_utc(cdr.answered_at)
    if not 1970 <= cdr.answered_at.year < 2200:
        raise Rejected("invalid_field", "answered_at: out of range")
    return cdr


def read_envelope(value: bytes | None) -> tuple[Envelope, bytes]:
    """Read what every command has, and its payload for `read_command`. Raises `Rejected`."""
    payload = _payload(value)
    try:
        payload.decode()
        envelope = _envelope.decode(payload)
        _check_text(envelope.command_id, envelope.org_id)
        return envelope, payload
    except (ValueError, RecursionError) as error:
        raise _explain(payload, error) from None


def read_command(payload: bytes) -> AnyCommand:
    """Read a whole command. Raises `Rejected` with `invalid_field`."""
    try:
        command = _command.decode(payload)
    except (ValueError, RecursionError) as error:
        raise _explain(payload, error) from None
    for field in command.__struct_fields__:
        value = getattr(command, field)
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, datetime):
            _check_range(value, field)
    currency = getattr(command, "currency", None)
    if currency is not None and currency not in CURRENCY_DIGITS:
        raise Rejected("invalid_field", f"currency: {currency} is not in ISO 4217")
    return command


def read_rate(value: bytes | None) -> Rate:
    """Read a row of a rate deck. Raises `Rejected`."""
    payload = _payload(value)
    try:
        payload.decode()
        rate = _rate.decode(payload)
        _check_text(rate.rate_id, rate.rate_card, rate.destination, rate.number_type)
    except (ValueError, RecursionError) as error:
        raise _explain(payload, error) from None
    if rate.currency not in CURRENCY_DIGITS:
        raise Rejected("invalid_field", f"currency: {rate.currency} is not in ISO 4217")
    _check_range(rate.effective_from, "effective_from")
    if rate.effective_to is not None:
        _check_range(rate.effective_to, "effective_to")
        if rate.effective_to <= rate.effective_from:
            raise Rejected("invalid_field", "effective_to: not after effective_from")
    return rate


def read_plan(value: bytes | None) -> Plan:
    """Read a plan. Raises `Rejected`."""
    payload = _payload(value)
    try:
        payload.decode()
        plan = _plan.decode(payload)
        _check_text(plan.plan_id, plan.name, *(a.allowance_id for a in plan.allowances))
    except (ValueError, RecursionError) as error:
        raise _explain(payload, error) from None
    if len({a.allowance_id for a in plan.allowances}) < len(plan.allowances):
        raise Rejected("invalid_field", "allowances: an allowance_id stands twice")
    return plan


def _payload(value: bytes | None) -> bytes:
    """The JSON of a record: framing stripped, size and depth within bounds. Raises `Rejected`."""
    if not value:
        raise Rejected("malformed_json", "the record has no value")
    if value[0] == 0 and len(value) >= 5:  # Confluent schema-registry framing: a zero and a schema id of 4 bytes
        value = value[5:]
    if len(value) > PAYLOAD_BYTES_MAX:
        raise Rejected("too_large", f"{len(value)} bytes, {PAYLOAD_BYTES_MAX} at most")
    # No JSON is nested deeper than its brackets are many: most records are spared the exact look.
    if value.count(b"{") + value.count(b"[") > DEPTH_MAX and _depth(value) > DEPTH_MAX:
        try:
            _any_json.decode(value)
        except RecursionError:
            pass  # deeper than the decoder goes: too deep, whatever follows
        except ValueError as error:
            raise Rejected("malformed_json", str(error)[:200]) from None
        raise Rejected("too_deep", f"nested deeper than {DEPTH_MAX}")
    return value


def _depth(payload: bytes) -> int:
    """How deep the brackets outside strings are nested."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in payload:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"{[":
            depth += 1
            if depth > deepest:
                deepest = depth
        elif byte in b"}]":
            depth -= 1
    return deepest


def _explain(payload: bytes, error: Exception) -> Rejected:
    """Not JSON at all, or JSON that breaks a field's rule: the former is said first."""
    try:
        payload.decode()
        _any_json.decode(payload)
    except (ValueError, RecursionError) as fault:
        return Rejected("malformed_json", str(fault)[:200])
    return Rejected("invalid_field", str(error)[:200])


def _check_text(*texts: str | None) -> None:
    """JSON may escape half a surrogate pair, which no topic can carry on; raises `ValueError`."""
    for text in texts:
        if text is not None:
            text.encode()


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise Rejected("invalid_field", "answered_at: out of range") from None


def _check_range(moment: datetime, field: str) -> None:
    if not moments.INSTANT_US_MIN <= moments.to_us(moment) < moments.INSTANT_US_MAX:
        raise Rejected("invalid_field", f"{field}: out of range")
