"""The audit of a small genuine history, and of the same history with one record forged."""

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from rater.audit import Books, audit
from rater.kafka.log import LogRecord
from rater.kafka.topics import load_topics
from rater.simulation import simulate

TOPICS = load_topics()
START_MS = 1_790_000_000_000


def history() -> Books:
    """A purchase that runs out during a call, a purchase that repays the overdraft, and a voided call."""
    rate = {"rate_id": "r", "service": "outbound", "prefix": "1", "destination": "US", "country": "US", "currency": "USD"}
    rate |= {"rate_per_minute": "1.5", "effective_from": "2020-01-01T00:00:00Z"}
    licences = {"communications_credits": True}
    steps: list[tuple[str, str, dict[str, Any]]] = [
        (TOPICS.rate, "r", rate),
        command("organization.put", name="A", country="US", currency="USD", offer="commercial"),
        command("user.put", user_id="u", usage_country="US", licences=licences),
        command("user.put", user_id="v", usage_country="US", licences={}),
        funds("1", "5.00"),
        call("c1", 60_000),
        call("c2", 180_000),
        call("c3", 60_000, user_id="v"),
        call("c4", 0),
        funds("2", "10.00"),
        call("c5", 60_000),
        command("call.void", cdr_id="c5", reason="echo"),
    ]
    log = [LogRecord(topic, START_MS + i, key.encode(), msgspec.json.encode(m)) for i, (topic, key, m) in enumerate(steps)]
    return Books.of(TOPICS, simulate(TOPICS, log))


def command(type_: str, **fields: Any) -> tuple[str, str, dict[str, Any]]:
    command_id = "-".join([type_, *(str(value) for value in fields.values() if isinstance(value, str))])
    message = {"command_id": command_id, "type": type_, "org_id": "acme", "issued_at": "2026-09-01T00:00:00Z"}
    return TOPICS.command, "acme", message | fields


def funds(reference: str, amount: str) -> tuple[str, str, dict[str, Any]]:
    purchase = {"currency": "USD", "purchase_channel": "web-direct", "payment_reference": reference}
    return command("funds.add", amount=amount, **purchase)


def call(cdr_id: str, duration_ms: int, user_id: str = "u") -> tuple[str, str, dict[str, Any]]:
    cdr = {"cdr_id": cdr_id, "org_id": "acme", "user_id": user_id, "call_type": "user_out", "callee": "+14255550100"}
    return TOPICS.cdr, "acme", cdr | {"answered_at": "2026-09-20T12:00:00Z", "duration_ms": duration_ms}


def forged(forge: Callable[[Any], Any], *, truncated: bool = False) -> list[str]:
    books = copy.deepcopy(history())
    forge(books.accounts["acme"])
    return [finding.message for finding in audit(books, truncated=truncated)]


def test_a_genuine_history_agrees() -> None:
    books = history()
    account = books.accounts["acme"]
    assert [call["funded_by"] for call in account.rated] == ["credit", "credit", "unfunded", "free", "credit"]
    assert account.rated[1]["overdraft"] == "1.00"
    assert len(account.ledger) == 6
    assert not audit(books)
    assert not audit(books, truncated=True)


@pytest.mark.parametrize(
    "forge",
    [
        lambda a: a.ledger[1]["postings"][0].update(amount="-1.49"),
        lambda a: a.ledger[2].update(balance_after="0.00"),
        lambda a: a.ledger.insert(2, a.ledger[1]),
        lambda a: a.ledger.pop(1),
        lambda a: a.ledger.pop(),
        lambda a: a.rated.append(a.rated[0]),
        lambda a: a.rated.pop(1),
        lambda a: a.rated[0].update(charge="1.60"),
        lambda a: a.rated[1].update(collected="4.50", overdraft="0.00"),
        lambda a: a.rated[0]["lots"][0].update(lot_id="purchase:other"),
        lambda a: a.rated[2].update(collected="1.50"),
        lambda a: a.events.pop(3),
        lambda a: a.events.insert(3, a.events[3]),
        lambda a: a.events.pop(),
        lambda a: a.state.update(balance="0.01"),
        lambda a: a.state.update(overdraft="1.00"),
        lambda a: a.state["lots"].pop(),
        lambda a: setattr(a, "state", None),
    ],
)
def test_one_forged_record_is_found(forge: Callable[[Any], Any]) -> None:
    assert forged(forge)


def test_old_calls_and_events_may_be_missing_if_retention_has_removed_them() -> None:
    def forget(account: Any) -> None:
        del account.rated[:2], account.events[:4]

    assert forged(forget)
    assert not forged(forget, truncated=True)


def test_all_calls_and_events_may_be_missing_if_retention_has_removed_them() -> None:
    def forget(account: Any) -> None:
        del account.rated[:], account.events[:]

    assert not forged(forget, truncated=True)


def test_even_then_a_call_missing_after_one_that_is_kept_is_found() -> None:
    assert forged(lambda a: a.rated.pop(1), truncated=True) == ["call c2 was charged but never rated"]


def test_even_then_an_event_missing_after_one_that_is_kept_is_found() -> None:
    assert forged(lambda a: a.events.pop(3), truncated=True)
