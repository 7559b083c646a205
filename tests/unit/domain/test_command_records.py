"""Commands keep their exact bytes, so that repeats are recognised, and the contract allows every one of them."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from rater.domain import command_records, reading
from rater.domain.command_records import FIXED_ISSUED_AT, operator_command, operator_command_id
from rater.domain.outputs import Notification, RechargeRequest
from rater.domain.rejection import Rejected

AT = "2026-09-21T14:13:20.123Z"
AT_US = 1_790_000_000_123_000
REQUEST = RechargeRequest("acme:recharge:3", "acme", 3, 2, "20.00", "EUR", "pm_1", AT)
NOTE = Notification("notification:acme:7", "acme", "event:acme:7", "balance.low", "Acme", [], AT, {})
USER = {"user_id": "ann", "usage_country": "US", "licences": {"communications_credits": True}}

WRITTEN: list[tuple[bytes | dict[str, Any], bytes]] = [
    (
        operator_command("funds.adjust", "acme", "ticket-1", amount="1.00", reason="r", currency=None),
        (
            b'{"command_id":"ticket-1","type":"funds.adjust","org_id":"acme","issued_at":"2025-01-01T00:00:00Z","amount":"1.00",'
            b'"reason":"r"}'
        ),
    ),
    (
        command_records.file_row_command("user.put", "acme", "load", **USER),
        (
            b'{"command_id":"load:7e19080c677fcf2f939bebec","type":"user.put","org_id":"acme","issued_at":"2025-01-01T00:00:00Z",'
            b'"user_id":"ann","usage_country":"US","licences":{"communications_credits":true}}'
        ),
    ),
    (
        command_records.file_command("acme", {"type": "user.put", **USER}),
        (
            b'{"org_id":"acme","issued_at":"2025-01-01T00:00:00Z","type":"user.put","user_id":"ann","usage_country":"US",'
            b'"licences":{"communications_credits":true},"command_id":"load:761dfdb4933c1638e63d4bfa"}'
        ),
    ),
    (
        command_records.retry_due("acme", "acme:recharge:3", 3, AT_US),
        (
            b'{"command_id":"timer:recharge.retry:2026-09-21T14:13:20.123Z:2312396ab76d6dd5","type":"recharge.retry",'
            b'"org_id":"acme","issued_at":"2026-09-21T14:13:20.123Z","recharge_id":"acme:recharge:3","attempt":3}'
        ),
    ),
    (
        command_records.warning_due("acme", "purchase:1", AT_US),
        (
            b'{"command_id":"timer:funds.warn:2026-09-21T14:13:20.123Z:4be0e8273a1ed50c","type":"funds.warn","org_id":"acme",'
            b'"issued_at":"2026-09-21T14:13:20.123Z","as_of":"2026-09-21T14:13:20.123Z"}'
        ),
    ),
    (
        command_records.expiry_due("acme", "purchase:1", AT_US),
        (
            b'{"command_id":"timer:funds.expire:2026-09-21T14:13:20.123Z:4be0e8273a1ed50c","type":"funds.expire","org_id":"acme",'
            b'"issued_at":"2026-09-21T14:13:20.123Z","as_of":"2026-09-21T14:13:20.123Z"}'
        ),
    ),
    (
        command_records.recharge_succeeded(REQUEST, "pi_1"),
        (
            b'{"command_id":"payment:3:2:succeeded","type":"recharge.succeeded","org_id":"acme",'
            b'"issued_at":"2026-09-21T14:13:20.123Z","recharge_id":"acme:recharge:3","attempt":2,"amount":"20.00",'
            b'"currency":"EUR","payment_reference":"pi_1"}'
        ),
    ),
    (
        command_records.recharge_failed(REQUEST, "lost", retryable=False),
        (
            b'{"command_id":"payment:3:2:failed","type":"recharge.failed","org_id":"acme",'
            b'"issued_at":"2026-09-21T14:13:20.123Z","recharge_id":"acme:recharge:3","attempt":2,"code":"lost",'
            b'"retryable":false}'
        ),
    ),
    (
        command_records.notification_sent(NOTE, "mail", "a@acme.example", AT_US),
        (
            b'{"type":"notification.sent","command_id":"notified:mail:a@acme.example:notification:acme:7","org_id":"acme",'
            b'"notification_id":"notification:acme:7","channel":"mail","recipient":"a@acme.example",'
            b'"issued_at":"2026-09-21T14:13:20.123Z"}'
        ),
    ),
    (
        command_records.notification_failed(NOTE, "mail", "a@acme.example", "no such box", AT_US),
        (
            b'{"type":"notification.failed","command_id":"notified:mail:a@acme.example:notification:acme:7","org_id":"acme",'
            b'"notification_id":"notification:acme:7","channel":"mail","recipient":"a@acme.example","reason":"no such box",'
            b'"issued_at":"2026-09-21T14:13:20.123Z"}'
        ),
    ),
]


def as_bytes(command: bytes | dict[str, Any]) -> bytes:
    return command if isinstance(command, bytes) else msgspec.json.encode(command)


def read_back(command: bytes | dict[str, Any]) -> Any:
    _, payload = reading.read_envelope(as_bytes(command))
    return reading.read_command(payload)


@pytest.mark.parametrize(("command", "written"), WRITTEN, ids=[msgspec.json.decode(w)["command_id"] for _, w in WRITTEN])
def test_a_command_has_exactly_these_bytes_and_can_be_read_back(command: bytes | dict[str, Any], written: bytes) -> None:
    assert as_bytes(command) == written
    assert read_back(command).org_id == "acme"


def test_texts_from_other_systems_are_cut_to_the_contracts_length() -> None:
    assert read_back(command_records.recharge_succeeded(REQUEST, "x" * 300)).payment_reference == "x" * 256
    assert read_back(command_records.recharge_failed(REQUEST, "x" * 300, retryable=True)).code == "x" * 256
    assert read_back(command_records.notification_failed(NOTE, "mail", "a", "x" * 300, AT_US)).reason == "x" * 256


def test_an_id_that_would_be_too_long_becomes_a_unique_digest() -> None:
    ids = {read_back(command_records.notification_sent(NOTE, "mail", "x" * n, AT_US)).command_id for n in (200, 201)}
    assert len(ids) == 2
    assert {len(command_id) for command_id in ids} == {len("notified:") + 32}


def test_issued_at_is_the_time_in_a_generated_id_or_else_fixed() -> None:
    own = operator_command_id(datetime(2026, 11, 24, 5, 6, 7, tzinfo=UTC), "0a1b2c")
    assert own == "cli-20261124T050607Z-0a1b2c"
    assert operator_command("user.remove", "acme", own, user_id="ann")["issued_at"] == "2026-11-24T05:06:07Z"
    assert operator_command("user.remove", "acme", "ticket-1", user_id="ann")["issued_at"] == FIXED_ISSUED_AT


def test_a_command_the_contract_does_not_allow_is_rejected() -> None:
    with pytest.raises(Rejected, match="amount"):
        operator_command("funds.adjust", "acme", "id", amount="1.0000001", reason="r")
    with pytest.raises(Rejected, match="user_id"):
        command_records.file_row_command("user.remove", "acme", "load", user_id="")
    with pytest.raises(Rejected, match="user_id"):
        command_records.file_command("acme", {"type": "user.remove", "user_id": ""})
