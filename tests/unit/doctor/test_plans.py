"""Findings about plans that can't be used (rules 7, 10)."""

from collections import Counter
from typing import Any

from rater.doctor.check_plans import Holders, judge_plans
from rater.doctor.findings import DoctorFinding
from rater.domain.plans import PreparedAllowance, PreparedPlan
from tests.unit.doctor.test_rates import NOW_US, PAST, row

HELD = Holders(Counter({("calling_plan", "plan"): 3}))


def allowance(name: str, *countries: str, number_types: frozenset[str] | None = None) -> PreparedAllowance:
    return PreparedAllowance(name, 60, frozenset(countries) or None, number_types)


def plan(*allowances: PreparedAllowance, service: str = "outbound") -> PreparedPlan:
    return PreparedPlan("plan", service, allowances, joint_exhaustion=False)


def said(found: PreparedPlan | None, *rows: Any, holders: Holders = HELD) -> dict[str, DoctorFinding]:
    plans = {} if found is None else {found.plan_id: found}
    return {f.code: f for f in judge_plans(plans, rows or [row("44")], holders, NOW_US) if f.severity != "ok"}


def test_a_plan_whose_destinations_have_rates_is_in_order() -> None:
    assert said(plan(allowance("a", "GB"))) == {}


def test_a_plan_for_everywhere_is_in_order() -> None:
    assert said(plan(allowance("a"))) == {}


def test_a_plan_whose_destinations_have_no_rates_is_unusable() -> None:
    assert said(plan(allowance("a", "AQ")))["catalog.plan_unusable"].severity == "warning"


def test_expired_rates_dont_make_a_plan_usable() -> None:
    assert "catalog.plan_unusable" in said(plan(allowance("a", "GB")), row("44", end=PAST), row("1", country="US"))


def test_a_plan_for_toll_free_calls_is_unusable() -> None:
    assert "catalog.plan_unusable" in said(plan(allowance("a"), service="toll-free-inbound"))


def test_the_country_is_not_enough_if_the_allowance_names_number_types() -> None:
    mobile = allowance("a", "GB", number_types=frozenset({"mobile"}))
    assert "catalog.plan_unusable" in said(plan(mobile), row("44", number_type="landline"))


def test_an_allowance_behind_one_that_takes_every_call_is_never_used() -> None:
    found = said(plan(allowance("all"), allowance("gb", "GB")))["catalog.allowance_unusable"]
    assert "allowance gb: an allowance before it" in found.what


def test_one_destination_without_a_rate_among_others_is_a_note() -> None:
    found = said(plan(allowance("a", "GB", "AQ")))["catalog.destination_without_rate"]
    assert (found.severity, "AQ" in found.what) == ("note", True)


def test_without_any_rate_plans_are_not_blamed() -> None:
    assert said(plan(allowance("a", "GB")), row("44", service="toll-free-inbound")) == {}


def test_a_plan_that_nobody_holds_is_a_note() -> None:
    assert said(plan(allowance("a")), holders=Holders())["catalog.plan_not_held"].severity == "note"


def test_an_unheld_plan_is_reported_only_if_all_users_were_read() -> None:
    assert said(plan(allowance("a")), holders=Holders(is_whole=False)) == {}


def test_users_of_a_missing_plan_are_a_fault() -> None:
    assert "3 users" in said(None)["catalog.plan_missing"].what


def test_a_plan_under_the_licence_of_another_service_gives_no_minutes() -> None:
    held = Holders(Counter({("audio_conferencing", "plan"): 1}))
    assert said(plan(allowance("a")), holders=held)["catalog.plan_in_wrong_licence"].severity == "warning"
