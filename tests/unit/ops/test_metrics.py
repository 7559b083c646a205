"""The metrics: their names and values, and that each one is documented."""

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from rater.agents import notification, rating, recharge, timer
from rater.bootstrap import make_agents
from rater.engine.stats import Lag
from rater.ops.metrics import registry_of
from rater.settings import Settings

DOCUMENT = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()


@pytest.fixture
async def apps(tmp_path: Path) -> Any:
    return make_agents(Settings(data_dir=tmp_path), ["rating", "timer"])


def registry(apps: Any) -> CollectorRegistry:
    return registry_of(apps, lambda: True, lambda: False)


async def test_counts_add_up_over_all_partitions_including_revoked_ones(apps: Any) -> None:
    stats = apps[0].engine.stats
    stats.task("rating", 0).counts["calls", "outbound", "credit"] = 2
    stats.task("rating", 3).counts["calls", "outbound", "credit"] = 3
    labels = {"service": "outbound", "funded_by": "credit"}
    assert registry(apps).get_sample_value("rater_calls_rated_total", labels) == 5


async def test_money_is_shown_in_units_of_the_currency(apps: Any) -> None:
    apps[0].engine.stats.task("rating", 0).counts["charged", "USD"] = 1_250_000
    assert registry(apps).get_sample_value("rater_charged_amount_total", {"currency": "USD"}) == 1.25


async def test_known_label_values_begin_at_0(apps: Any) -> None:
    assert registry(apps).get_sample_value("rater_dead_letters_total", {"code": "period_closed"}) == 0
    assert registry(apps).get_sample_value("rater_duplicates_total", {"kind": "call"}) == 0


async def test_lag_and_gauges_are_exported_only_for_assigned_partitions(apps: Any) -> None:
    engine = apps[0].engine
    for partition in (0, 1):
        task = engine.stats.task("rating", partition)
        task.lag = {"telephony.cdr.v1": Lag(7, 1.5)}
        task.gauges = {("accounts", "suspended"): 4}
    engine._assigned = {("rating", 1): None}
    found = registry(apps)
    place = {"agent": "rating", "topic": "telephony.cdr.v1"}
    assert found.get_sample_value("rater_lag_records", {**place, "partition": "1"}) == 7
    assert found.get_sample_value("rater_lag_seconds", {**place, "partition": "1"}) == 1.5
    assert found.get_sample_value("rater_lag_records", {**place, "partition": "0"}) is None
    assert found.get_sample_value("rater_accounts", {"partition": "1", "status": "suspended"}) == 4
    assert found.get_sample_value("rater_accounts", {"partition": "0", "status": "suspended"}) is None


async def test_due_work_counts_in_the_stage_times_but_is_no_batch(apps: Any) -> None:
    histograms = apps[0].engine.stats.histograms
    histograms.observe(10, 0.5, (0.1, 0.2, 0.3, 0.4))
    histograms.observe(0, None, (0.1, 0.2, 0.3, 0.4))
    found = registry(apps)
    assert found.get_sample_value("rater_batch_records_count", {"agent": "rating"}) == 1
    assert found.get_sample_value("rater_batch_stage_seconds_count", {"agent": "rating", "stage": "commit"}) == 2
    assert found.get_sample_value("rater_batch_stage_seconds_sum", {"agent": "rating", "stage": "commit"}) == 0.6


async def test_an_undeclared_metric_fails_the_scrape(apps: Any) -> None:
    apps[0].engine.stats.task("rating", 0).counts["forgotten",] = 1
    with pytest.raises(KeyError):
        generate_latest(registry(apps))


async def test_every_metric_is_documented(apps: Any) -> None:
    exposed = {family.name + ("_total" if family.type == "counter" else "") for family in registry(apps).collect()}
    mine = {name for name in exposed if name.startswith("rater_")}
    declared = [*rating.METRICS, *rating.CATALOG_METRICS, *timer.METRICS, *recharge.METRICS, *recharge.GATEWAY_METRICS]
    declared += notification.METRICS
    mine |= {f"{metric.name}_total" if metric.kind == "counter" else metric.name for metric in declared}
    assert {name for name in mine if f"`{name}`" not in DOCUMENT} == set()
