"""Which rows of the plan and rate topics are in force, and which are left out."""

from typing import Any

import msgspec
import pytest

from rater.domain.catalog import Catalog, CatalogIntake
from rater.kafka.log import LogRecord

RATE = {
    "rate_id": "x",
    "service": "outbound",
    "prefix": "44",
    "destination": "GB",
    "country": "GB",
    "currency": "USD",
    "rate_per_minute": "0.01",
    "effective_from": "2025-01-01T00:00:00Z",
}
PLAN = {
    "plan_id": "x",
    "name": "X",
    "service": "outbound",
    "allowances": [{"allowance_id": "a", "minutes_per_user": 60, "destinations": "*"}],
}


def rate(value: Any, key: bytes = b"x") -> LogRecord:
    return LogRecord("rate", 0, key, value if isinstance(value, bytes | None) else msgspec.json.encode(value))


def plan(value: Any, key: bytes = b"x") -> LogRecord:
    return LogRecord("plan", 0, key, value if isinstance(value, bytes | None) else msgspec.json.encode(value))


def intake_of(*records: LogRecord) -> CatalogIntake:
    intake = CatalogIntake("plan", "rate", Catalog())
    for record in records:
        intake.take(record)
    return intake


def test_a_good_row_is_in_force() -> None:
    intake = intake_of(rate(RATE), plan(PLAN))
    assert (len(intake.catalog.deck), list(intake.catalog.plans), intake.faulty) == (1, ["x"], {})


def test_a_null_value_removes_the_row() -> None:
    intake = intake_of(rate(RATE), plan(PLAN), rate(None), plan(None))
    assert (len(intake.catalog.deck), len(intake.catalog.plans)) == (0, 0)


def test_the_latest_row_of_a_key_is_in_force() -> None:
    (row,) = intake_of(rate(RATE), rate(RATE | {"rate_per_minute": "0.02"})).catalog.deck.rows()
    assert row.rate_text == "0.02"


@pytest.mark.parametrize("faulty", [b"{", RATE | {"rate_id": "y"}, RATE | {"rate_per_minute": 0.01}])
def test_a_faulty_row_also_removes_the_previous_one(faulty: Any) -> None:
    intake = intake_of(rate(RATE), rate(faulty))
    assert len(intake.catalog.deck) == 0
    assert list(intake.faulty) == [("rate", b"x")]


def test_take_says_why_a_row_is_faulty() -> None:
    rejected = intake_of().take(plan(PLAN | {"plan_id": "y"}))
    assert rejected is not None
    assert (rejected.code, rejected.message) == ("invalid_field", "plan_id: not the record's key")


def test_a_corrected_row_is_not_faulty_any_more() -> None:
    assert intake_of(rate(b"{"), rate(RATE)).faulty == {}


def test_a_plan_and_a_rate_may_have_the_same_key() -> None:
    intake = intake_of(rate(b"{"), plan(PLAN))
    assert list(intake.faulty) == [("rate", b"x")]
    assert list(intake.catalog.plans) == ["x"]


def test_a_record_of_another_topic_is_refused() -> None:
    with pytest.raises(ValueError, match="does not read topic"):
        intake_of(LogRecord("other", 0, b"x", None))
