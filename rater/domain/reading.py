"""Reads and checks what comes in: bytes to messages, or `Rejected` with the contract's code.

First framing, size and depth are checked. Then msgspec checks types, ranges, lengths and enums in one pass. Checks that a type
can't express come last.
"""

from datetime import UTC, datetime
from typing import Final

import msgspec

from rater.domain import moments
from rater.domain.currencies import CURRENCY_DIGITS
from rater.domain.messages import AnyCommand, Cdr, Envelope, Plan, Rate
from rater.domain.outputs import Record
from rater.domain.rejection import Rejected

PAYLOAD_BYTES_MAX: Final = 64 * 1024
DEPTH_MAX: Final = 8

_cdr: Final = msgspec.json.Decoder(Cdr)
_rate: Final = msgspec.json.Decoder(Rate)
_plan: Final = msgspec.json.Decoder(Plan)
_envelope: Final = msgspec.json.Decoder(Envelope)
_command: Final[msgspec.json.Decoder[AnyCommand]] = msgspec.json.Decoder(AnyCommand)
_any_json: Final = msgspec.json.Decoder()


def check_key_and_time(record: Record, org_id: bytes) -> None:
    """Check what every account's record has: its organization as the key, a timestamp in range. Raises `Rejected`.

    The key decides on the partition, and so on the one writer an account has.
    """
    if record.key != org_id:
        raise Rejected("invalid_field", "key: must be the org_id")
    if not 0 <= record.timestamp < moments.INSTANT_US_MAX // 1000:
        raise Rejected("invalid_field", "timestamp: out of range")


def read_cdr(value: bytes | None) -> Cdr:
    """Read a CDR. Raises `Rejected`."""
    payload = _payload(value)
    try:
        cdr = _cdr.decode(payload)
        if not payload.isascii():
            payload.decode()
            _check_text(cdr.cdr_id, cdr.org_id, cdr.user_id, cdr.caller, cdr.callee)
        elif b"\\" in payload:
            _check_text(cdr.cdr_id, cdr.org_id, cdr.user_id, cdr.caller, cdr.callee)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise _explain(payload, error) from None
    if cdr.answered_at.tzinfo is not UTC:
        cdr.answered_at = _in_utc(cdr.answered_at)
    if not 1970 <= cdr.answered_at.year < 2200:
        raise Rejected("invalid_field", "answered_at: out of range")
    return cdr


def read_envelope(value: bytes | None) -> tuple[Envelope, bytes]:
    """Read the fields every command has; returns them, and the payload for `read_command`. Raises `Rejected`."""
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
        _check_text(plan.plan_id, plan.name, *[a.allowance_id for a in plan.allowances])
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
    # JSON can't be nested deeper than it has brackets, and a CDR has one: most records don't need the exact depth.
    nested = value.find(b"{", 1) > 0 or b"[" in value
    if nested and value.count(b"{") + value.count(b"[") > DEPTH_MAX and _depth(value) > DEPTH_MAX:
        try:
            _any_json.decode(value)
        except RecursionError:
            pass  # deeper than the decoder goes, so too deep whatever follows
        except ValueError as error:
            raise Rejected("malformed_json", str(error)[:200]) from None
        raise Rejected("too_deep", f"nested deeper than {DEPTH_MAX}")
    return value


def _depth(payload: bytes) -> int:
    """How deep the brackets outside of strings are nested."""
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
    """Why the payload was not accepted: `malformed_json` if it isn't JSON at all, else `invalid_field`."""
    try:
        payload.decode()
        _any_json.decode(payload)
    except msgspec.ValidationError:
        pass  # it is JSON: the decoder raises this for numbers too large for it
    except (ValueError, RecursionError) as fault:
        return Rejected("malformed_json", str(fault)[:200])
    return Rejected("invalid_field", str(error)[:200])


def _check_text(*texts: str | None) -> None:
    """Raises `ValueError` for half a surrogate pair, which JSON can escape and UTF-8 can't encode."""
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
