"""Findings about rates that expire or conflict (rule 8)."""

from typing import Any

import msgspec
import pytest

from rater.doctor.check_rates import judge_rates, priced_until
from rater.doctor.findings import DoctorFinding
from rater.domain import moments, reading
from rater.domain.deck import PricedRow, priced

NOW_US = 1_764_000_000_000_000  # 2025-11-24T16:00:00Z
ALWAYS = "2025-01-01T00:00:00Z"
SOON = "2025-12-01T00:00:00Z"
LATER = "2026-06-01T00:00:00Z"
PAST = "2025-06-01T00:00:00Z"


def row(prefix: str = "44", start: str = ALWAYS, end: str | None = None, **fields: Any) -> PricedRow:
    rate = {
        "rate_id": f"{prefix}:{start}",
        "service": "outbound",
        "prefix": prefix,
        "destination": "there",
        "country": "GB",
        "currency": "USD",
        "rate_per_minute": "0.01",
        "effective_from": start,
        "effective_to": end,
    }
    return priced(reading.read_rate(msgspec.json.encode({k: v for k, v in (rate | fields).items() if v is not None})))


def said(*rows: PricedRow) -> dict[str, DoctorFinding]:
    return {finding.code: finding for finding in judge_rates(rows, NOW_US) if finding.severity != "ok"}


def test_rates_without_an_end_are_in_order() -> None:
    assert said(row("44"), row("4420"), row("1")) == {}


def test_no_rates_at_all_is_a_warning() -> None:
    assert said()["catalog.no_rates"].severity == "warning"


def test_a_rate_that_ends_within_30_days_without_a_successor_is_named_with_its_end() -> None:
    finding = said(row("44", end=SOON), row("1"))["catalog.rates_expire"]
    assert finding.severity == "warning"
    assert "44 there" in finding.what
    assert SOON in finding.what


def test_a_rate_that_ends_after_30_days_is_not_reported() -> None:
    assert said(row("44", end=LATER)) == {}


def test_a_successor_that_begins_as_the_rate_ends_is_enough() -> None:
    assert said(row("44", end=SOON), row("44", SOON)) == {}


def test_a_successor_that_begins_after_a_gap_is_not() -> None:
    assert "catalog.rates_expire" in said(row("44", end=SOON), row("44", "2025-12-02T00:00:00Z"))


def test_a_rate_of_another_card_service_or_currency_is_no_successor() -> None:
    ending = row("44", end=SOON)
    for other in ({"rate_card": "b"}, {"service": "conference-dial-out"}, {"currency": "EUR"}):
        assert "catalog.rates_expire" in said(ending, row("44", rate_id="other", **other))


def test_an_expiring_prefix_that_a_shorter_one_replaces_is_a_note() -> None:
    found = said(row("4420", end=SOON), row("44"))
    assert [(code, finding.severity) for code, finding in found.items()] == [("catalog.rates_will_fall_back", "note")]


def test_a_shorter_prefix_that_ends_at_the_same_time_does_not_take_over() -> None:
    finding = said(row("4420", end=SOON), row("44", end=SOON))["catalog.rates_expire"]
    assert "44 there" in finding.what
    assert "4420 there" in finding.what


def test_an_expired_prefix_without_a_replacement_is_a_warning() -> None:
    assert said(row("44", end=PAST), row("1"))["catalog.rates_expired"].severity == "warning"


def test_an_expired_prefix_that_a_shorter_one_prices_is_a_note() -> None:
    found = said(row("4420", end=PAST), row("44"))
    assert [(code, finding.severity) for code, finding in found.items()] == [("catalog.rates_fall_back", "note")]


def test_a_card_with_only_expired_rates_is_reported_once() -> None:
    assert list(said(row("44", end=PAST), row("1", end=PAST))) == ["catalog.card_expired"]


def test_a_rate_that_is_not_in_force_yet_has_not_expired() -> None:
    assert said(row("44", LATER), row("1")) == {}


def test_if_two_rates_overlap_the_later_wins_and_that_is_a_note() -> None:
    finding = said(row("44"), row("44", PAST))["catalog.rates_overlap"]
    assert finding.severity == "note"
    assert f"44:{PAST} over 44:{ALWAYS}" in finding.what


def test_a_past_overlap_is_not_reported() -> None:
    assert said(row("44", end="2025-03-01T00:00:00Z"), row("44", "2025-02-01T00:00:00Z")) == {}


def test_two_rates_that_rule_8_cant_tell_apart_are_a_fault() -> None:
    finding = said(row("44"), row("44", rate_id="twin", number_type="mobile"))["catalog.rates_ambiguous"]
    assert finding.severity == "fault"
    assert "twin" in finding.what


@pytest.mark.parametrize(
    ("rows", "until"),
    [
        ([row(end=SOON)], SOON),
        ([row(end=SOON), row(start=PAST, end=LATER)], LATER),
        ([row(end=SOON), row(start=SOON, end=LATER)], LATER),
        ([row(start=LATER)], None),
        ([row(end=PAST)], None),
    ],
)
def test_priced_until_is_the_end_of_the_last_rate_without_a_gap(rows: list[PricedRow], until: str | None) -> None:
    until_us = priced_until(rows, NOW_US)
    assert (None if until_us is None else moments.to_text(until_us)) == until
