"""The worked examples of the rating rules, each named by its rule."""

from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest

from rater.catalog import DeckDefaults, check_rates
from rater.domain.catalog import Catalog
from rater.domain.moments import to_us
from rater.domain.money import billed_seconds
from rater.resources import sample_rate_deck
from tests.builders import TOPICS, Desk, messages, rated


def test_rule_5_a_call_of_85_s_at_60_1_is_billed_85_s() -> None:
    assert billed_seconds(85_000, 60, 1) == 85


@pytest.mark.parametrize(
    ("seconds", "increments", "rate", "charge"),
    [
        (85, "60/1", "1.00", "1.416667"),
        (32, "30/6", "0.006", "0.0036"),
        (57, "30/6", "0.006", "0.006"),
        (75, "30/6", "0.006", "0.0078"),
        (45, "30/6", "0.05", "0.04"),
        (180, "60/60", "0.1", "0.30"),
    ],
)
def test_rule_14_a_charge_is_rounded_once_half_up(seconds: int, increments: str, rate: str, charge: str) -> None:
    desk = Desk().ready()
    desk.rate(rate, increments=increments)
    call = rated(desk.call(seconds=seconds))
    assert (call["charge"], call["collected"], call["funded_by"]) == (charge, charge, "credit")


def test_rule_5_a_call_of_45_s_at_30_6_is_billed_48_s() -> None:
    desk = Desk().ready()
    desk.rate("0.05", increments="30/6")
    assert rated(desk.call(seconds=45))["billed_s"] == 48


def test_rule_13_a_pool_with_one_minute_left_pays_one_minute_and_credit_the_rest() -> None:
    desk = Desk()
    desk.plan(minutes=3)
    desk.ready(plan="plan")
    desk.rate("0.013", connection_fee="0.05")
    assert rated(desk.call("first", seconds=120))["funded_by"] == "included"
    call = rated(desk.call("second", seconds=61))
    assert (call["funded_by"], call["included_minutes"], call["priced_s"], call["charge"]) == ("mixed", 1, 60, "0.063")


def test_rule_11_115_licences_of_60_minutes_make_a_pool_of_6900() -> None:
    desk = Desk()
    desk.plan(minutes=60)
    desk.organization()
    for i in range(115):
        desk.user(f"u{i}", plan="plan")
    assert [pool["minutes_total"] for pool in desk.state()["pools"]] == [6900]


def test_rule_16_the_lot_that_expires_first_is_spent_first() -> None:
    desk = Desk()
    desk.organization()
    desk.user()
    desk.funds("25.00")
    desk.later(30)
    desk.funds("20.00")
    desk.rate("30")
    call = rated(desk.call(answered_at="2025-10-20T00:00:00Z"))
    assert call["lots"] == [
        {"lot_id": "purchase:c3", "amount": "25.00"},
        {"lot_id": "purchase:c4", "amount": "5.00"},
    ]


def test_rule_17_funds_repay_overdraft_first() -> None:
    desk = Desk().ready(funds="100.00")
    desk.rate("150")
    call = rated(desk.call())
    assert (call["collected"], call["overdraft"], call["balance_after"]) == ("100.00", "50.00", "-50.00")
    desk.funds("100.00")
    state = desk.state()
    assert (state["balance"], state["overdraft"], [lot["remaining"] for lot in state["lots"]]) == ("50.00", "0.00", ["50.00"])
    assert sum(Decimal(p["amount"]) for p in messages(desk.outputs, TOPICS.ledger)[-1]["postings"]) == 0


@pytest.mark.parametrize(("number", "prefix", "rate"), [("442079460000", "4420", "0.015"), ("12423571234", "1242357", "0.226")])
def test_rule_8_the_longest_prefix_of_the_october_deck(number: str, prefix: str, rate: str) -> None:
    catalog = Catalog()
    with sample_rate_deck().open(newline="") as lines:
        for rate_id, row in check_rates(lines, DeckDefaults()).rows:
            catalog.put_rate(rate_id.encode(), msgspec.json.encode(row))
    found = catalog.deck.table("default", "outbound", "USD").find(number, to_us(datetime(2025, 10, 5, tzinfo=UTC)))
    assert found is not None
    assert (found.prefix, found.rate_text) == (prefix, rate)
