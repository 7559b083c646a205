"""Auto-recharge: when a top-up is requested, tried again, credited and given up (rules 20 to 22)."""

from datetime import datetime
from typing import Any

import pytest

from tests.builders import ORG, TOPICS, Desk, events, messages


@pytest.fixture
def desk() -> Desk:
    desk = Desk().ready()
    desk.rate("0.60")
    return desk


def auto_recharge(desk: Desk, **fields: Any) -> None:
    own: dict[str, Any] = {"enabled": True, "trigger_amount": "1000.00", "recharge_amount": "50.00", "payment_method": "card"}
    desk.command("auto_recharge.put", **own | fields)


def test_rule_20_a_recharge_is_asked_for_below_the_trigger_and_only_once(desk: Desk) -> None:
    auto_recharge(desk)
    assert messages(desk.outputs, TOPICS.recharge_request) == []  # at the trigger is not below it
    desk.call("a")
    desk.call("b")
    (request,) = messages(desk.outputs, TOPICS.recharge_request)
    assert (request["recharge_id"], request["amount"]) == (f"{ORG}:1", "50.00")


def test_rule_21_a_recharge_is_credited_once_whatever_repeats(desk: Desk) -> None:
    auto_recharge(desk)
    desk.call()
    for _ in range(3):
        desk.command("recharge.succeeded", recharge_id=f"{ORG}:1", amount="50.00", payment_reference="p")
    assert [t["kind"] for t in messages(desk.outputs, TOPICS.ledger)] == ["purchase", "charge", "recharge"]


def test_rule_21_over_the_daily_cap_no_recharge_is_requested_and_that_is_announced_once(desk: Desk) -> None:
    auto_recharge(desk, max_per_day=1, trigger_amount="5000.00")
    desk.command("recharge.succeeded", recharge_id=f"{ORG}:1", amount="50.00", payment_reference="p")
    desk.call()
    assert len(messages(desk.outputs, TOPICS.recharge_request)) == 1
    assert events(desk.outputs).count("auto_recharge.capped") == 1


def test_rule_22_a_soft_decline_is_tried_three_times_more_then_given_up(desk: Desk) -> None:
    auto_recharge(desk)
    desk.call("first")
    for attempt in (1, 2, 3, 4):
        desk.command("recharge.failed", recharge_id=f"{ORG}:1", code="declined", retryable=True)
        desk.call(f"soon-{attempt}")
        desk.later(2)
        desk.call(f"later-{attempt}", answered_at="2025-10-05T00:00:00Z")
    assert [r["attempt"] for r in messages(desk.outputs, TOPICS.recharge_request)] == [1, 2, 3, 4]
    assert desk.state()["auto_recharge"]["state"] == "disabled"


def softly_declined(desk: Desk, **auto: Any) -> None:
    """The first try of the first top-up has failed; the next one is due an hour later."""
    auto_recharge(desk, **auto)
    desk.call("first")
    desk.command("recharge.failed", recharge_id=f"{ORG}:1", code="declined", retryable=True)


def tries(desk: Desk) -> list[int]:
    return [request["attempt"] for request in messages(desk.outputs, TOPICS.recharge_request)]


def test_rule_22_the_timers_command_makes_the_next_try_once_it_is_due(desk: Desk) -> None:
    softly_declined(desk)
    assert desk.command("recharge.retry", recharge_id=f"{ORG}:1", attempt=2) == []  # an hour too early
    desk.now_ms += 3_600_000
    out = desk.command("recharge.retry", recharge_id=f"{ORG}:1", attempt=2)
    assert [r["attempt"] for r in messages(out, TOPICS.recharge_request)] == [2]


def test_rule_22_a_try_is_made_once_whatever_asks_for_it(desk: Desk) -> None:
    softly_declined(desk)
    desk.later(1)
    desk.call("second", answered_at="2025-10-02T00:00:00Z")
    for _ in range(3):
        desk.command("recharge.retry", recharge_id=f"{ORG}:1", attempt=2)
    assert tries(desk) == [1, 2]


def test_rule_22_the_gaps_grow_and_there_are_three(desk: Desk) -> None:
    softly_declined(desk)
    gaps_h = []
    for attempt in (2, 3, 4):
        state = desk.state()["auto_recharge"]
        assert state["attempt"] == attempt - 1
        due = datetime.fromisoformat(state["next_attempt_at"])
        gaps_h.append(round((due.timestamp() * 1000 - desk.now_ms) / 3_600_000))
        desk.now_ms = round(due.timestamp() * 1000)
        desk.command("recharge.retry", recharge_id=f"{ORG}:1", attempt=attempt)
        desk.command("recharge.failed", recharge_id=f"{ORG}:1", code="declined", retryable=True)
    assert (gaps_h, tries(desk)) == ([1, 6, 24], [1, 2, 3, 4])
    assert "next_attempt_at" not in desk.state()["auto_recharge"]


def test_a_retry_of_an_unknown_recharge_is_refused(desk: Desk) -> None:
    (event,) = messages(desk.command("recharge.retry", recharge_id=f"{ORG}:1", attempt=2), TOPICS.event)
    assert event["data"]["code"] == "unknown_recharge"


def test_no_further_try_is_made_once_auto_recharge_is_switched_off(desk: Desk) -> None:
    softly_declined(desk)
    auto_recharge(desk, enabled=False)
    desk.later(1)
    desk.command("recharge.retry", recharge_id=f"{ORG}:1", attempt=2)
    assert tries(desk) == [1]
    assert desk.state()["auto_recharge"]["state"] == "disabled"


def test_a_soft_decline_is_final_where_auto_recharge_was_switched_off_meanwhile(desk: Desk) -> None:
    auto_recharge(desk)
    desk.call("first")
    auto_recharge(desk, enabled=False)
    out = desk.command("recharge.failed", recharge_id=f"{ORG}:1", code="declined", retryable=True)
    failed, disabled = messages(out, TOPICS.event)
    assert (failed["data"]["final"], disabled["data"]["reason"]) == (True, "switched_off")


def test_a_success_that_comes_after_switching_off_is_credited(desk: Desk) -> None:
    softly_declined(desk)
    auto_recharge(desk, enabled=False)
    out = desk.command("recharge.succeeded", recharge_id=f"{ORG}:1", amount="50.00", payment_reference="p")
    assert "recharge.succeeded" in events(out)


def test_rule_22_a_hard_decline_switches_off_until_it_is_set_again(desk: Desk) -> None:
    auto_recharge(desk)
    desk.call("a")
    out = desk.command("recharge.failed", recharge_id=f"{ORG}:1", code="expired_card", retryable=False)
    assert events(out) == ["recharge.failed", "auto_recharge.disabled"]
    desk.call("b")
    assert len(messages(desk.outputs, TOPICS.recharge_request)) == 1
    auto_recharge(desk)
    assert len(messages(desk.outputs, TOPICS.recharge_request)) == 2
