"""The second opinion puts the input in the worker's order, and finds where the worker's books differ from the simulation."""

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from rater.audit import Books
from rater.audit.second_opinion import compare, worker_order
from rater.kafka.log import LogRecord
from rater.kafka.topics import load_topics
from rater.simulation import simulate

TOPICS = load_topics()
START_MS = 1_790_000_000_000


def record(topic: str, key: str, message: Any) -> LogRecord:
    return LogRecord(topic, START_MS, key.encode(), message if isinstance(message, bytes) else msgspec.json.encode(message))


def command(command_id: str, type_: str, org_id: str = "acme", **fields: Any) -> LogRecord:
    envelope = {"command_id": command_id, "type": type_, "org_id": org_id, "issued_at": "2026-09-01T00:00:00Z"}
    return record(TOPICS.command, org_id, envelope | fields)


def funds(command_id: str, amount: str, org_id: str = "acme") -> LogRecord:
    purchase = {"currency": "USD", "purchase_channel": "web-direct", "payment_reference": "r"}
    return command(command_id, "funds.add", org_id, amount=amount, **purchase)


def call(cdr_id: str, org_id: str = "acme", duration_ms: int = 60_000) -> LogRecord:
    cdr = {"cdr_id": cdr_id, "org_id": org_id, "user_id": "ann", "call_type": "user_out", "callee": "+14255550100"}
    return record(TOPICS.cdr, org_id, cdr | {"answered_at": "2026-09-20T12:00:00Z", "duration_ms": duration_ms})


def beginning(*org_ids: str) -> list[LogRecord]:
    """A rate of 1.50 per minute, and organizations with one user each."""
    rate = {"rate_id": "r", "service": "outbound", "prefix": "1", "destination": "US", "country": "US", "currency": "USD"}
    log = [record(TOPICS.rate, "r", rate | {"rate_per_minute": "1.5", "effective_from": "2020-01-01T00:00:00Z"})]
    for org_id in org_ids or ("acme",):
        log.append(command("org", "organization.put", org_id, name="A", country="US", currency="USD", offer="commercial"))
        licences = {"communications_credits": True}
        log.append(command("user", "user.put", org_id, user_id="ann", usage_country="US", licences=licences))
    return log


BEFORE = beginning()
#: In the worker's order: the second purchase comes after a call that left an overdraft, and repays it.
LIVE = [funds("1", "2.00"), call("c1"), call("c2"), funds("2", "5.00"), call("c3")]


def books(log: list[LogRecord]) -> Books:
    return Books.of(TOPICS, simulate(TOPICS, log))


def by_topic(live: list[LogRecord]) -> list[LogRecord]:
    """In the order it is read back: one topic after the other."""
    return sorted(live, key=lambda r: r.topic)


def ordered(live: list[LogRecord], worker: Books, before: list[LogRecord] = BEFORE) -> list[LogRecord]:
    return worker_order(TOPICS, before, by_topic(live), worker)


def forged(forge: Callable[[Any], Any]) -> list[str]:
    worker = copy.deepcopy(books([*BEFORE, *LIVE]))
    forge(worker.accounts["acme"])
    return [found.message for found in compare(TOPICS, [*BEFORE, *LIVE], worker)]


def test_the_same_input_in_the_same_order_agrees() -> None:
    assert compare(TOPICS, [*BEFORE, *LIVE], books([*BEFORE, *LIVE])) == []


def test_input_read_topic_by_topic_is_put_into_the_workers_order() -> None:
    assert ordered(LIVE, books([*BEFORE, *LIVE])) == [*BEFORE, *LIVE]


def test_in_any_other_order_the_books_would_differ() -> None:
    assert compare(TOPICS, [*BEFORE, *by_topic(LIVE)], books([*BEFORE, *LIVE])) != []


def test_a_command_that_moved_money_after_the_last_charge_comes_after_the_calls() -> None:
    live = [call("c1"), funds("1", "2.00")]
    assert ordered(live, books([*BEFORE, *live])) == [*BEFORE, *live]


def test_commands_that_moved_no_money_are_kept() -> None:
    live = [call("c1"), command("user-2", "user.put", user_id="bob", usage_country="US", licences={})]
    assert ordered(live, books([*BEFORE, *live])) == [*BEFORE, *live]


def test_a_call_that_moved_no_money_keeps_its_place_among_the_calls() -> None:
    live = [call("c1", duration_ms=0), funds("1", "2.00"), call("c2"), call("c3", duration_ms=0)]
    worker = books([*BEFORE, *live])
    calls = [r for r in ordered(live, worker) if r.topic == TOPICS.cdr]
    assert calls == [r for r in live if r.topic == TOPICS.cdr]
    assert compare(TOPICS, ordered(live, worker), worker) == []


def test_a_record_that_is_not_a_call_is_kept() -> None:
    live = [*LIVE, record(TOPICS.cdr, "acme", b"not JSON")]
    worker = books([*BEFORE, *live])
    assert ordered(live, worker)[-1].value == b"not JSON"
    assert compare(TOPICS, ordered(live, worker), worker) == []


def test_each_organization_has_an_order_of_its_own() -> None:
    before = beginning("acme", "other")
    live = [funds("1", "9.00"), call("c1"), call("c1", "other"), funds("1", "9.00", "other"), call("c2", "other"), call("c2")]
    worker = books([*before, *live])
    assert compare(TOPICS, ordered(live, worker, before), worker) == []


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (lambda a: a.state.update(balance="9.99"), "balance is 9.99, in the simulation 2.50"),
        (lambda a: a.state.update(overdraft="1.00"), "overdraft is 1.00, in the simulation 0.00"),
        (lambda a: a.state["lots"].clear(), "lots is []"),
        (lambda a: a.state.update(pools=[{}]), "pools is [{}]"),
        (lambda a: setattr(a, "state", None), "balance is None"),
        (lambda a: a.ledger[1]["postings"][0].update(amount="-1.49"), "the ledger differs from the simulation"),
        (lambda a: a.rated.pop(), "2 rated calls, in the simulation 3"),
        (lambda a: a.rated[0].update(charge="1.60"), "the rated calls differ from the simulation"),
    ],
)
def test_a_forged_record_is_found(forge: Callable[[Any], Any], message: str) -> None:
    found = forged(forge)
    assert any(text.startswith(message) for text in found), found


def test_the_balance_after_a_call_may_differ() -> None:
    assert forged(lambda a: a.rated[0].update(balance_after="9.99")) == []


def test_an_organization_missing_on_one_side_is_found() -> None:
    log = [*BEFORE, *LIVE]
    other = [*beginning("other"), funds("1", "1.00", "other")]
    assert {found.org_id for found in compare(TOPICS, log, books([*log, *other]))} == {"other"}
    assert {found.org_id for found in compare(TOPICS, [*log, *other], books(log))} == {"other"}
