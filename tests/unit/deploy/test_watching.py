"""Rules, runbooks and dashboards: Prometheus' own tools accept them, and they use only metrics that exist.

`tests/system/test_monitoring.py` sends all expressions to a real Prometheus.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus import tool_or_skip
from tests.watching import (
    DASHBOARDS,
    ROOT,
    RULES,
    RUNBOOKS,
    alerts,
    documented,
    metrics_in,
    panel_expressions,
    panels,
    recorded,
    rule_expressions,
)

FOLDER = ROOT / "deploy" / "prometheus"
NO_ALERT = {"README.md", "errors.md"}
ALERTS = alerts()


def promtool(*arguments: str | Path) -> str:
    ran = subprocess.run([tool_or_skip("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_the_rules_pass_promtools_checks_with_every_warning_fatal() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)


def test_every_alert_fires_where_it_should_and_keeps_quiet_beside_that() -> None:
    tested = FOLDER / "tests" / "alerts.test.yml"
    promtool("test", "rules", tested)
    said = tested.read_text()
    for alert in ALERTS:
        assert f"name: {alert['alert']} fires" in said
        assert f"name: {alert['alert']} keeps quiet" in said


@pytest.mark.parametrize("config", ["bare.yml", "prometheus.yml"])
def test_prometheus_takes_the_configurations(config: str) -> None:
    promtool("check", "config", "--syntax-only", FOLDER / config)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_where_its_runbook_is(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["dashboard"] in {json.loads(path.read_text())["uid"] for path in DASHBOARDS}
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{alert['alert']}.md"
    text = (RUNBOOKS / f"{alert['alert']}.md").read_text()
    for part in ("## What it means", "## How to see it", "## What to do"):
        assert part in text
    assert alert["expr"] in text


def test_no_runbook_is_about_an_alert_that_is_not_there() -> None:
    assert {path.name for path in RUNBOOKS.iterdir()} - NO_ALERT == {f"{alert['alert']}.md" for alert in ALERTS}


def test_what_rules_and_dashboards_ask_for_is_documented_and_what_is_documented_is_asked_for() -> None:
    asked = {metric for each in (*panel_expressions(), *rule_expressions()) for metric in metrics_in(each.expression)}
    assert asked - set(documented()) - recorded() == set()
    assert set(documented()) - asked == set()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_one_that_grafana_takes(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    assert dashboard["uid"]
    assert dashboard["schemaVersion"] == 39
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    found = list(panels(dashboard))
    assert len({panel["id"] for panel in found}) == len(found)
    for panel in found:
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        for link in panel.get("links", ()):
            assert (ROOT / link["url"].lstrip("/")).is_file(), link


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_no_panel_lies_over_another_or_beyond_the_edge(path: Path) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels(json.loads(path.read_text())):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} over {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_workers_are_the_job_that_rules_ask_for_however_they_are_scraped() -> None:
    asked = {job for each in (*panel_expressions(), *rule_expressions()) for job in re.findall(r'job="(\w+)"', each.expression)}
    assert asked == {"rater"}
    for config in ("bare.yml", "prometheus.yml"):
        (scrape,) = yaml.safe_load((FOLDER / config).read_text())["scrape_configs"]
        assert scrape["job_name"] == "rater"
    monitor = yaml.safe_load((ROOT / "deploy/kubernetes/components/pod-monitor/pod-monitor.yaml").read_text())
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert {"targetLabel": "job", "replacement": "rater"} in endpoint["relabelings"]
