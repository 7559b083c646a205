"""A real Prometheus scrapes a real worker under load, then evaluates all expressions of dashboards and alerts.

The demo makes the load: all kinds of calls, charged and declined cards, mails. The test adds an invalid catalog row.
"""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rater.kafka.clients import publish_rows
from rater.kafka.topics import load_topics
from rater.resources import resource
from tests.prometheus import tool_or_skip
from tests.watching import RULES, Asked, alerts, documented, panel_expressions, rules

PLAY_S = 20
SCRAPED_S = 12.0
UP_S = 60.0
COMPARISON = re.compile(r"^(.*?)\s(==|>|<|!=)\s[\d.e]+$", re.DOTALL)

#: Expressions that have no data while all is well, and why.
SILENT = {
    'absent(rater_tasks{agent="rating"})': "a worker rates",
    "time() - min(rater_recharges_pending_oldest_timestamp_seconds)": "every charge has an outcome immediately",
    "time() - min(rater_notifications_pending_oldest_timestamp_seconds)": "every mail is accepted immediately",
}
#: Alerts that look back longer than the test runs, or compare with a value that stays small here: their parts are evaluated.
PARTS = {
    "RaterNoCalls": ['sum(rate(rater_input_records_total{agent="rating",topic=~".*telephony[.]cdr[.]v1"}[15m]))'],
    "RaterAccountsSuspended": ['sum(rater_accounts{status="suspended"})'],
    "RaterUnfundedCalls": [
        "sum by (currency) (increase(rater_unfunded_amount_total[1h]))",
        "sum by (currency) (increase(rater_charged_amount_total[1h]))",
    ],
    "RaterAccountsOverdrawn": ["sum(rater_accounts_overdrawn)", "sum(rater_accounts)"],
    "RaterCommandsRefused": ["sum(increase(rater_commands_refused_total[30m]))", "sum(increase(rater_commands_total[30m]))"],
    "RaterRechargesDeclined": [
        'sum(increase(rater_recharges_total{outcome="hard_decline"}[1h]))',
        "sum(increase(rater_recharges_total[1h]))",
    ],
    "RaterNotificationsFail": [
        'sum by (channel) (increase(rater_notifications_total{outcome="failed"}[1h]))',
        "sum by (channel) (increase(rater_notifications_total[1h]))",
    ],
    "RaterRestoreStuck": ["rater_restore_remaining_records", "rate(rater_restored_records_total[5m])"],
    "RaterLagGrows": ["rater:lag_records:sum", "deriv(rater:lag_records:sum[15m])"],
}


class Prometheus:
    """A Prometheus server that scrapes one worker every second, with the rules from deploy/."""

    def __init__(self, folder: Path, worker_port: int) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in quick_rules(folder)],
            "scrape_configs": [{"job_name": "rater", "static_configs": [{"targets": [f"127.0.0.1:{worker_port}"]}]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                tool_or_skip("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()

    def get(self, path: str, **query: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from error

    def ask(self, expression: str) -> list[Any]:
        """The samples that an expression returns now."""
        found: list[Any] = self.get("query", query=expression)["result"]
        return found


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, after it has scraped a worker during the demo."""
    tool_or_skip("prometheus")
    folder = tmp_path_factory.mktemp("monitoring")
    port = free_port()
    server = Prometheus(folder, port)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RATER_")}
    command = [sys.executable, "-u", "-m", "rater", "demo", "--keep", "--seconds", str(PLAY_S)]
    with (folder / "demo.log").open("wb") as log:
        demo = subprocess.Popen(command, env=environment | {"RATER_HTTP_PORT": str(port)}, stdout=log, stderr=log)
    try:
        said = until_said(folder / "demo.log", "Kafka is running at ", demo)
        bootstrap = re.findall(r"Kafka is running at (\S+) with", said)[0]
        until(lambda: server.ask('sum(rater_input_records_total{topic="telephony.cdr.v1"}) > 0'), demo)
        faulty = {"rate_id": "faulty", "rate_per_minute": "free"}
        refused = {"command_id": "x", "type": "funds.add", "org_id": "nobody", "issued_at": "2026-01-01T00:00:00Z"}
        topics = load_topics()
        asyncio.run(publish_rows(bootstrap, topics.rate, [("faulty", faulty)]))
        asyncio.run(publish_rows(bootstrap, topics.command, [("nobody", refused)]))
        until(lambda: server.ask("rater_catalog_faulty_rows > 0"), demo)
        until(lambda: server.ask("rater_timer_commands_total > 0"), demo)
        until(lambda: server.ask("sum(rater_commands_refused_total) > 0"), demo)
        time.sleep(SCRAPED_S)  # rate() needs several scrapes before and after a change
        yield server
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(60)
        server.close()


def test_every_panel_has_data(watched: Prometheus) -> None:
    silent = [each for each in panel_expressions() if each.expression not in SILENT and not has_data(watched, each)]
    assert silent == []


def test_every_recording_rule_records_and_none_fails(watched: Prometheus) -> None:
    groups = watched.get("rules")["groups"]
    assert [rule for group in groups for rule in group["rules"] if rule["health"] != "ok"] == []
    for _, rule in rules():
        if "record" in rule:
            assert watched.ask(rule["record"]), rule["record"]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_has_data_to_judge_by(watched: Prometheus, alert: dict[str, Any]) -> None:
    watched.ask(alert["expr"])
    whole = COMPARISON.match(alert["expr"])
    parts = PARTS.get(alert["alert"]) or [whole[1] if whole else alert["expr"]]
    for part in parts:
        assert watched.ask(part) or part in SILENT, part


def test_nothing_is_alarming_about_a_worker_that_works(watched: Prometheus) -> None:
    firing = {alert["labels"]["alertname"] for alert in watched.get("alerts")["alerts"] if alert["state"] == "firing"}
    assert firing <= {"RaterConflictingDuplicates"}, "the demo has two different calls with the same id"


def test_what_is_exposed_is_what_is_documented(watched: Prometheus) -> None:
    """Except the timestamps of the oldest waiting item: in this test nothing waits for long."""
    known = watched.get("metadata", limit="10000")
    exposed = {name: entries[0]["type"] for name, entries in known.items() if name.startswith("rater_")}
    told = {name.removesuffix("_total"): type_ for name, type_ in documented().items()}
    assert {name: type_ for name, type_ in told.items() if "_oldest_timestamp_" not in name}.items() <= exposed.items()
    assert exposed.items() <= told.items()


def test_no_label_holds_an_organization_a_user_or_a_number(watched: Prometheus) -> None:
    series = watched.get("series", **{"match[]": '{job="rater"}'})
    values = {value for labels in series for value in labels.values()}
    names = {row["org_id"] for row in json.loads(resource("samples", "organizations.json").read_text())}
    assert not [value for value in values if re.search(r"\+\d{5}|@|user-?\d", value) or value in names]
    assert len(series) < 2000


def has_data(server: Prometheus, each: Asked) -> bool:
    return bool(server.ask(each.expression))


def quick_rules(folder: Path) -> list[Path]:
    """Copies of the rule files that are evaluated every second."""
    made = []
    for path in RULES:
        content = yaml.safe_load(path.read_text())
        for group in content["groups"]:
            group["interval"] = "1s"
        made.append(folder / path.name)
        made[-1].write_text(yaml.safe_dump(content))
    return made


def until(is_so: Any, demo: "subprocess.Popen[bytes]") -> None:
    deadline_s = time.monotonic() + UP_S
    while True:
        assert demo.poll() is None, "the demo has ended"
        assert time.monotonic() < deadline_s
        try:
            if is_so():
                return
        except OSError:
            pass
        time.sleep(0.2)


def until_said(log: Path, wanted: str, demo: "subprocess.Popen[bytes]") -> str:
    until(lambda: wanted in log.read_text(errors="replace"), demo)
    return log.read_text(errors="replace")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
