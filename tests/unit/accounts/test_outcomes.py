"""The outcomes of commands, and how they are described."""

import pytest

from rater.accounts import CommandOutcome, OutcomeSummary, describe, new_command_id
from rater.accounts.outcomes import outcome_of_event
from rater.domain.command_records import operator_command

REMOVED = operator_command("user.remove", "contoso", "id", user_id="ann")
EVENT = {"type": "user.changed", "org_id": "contoso", "data": {"command_id": "id", "change": "remove", "user_id": "ann"}}
REFUSED = {"type": "command.refused", "data": {"command_id": "id", "code": "unknown_user", "message": "no user 'ann'"}}


def test_a_command_repeated_under_its_id_is_the_same() -> None:
    for command_id in (new_command_id(), "ticket-4711"):
        once, again = (operator_command("user.remove", "contoso", command_id, user_id="ann") for _ in range(2))
        assert once == again


def test_new_ids_differ() -> None:
    assert new_command_id() != new_command_id()


def test_an_event_means_done_and_a_refusal_means_refused() -> None:
    assert outcome_of_event(REMOVED, EVENT) == CommandOutcome(REMOVED, "done", EVENT)
    refused = outcome_of_event(REMOVED, REFUSED)
    assert (refused.result, refused.event, refused.code, refused.ok) == ("refused", None, "unknown_user", False)


def test_a_repeated_command_whose_event_is_gone_is_described_as_such() -> None:
    outcome = CommandOutcome(REMOVED, "repeated")
    assert outcome.ok
    assert describe(outcome) == "contoso: already done before; the event that shows the outcome is no longer kept"


def test_a_repeated_command_is_described_by_its_first_event() -> None:
    assert describe(CommandOutcome(REMOVED, "repeated", EVENT)) == "contoso: already done before: user ann removed"


@pytest.mark.parametrize(
    ("type_", "data", "text"),
    [
        ("user.changed", {"user_id": "ann", "change": "put"}, "user ann set"),
        (
            "organization.changed",
            {"name": "C", "country": "US", "currency": "USD", "time_zone": "UTC"},
            "organization set: C, US, USD, UTC",
        ),
        (
            "organization.changed",
            {"change": "number.put", "number": "+1", "kind": "subscriber", "user_id": "ann"},
            "number +1 set (subscriber, of ann)",
        ),
        ("organization.changed", {"change": "number.remove", "number": "+1"}, "number +1 removed"),
        ("funds.added", {"amount": "5.00", "currency": "USD", "balance": "7.00"}, "5.00 USD added, balance 7.00 USD"),
        (
            "funds.adjusted",
            {"amount": "-5.00", "currency": "USD", "balance": "7.00"},
            "adjusted by -5.00 USD, balance 7.00 USD",
        ),
        (
            "auto_recharge.changed",
            {"enabled": True, "trigger_amount": "1", "recharge_amount": "5", "payment_method": "card"},
            "auto-recharge is on: below 1 it takes 5 from card",
        ),
        ("auto_recharge.changed", {"enabled": False}, "auto-recharge is off"),
        (
            "call.voided",
            {"cdr_id": "c", "amount": "0.60", "currency": "USD", "included_minutes": 2, "balance": "7.00"},
            "call c voided: 0.60 USD and 2 included minutes given back, balance 7.00 USD",
        ),
    ],
)
def test_each_event_is_described_in_one_line(type_: str, data: dict[str, object], text: str) -> None:
    assert describe(CommandOutcome(REMOVED, "done", {"type": type_, "data": data})) == f"contoso: {text}"


def test_as_a_message_an_outcome_has_its_event_or_its_refusal() -> None:
    common = {"command_id": "id", "type": "user.remove", "org_id": "contoso"}
    assert CommandOutcome(REMOVED, "done", EVENT).as_message() == common | {"result": "done", "event": EVENT}
    refused = common | {"result": "refused", "event": None, "code": "unknown_user", "message": "no user 'ann'"}
    assert outcome_of_event(REMOVED, REFUSED).as_message() == refused


def test_a_summary_counts_a_command_refused_before_as_refused() -> None:
    done = CommandOutcome(REMOVED, "done", EVENT)
    repeated = CommandOutcome(REMOVED, "repeated", EVENT)
    refused_before = CommandOutcome(REMOVED, "repeated", None, "unknown_user", "no user 'ann'")
    refused = CommandOutcome(REMOVED, "refused", None, "unknown_user", "no user 'ann'")
    pending = CommandOutcome(REMOVED, "pending")
    summary = OutcomeSummary.of([done, repeated, refused_before, refused, pending])
    assert summary == OutcomeSummary(done=1, repeated=1, refused=[refused_before, refused], pending=[pending])
