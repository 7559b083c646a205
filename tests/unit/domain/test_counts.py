"""What the core counts for metrics: calls, money, codes, and accounts by status."""

import pytest

from rater.domain.catalog import Catalog
from rater.domain.core import Core
from rater.domain.counts import Metric
from rater.domain.rows import STANDINGS_KEY, account_key
from rater.domain.standings import Standings
from tests.builders import ORG, TOPICS, Desk


@pytest.fixture
def desk() -> Desk:
    """An organization with a user, 1 USD and a rate of 0.30 USD a minute."""
    desk = Desk()
    desk.rate("0.30")
    desk.organization()
    desk.user()
    desk.funds("1.00")
    desk.simulation.core.take_counts()
    return desk


def counts(desk: Desk, *names: str) -> dict[Metric, int]:
    return {metric: count for metric, count in desk.simulation.core.take_counts().items() if metric[0] in names}


def gauges(desk: Desk) -> dict[str, int]:
    desk.simulation.finish()
    return {metric[-1]: value for metric, value in desk.simulation.core.gauges().items()}


def test_calls_are_counted_by_service_and_funding(desk: Desk) -> None:
    desk.call("paid")
    desk.call("free", seconds=0)
    assert counts(desk, "calls") == {("calls", "outbound", "credit"): 1, ("calls", "outbound", "free"): 1}


def test_a_count_is_taken_once(desk: Desk) -> None:
    desk.call()
    assert counts(desk, "calls")
    assert counts(desk, "calls") == {}


def test_money_is_counted_in_micros_by_currency(desk: Desk) -> None:
    desk.call(seconds=60)
    assert counts(desk, "charged", "collected", "overdrawn") == {
        ("charged", "USD"): 300_000,
        ("collected", "USD"): 300_000,
        ("overdrawn", "USD"): 0,
    }


def test_a_charge_beyond_the_balance_is_counted_as_overdrawn(desk: Desk) -> None:
    desk.call(seconds=300)
    found = counts(desk, "charged", "collected", "overdrawn")
    assert found == {("charged", "USD"): 1_500_000, ("collected", "USD"): 1_000_000, ("overdrawn", "USD"): 500_000}


def test_a_charge_without_a_credit_licence_is_counted_as_unfunded(desk: Desk) -> None:
    desk.user(paid=False)
    desk.call()
    found = counts(desk, "collected", "unfunded", "overdrawn")
    assert found == {("collected", "USD"): 0, ("unfunded", "USD"): 300_000}


def test_dead_letters_are_counted_by_code_and_duplicates_by_kind(desk: Desk) -> None:
    desk.call()
    desk.call()
    desk.call(seconds=61)
    desk.call("other", callee="+1")
    assert counts(desk, "duplicates", "dead_letters") == {
        ("duplicates", "call"): 1,
        ("dead_letters", "conflicting_duplicate"): 1,
        ("dead_letters", "bad_number"): 1,
    }


def test_commands_are_counted_by_type_and_outcome_and_refusals_by_code(desk: Desk) -> None:
    desk.funds("1.00", currency="EUR")
    desk.funds("1.00")
    assert counts(desk, "commands", "refused") == {
        ("commands", "funds.add", "refused"): 1,
        ("commands", "funds.add", "done"): 1,
        ("refused", "currency_mismatch"): 1,
    }


def test_an_unknown_type_of_command_is_counted_as_unknown(desk: Desk) -> None:
    desk.command("x" * 60)
    assert counts(desk, "commands") == {("commands", "unknown", "refused"): 1}


def test_accounts_are_counted_by_status(desk: Desk) -> None:
    desk.organization("rich")
    desk.funds("5.00", "rich")
    assert gauges(desk) == {"active": 2, "low": 0, "suspended": 0, "accounts_overdrawn": 0}
    desk.call(seconds=300)
    assert gauges(desk) == {"active": 1, "low": 0, "suspended": 1, "accounts_overdrawn": 1}
    desk.funds("10.00")
    assert gauges(desk) == {"active": 2, "low": 0, "suspended": 0, "accounts_overdrawn": 0}


def test_an_unknown_organization_is_not_counted_as_an_account(desk: Desk) -> None:
    desk.funds("1.00", "nobody")
    assert gauges(desk)["active"] == 1


def test_the_next_core_on_the_same_rows_has_the_counts(desk: Desk) -> None:
    before = gauges(desk)
    rows = desk.simulation.rows
    assert {metric[-1]: value for metric, value in Core(TOPICS, Catalog(), rows, nowhere).gauges().items()} == before


def test_accounts_of_a_state_written_before_counts_were_kept_are_counted(desk: Desk) -> None:
    before = gauges(desk)
    rows = desk.simulation.rows
    rows.delete(STANDINGS_KEY)
    assert {metric[-1]: value for metric, value in Standings(rows).gauges().items()} == before
    assert rows.get(account_key(ORG))


def nowhere(topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: object = ()) -> None:
    """Takes no record."""
