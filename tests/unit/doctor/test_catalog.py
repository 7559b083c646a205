"""Findings about faulty catalog rows and about organizations without rates (rules 2, 8)."""

from dataclasses import dataclass

import msgspec

from rater.doctor.check_catalog import Accounts, judge_faulty, judge_organizations
from rater.domain.catalog import Catalog, CatalogIntake
from rater.kafka.log import LogRecord
from tests.unit.doctor.test_rates import NOW_US, PAST, row


@dataclass
class Record:
    topic: str
    key: bytes
    value: bytes | None


def event(data: dict[str, str]) -> Record:
    return Record("e", b"o", msgspec.json.encode({"org_id": "o", "type": "organization.changed", "data": data}))


def test_a_corrected_row_is_no_longer_faulty() -> None:
    intake = CatalogIntake("plan", "rate", Catalog())
    intake.take(LogRecord("rate", 0, b"r", b"{"))
    assert judge_faulty(intake.faulty)[0].severity == "fault"
    intake.take(LogRecord("rate", 0, b"r", None))
    assert judge_faulty(intake.faulty) == []


def test_an_organization_in_a_currency_without_rates_is_named() -> None:
    (found,) = judge_organizations(Accounts(currencies={"o": "EUR"}), [row("44")], NOW_US)
    assert (found.code, "o (EUR)" in found.what) == ("catalog.currency_without_rates", True)


def test_an_organization_whose_card_has_no_rate_left_is_named() -> None:
    rows = [row("44"), row("44", end=PAST, rate_card="gold", rate_id="gold")]
    (found,) = judge_organizations(Accounts(cards={"o": ("gold", "USD")}), rows, NOW_US)
    assert (found.code, "o (gold USD)" in found.what) == ("catalog.card_without_rates", True)


def test_an_organization_with_rates_is_in_order() -> None:
    assert judge_organizations(Accounts(currencies={"o": "USD"}, cards={"o": ("default", "USD")}), [row("44")], NOW_US) == []


def test_the_last_change_sets_the_rate_card_and_number_changes_dont() -> None:
    accounts = Accounts()
    accounts.take_event(event({"currency": "USD", "rate_card": "gold"}))
    accounts.take_event(event({"change": "number.put", "number": "+1"}))
    assert accounts.cards == {"o": ("gold", "USD")}


def test_a_removed_user_holds_no_plan() -> None:
    accounts = Accounts()
    entry = {"entry": "user", "org_id": "o", "user_id": "u", "change": "put", "licences": {"calling_plan": "p"}}
    accounts.take_entry(Record("d", b"o", msgspec.json.encode(entry)))
    assert accounts.holders().users == {("calling_plan", "p"): 1}
    accounts.take_entry(Record("d", b"o", msgspec.json.encode(entry | {"change": "remove", "licences": None})))
    assert accounts.holders().users == {}
