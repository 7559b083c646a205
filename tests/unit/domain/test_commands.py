"""A command is carried out once, or refused with its reason."""

from typing import Any

import pytest

from tests.builders import TOPICS, Desk, dead, messages


@pytest.fixture
def desk() -> Desk:
    return Desk().ready()


@pytest.mark.parametrize(
    ("code", "type_", "fields"),
    [
        ("currency_mismatch", "funds.add", {"amount": "1", "currency": "EUR", "purchase_channel": "web-direct"}),
        ("purchase_channel_not_allowed", "funds.add", {"amount": "1", "currency": "USD", "purchase_channel": "csp"}),
        ("invalid_field", "funds.add", {"amount": 1, "currency": "USD", "purchase_channel": "web-direct"}),
        ("invalid_field", "funds.add", {"amount": "1e3", "currency": "USD", "purchase_channel": "web-direct"}),
        ("unknown_plan", "user.put", {"user_id": "u", "usage_country": "US", "licences": {"calling_plan": "gone"}}),
        ("unknown_user", "user.remove", {"user_id": "nobody"}),
        ("unknown_call", "call.void", {"cdr_id": "never", "reason": "x"}),
        ("invalid_field", "no.such.command", {}),
    ],
)
def test_a_refused_command_is_answered_with_its_reason(desk: Desk, code: str, type_: str, fields: dict[str, Any]) -> None:
    before = desk.state()["balance"]
    (event,) = messages(desk.command(type_, payment_reference="r", **fields), TOPICS.event)
    assert (event["type"], event["data"]["code"]) == ("command.refused", code)
    assert desk.state()["balance"] == before


def test_a_command_repeated_does_nothing(desk: Desk) -> None:
    desk.funds("5.00")
    assert desk.give(desk.records[-1]) == []


def test_a_command_id_used_again_with_other_content_is_a_conflict(desk: Desk) -> None:
    desk.funds("5.00")
    record = desk.records[-1]
    record.value = (record.value or b"").replace(b"5.00", b"6.00")
    assert dead(desk.give(record)) == "conflicting_duplicate"


def test_a_command_for_an_unknown_organization_is_refused_and_its_events_are_counted_on(desk: Desk) -> None:
    desk.funds("5.00", org_id="fabrikam")
    desk.organization("fabrikam")
    told = messages(desk.outputs, TOPICS.event, "fabrikam")
    assert [(e["seq"], e["type"]) for e in told] == [(1, "command.refused"), (2, "organization.changed")]
