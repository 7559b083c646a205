"""The rating rules, one behaviour per test."""

from typing import Any

import pytest

from rater.domain.dead_letters import reason_of
from tests.builders import ORG, TOPICS, Desk, dead, events, messages, rated


@pytest.fixture
def desk() -> Desk:
    desk = Desk().ready()
    desk.rate("0.60")
    return desk


def test_rule_4_an_unanswered_call_is_emitted_free(desk: Desk) -> None:
    call = rated(desk.call(seconds=0))
    assert (call["funded_by"], call["reason"], call["charge"], call["billed_s"]) == ("free", "unanswered", "0.00", 0)


@pytest.mark.parametrize("call_type", ["user_in", "conf_in", "ucap_in", "unassigned_in"])
def test_rule_7_inbound_is_free(desk: Desk, call_type: str) -> None:
    assert rated(desk.call(call_type=call_type))["reason"] == "inbound"


def test_rule_7_toll_free_inbound_is_charged_without_any_user(desk: Desk) -> None:
    desk.rate("0.06", prefix="1800", service="toll-free-inbound")
    call = rated(desk.call(call_type="unassigned_in", number_type="toll-free", callee="+18005550100", user_id=None))
    assert (call["service"], call["charge"], call["funded_by"]) == ("toll-free-inbound", "0.06", "credit")


def test_rule_7_an_own_number_is_on_net_before_any_prefix(desk: Desk) -> None:
    desk.command("number.put", number="+442079460000", kind="service")
    assert rated(desk.call())["reason"] == "on-net"


def test_rule_7_emergency_is_free_whatever_its_number(desk: Desk) -> None:
    assert rated(desk.call(call_type="emergency_out", callee="112"))["reason"] == "emergency"


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("invalid_field", {"duration_ms": "60000"}),
        ("invalid_field", {"call_type": "fax"}),
        ("invalid_field", {"cdr_id": "x" * 129}),
        ("too_large", {"padding": "x" * 65_536}),
        ("too_deep", {"deep": [[[[[[[[1]]]]]]]]}),
        ("bad_number", {"callee": "anonymous"}),
        ("unknown_user", {"user_id": "nobody"}),
        ("no_rate", {"callee": "+9995551234"}),
        ("period_closed", {"answered_at": "2025-07-31T23:59:59Z"}),
    ],
)
def test_a_record_that_cannot_be_rated_is_dead_lettered_and_leaves_no_trace(
    desk: Desk, code: str, change: dict[str, Any]
) -> None:
    before = desk.state()
    assert dead(desk.call(**change)) == code
    assert desk.state() == before
    assert rated(desk.call())["funded_by"] == "credit"  # the same cdr_id, once the cause is removed (rule 26)


def test_a_record_that_is_not_json_is_dead_lettered_as_it_came(desk: Desk) -> None:
    (letter,) = desk.give(desk.record(TOPICS.cdr, ORG, b"\xff{"))
    reason = reason_of(letter.headers)
    assert (letter.value, reason.code, reason.retryable) == (b"\xff{", "malformed_json", False)


def test_schema_registry_framing_is_stripped(desk: Desk) -> None:
    record = desk.record(TOPICS.cdr, ORG, b"")
    desk.call("plain")
    framed = b"\x00\x00\x00\x00\x07" + (desk.records[-1].value or b"").replace(b"plain", b"framed")
    record.value = framed
    assert rated(desk.give(record))["cdr_id"] == "framed"


def test_a_record_keyed_by_anything_but_its_organization_is_refused(desk: Desk) -> None:
    desk.call("good")
    record = desk.records[-1]
    record.key = b"fabrikam"
    assert dead(desk.give(record)) == "invalid_field"


def test_rule_26_the_same_call_again_is_not_rated_again(desk: Desk) -> None:
    desk.call()
    assert desk.call() == []


def test_rule_26_the_same_id_with_other_content_is_a_conflict(desk: Desk) -> None:
    desk.call()
    assert dead(desk.call(seconds=61)) == "conflicting_duplicate"


def test_rule_26_a_call_is_still_known_after_35_days(desk: Desk) -> None:
    desk.call()
    desk.later(35)
    assert desk.call() == []


def test_a_call_is_never_rated_twice_as_its_month_is_closed_when_it_is_forgotten(desk: Desk) -> None:
    desk.call()
    desk.later(200)
    assert dead(desk.call()) == "period_closed"


def test_rule_15_without_the_credits_licence_the_charge_is_shown_and_not_collected(desk: Desk) -> None:
    desk.user(paid=False)
    call = rated(desk.call())
    assert (call["funded_by"], call["charge"], call["collected"]) == ("unfunded", "0.60", "0.00")
    assert call["reason"] == "no_communications_credits_licence"
    assert "call.unfunded" in events(desk.outputs)


def test_rule_12_joint_exhaustion_uses_up_the_siblings() -> None:
    desk = Desk()
    allowances = [
        {"allowance_id": "gb", "minutes_per_user": 2, "destinations": ["GB"]},
        {"allowance_id": "rest", "minutes_per_user": 9, "destinations": "*"},
    ]
    desk.plan(joint_exhaustion=True, allowances=allowances)
    desk.ready(plan="plan")
    desk.rate("1")
    desk.rate("1", prefix="49", country="DE")
    assert rated(desk.call("a", seconds=120))["allowance_id"] == "gb"
    assert rated(desk.call("b", callee="+4930123456"))["funded_by"] == "credit"


def test_rule_11_the_month_is_the_one_of_the_organizations_time_zone() -> None:
    desk = Desk()
    desk.plan()
    desk.ready(plan="plan")
    desk.organization(time_zone="Asia/Tokyo")
    desk.rate("1")
    desk.call(answered_at="2025-09-30T15:00:00Z")
    assert [p["month"] for p in desk.state()["pools"] if p["minutes_used"]] == ["2025-10"]


def test_rule_25_allowance_events_come_once_each() -> None:
    desk = Desk()
    desk.plan(minutes=10)
    desk.ready(plan="plan")
    desk.rate("1")
    for i in range(12):
        desk.call(f"c{i}")
    told = [e for e in events(desk.outputs) if e.startswith("allowance")]
    assert told == ["allowance.low", "allowance.exhausted"]


def test_rule_19_a_void_gives_back_to_the_lots_it_came_from(desk: Desk) -> None:
    before = desk.state()["lots"]
    desk.call()
    desk.command("call.void", cdr_id="call", reason="test")
    assert desk.state()["lots"] == before
    assert events(desk.command("call.void", cdr_id="call", reason="again")) == ["command.refused"]
    assert [t["kind"] for t in messages(desk.outputs, TOPICS.ledger)] == ["purchase", "charge", "void"]


def test_rule_18_expired_credit_is_forfeited_and_announced(desk: Desk) -> None:
    out = desk.command("funds.expire", as_of="2026-10-02T00:00:00Z")
    assert messages(out, TOPICS.ledger)[0]["kind"] == "expiry"
    assert events(out) == ["credit.expired", "balance.depleted"]
    assert desk.state()["status"] == "suspended"


def test_credit_that_expires_within_30_and_7_days_is_warned_of_once_each(desk: Desk) -> None:
    told = []
    for day in ("2026-08-01", "2026-09-10", "2026-09-11", "2026-09-28", "2026-09-29"):
        told += events(desk.command("funds.expire", as_of=f"{day}T00:00:00Z"))
    assert told == ["credit.expiring", "credit.expiring"]


def test_a_warning_is_given_at_30_and_at_7_days_before_and_moves_no_money(desk: Desk) -> None:
    told = []
    for day in ("2026-08-31", "2026-09-01", "2026-09-24", "2026-09-25", "2026-10-02"):
        out = desk.command("funds.warn", as_of=f"{day}T12:00:01Z")
        told += [(day, event["type"], event["data"]["days"]) for event in messages(out, TOPICS.event)]
    assert told == [("2026-09-01", "credit.expiring", 30), ("2026-09-24", "credit.expiring", 7)]
    assert [t["kind"] for t in messages(desk.outputs, TOPICS.ledger)] == ["purchase"]


def test_a_lot_first_looked_at_in_its_last_week_is_warned_of_once(desk: Desk) -> None:
    out = desk.command("funds.warn", as_of="2026-09-28T00:00:00Z")
    out += desk.command("funds.warn", as_of="2026-09-28T00:00:00Z")
    assert [event["data"]["days"] for event in messages(out, TOPICS.event)] == [7]


def test_rule_23_depleted_and_restored_come_once_a_crossing(desk: Desk) -> None:
    desk.rate("1000")
    desk.call("a")
    desk.call("b")
    desk.funds("5000.00")
    told = [e for e in events(desk.outputs) if e.startswith("balance")]
    assert told == ["balance.depleted", "balance.restored"]
