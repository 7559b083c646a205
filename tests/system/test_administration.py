"""The operator's commands on a real Kafka with a real worker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rater.cli import cli
from rater.embedded import EmbeddedKafka
from rater.kafka.log import LogRecord
from rater.kafka.topic_admin import apply
from rater.kafka.topics import Topics, load_topics
from tests.system.harness import Worker, publish, until_done

PREFIX = "administration."
PLAN = {"plan_id": "world", "name": "World", "service": "outbound"}
PLAN["allowances"] = [{"allowance_id": "a", "minutes_per_user": 60, "destinations": ["US"]}]  # type: ignore[assignment]
RATE = {"rate_id": "gb", "service": "outbound", "prefix": "44", "destination": "UK", "country": "GB", "currency": "USD"}
RATE |= {"rate_per_minute": "0.60", "effective_from": "2025-01-01T00:00:00Z"}
AUTO = ["--trigger", "10", "--amount", "50", "--payment-method", "card"]


@dataclass(slots=True)
class Office:
    """Topics, a worker, and organizations: each test creates its own."""

    bootstrap: str
    topics: Topics
    worker: Worker
    organizations: int = 0

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--bootstrap", self.bootstrap, "--prefix", PREFIX])

    def done(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result.output.strip()

    def refused(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 1, result.output
        return result.output.strip()

    def organization(self) -> str:
        """Create an organization with a user, 100 dollars, a number and a rated call of 0.60."""
        self.organizations += 1
        org = f"org-{self.organizations}"
        self.done("organization", "set", org, *settings("USD"))
        self.done("users", "set", org, "ann", "--country", "US", "--communications-credits")
        self.done("funds", "add", org, "--amount", "100", "--currency", "USD", "--reference", "r")
        self.done("numbers", "set", org, "+14255550100", "--kind", "service")
        cdr = {"cdr_id": "call", "org_id": org, "user_id": "ann", "call_type": "user_out", "callee": "+442079460000"}
        self.give(self.topics.cdr, org, cdr | {"answered_at": now(), "duration_ms": 60_000})
        return org

    def give(self, topic: str, key: str, value: Any) -> None:
        record = LogRecord(topic, time.time_ns() // 1_000_000, key.encode(), json.dumps(value).encode())
        asyncio.run(publish(self.bootstrap, self.topics, [record]))
        asyncio.run(until_done(self.bootstrap, self.topics, self.worker))


def settings(currency: str) -> list[str]:
    return ["--name", "Contoso", "--country", "US", "--currency", currency, "--offer", "commercial"]


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@pytest.fixture(scope="module")
def office(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    topics = load_topics(PREFIX)
    asyncio.run(apply(kafka.bootstrap, topics))
    worker = Worker(kafka.bootstrap, topics, PREFIX, tmp_path_factory.mktemp("worker"))
    worker.start()
    office = Office(kafka.bootstrap, topics, worker)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATER_APP_ID", worker.app_id)
        office.give(topics.plan, "world", PLAN)
        office.give(topics.rate, "gb", RATE)
        yield office
    worker.close()


DONE: list[tuple[str, list[str], str]] = [
    ("funds add", ["--amount", "50.00", "--currency", "USD", "--reference", "r"], "50.00 USD added, balance 149.40 USD"),
    ("funds adjust", ["--amount", "-0.000001", "--reason", "r"], "adjusted by -0.000001 USD, balance 99.399999 USD"),
    ("auto-recharge set", AUTO, "auto-recharge is on: below 10 it takes 50 from card"),
    ("auto-recharge set", [*AUTO, "--off"], "auto-recharge is off"),
    ("users set", ["bob", "--country", "GB", "--calling-plan", "world"], "user bob set"),
    ("users remove", ["ann"], "user ann removed"),
    ("numbers set", ["+14255550199", "--kind", "subscriber", "--user", "ann"], "number +14255550199 set (subscriber, of ann)"),
    ("numbers remove", ["+14255550100"], "number +14255550100 removed"),
    (
        "call void",
        ["call", "--reason", "r"],
        "call call voided: 0.60 USD and 0 included minutes given back, balance 100.00 USD",
    ),
    ("organization set", [*settings("USD"), "--time-zone", "Asia/Tokyo"], "organization set: Contoso, US, USD, Asia/Tokyo"),
]
REFUSED: list[tuple[str, list[str], str]] = [
    ("funds add", ["--amount", "5", "--currency", "EUR", "--reference", "r"], "currency_mismatch"),
    ("funds add", ["--amount", "0", "--currency", "USD", "--reference", "r"], "invalid_field"),
    (
        "funds add",
        ["--amount", "5", "--currency", "USD", "--reference", "r", "--channel", "csp"],
        "purchase_channel_not_allowed",
    ),
    ("funds adjust", ["--amount", "0", "--reason", "r"], "invalid_field"),
    ("auto-recharge set", [*AUTO, "--currency", "EUR"], "currency_mismatch"),
    ("users set", ["bob", "--country", "US", "--calling-plan", "gone"], "unknown_plan"),
    ("users remove", ["nobody"], "unknown_user"),
    ("numbers set", ["+14255550199", "--kind", "service", "--user", "nobody"], "unknown_user"),
    ("numbers remove", ["+14255550199"], "unknown_number"),
    ("call void", ["no such call", "--reason", "r"], "unknown_call"),
    ("organization set", settings("EUR"), "currency_mismatch"),
]


@pytest.mark.parametrize(("command", "arguments", "said"), DONE, ids=[f"{done[0]} {i}" for i, done in enumerate(DONE)])
def test_a_command_is_carried_out_and_prints_its_outcome(office: Office, command: str, arguments: list[str], said: str) -> None:
    org = office.organization()
    assert office.done(*command.split(), org, *arguments) == f"{org}: {said}"


@pytest.fixture(scope="module")
def untouched(office: Office) -> str:
    return office.organization()


@pytest.mark.parametrize(("command", "arguments", "code"), REFUSED, ids=[f"{r[0]} {i}" for i, r in enumerate(REFUSED)])
def test_a_refused_command_prints_why(office: Office, untouched: str, command: str, arguments: list[str], code: str) -> None:
    assert f"Error: refused: {code}: " in office.refused(*command.split(), untouched, *arguments)


def test_a_command_to_an_unknown_organization_is_refused(office: Office) -> None:
    assert "refused: unknown_organization: " in office.refused("funds", "adjust", "nobody", "--amount", "1", "--reason", "r")


def test_a_command_repeated_under_its_id_does_nothing_and_says_so(office: Office) -> None:
    org = office.organization()
    again = ["funds", "adjust", org, "--amount", "1", "--reason", "r", "--command-id", "ticket-1"]
    assert office.done(*again) == f"{org}: adjusted by 1.00 USD, balance 100.40 USD"
    assert office.done(*again) == f"{org}: already done before: adjusted by 1.00 USD, balance 100.40 USD"
    assert json.loads(office.done("account", org, "--json"))["balance"] == "100.40"


def test_a_refused_command_repeated_under_its_id_is_reported_as_refused(office: Office, untouched: str) -> None:
    again = ["users", "remove", untouched, "nobody", "--command-id", "ticket-2"]
    assert "Error: refused: unknown_user" in office.refused(*again)
    assert "Error: refused when it was first given: unknown_user" in office.refused(*again)


def test_an_id_used_again_for_something_else_is_refused(office: Office, untouched: str) -> None:
    office.done("users", "set", untouched, "cid", "--country", "US", "--command-id", "ticket-3")
    other = office.refused("users", "set", untouched, "cid", "--country", "GB", "--command-id", "ticket-3")
    assert "refused: conflicting_duplicate" in other


def test_with_json_the_outcome_is_one_line_with_its_event(office: Office, untouched: str) -> None:
    told = json.loads(office.done("users", "set", untouched, "dan", "--country", "US", "--json"))
    assert (told["result"], told["event"]["type"], told["event"]["data"]["user_id"]) == ("done", "user.changed", "dan")
    result = office.run("users", "remove", untouched, "nobody", "--json")
    assert (result.exit_code, json.loads(result.stdout)["code"]) == (1, "unknown_user")


def test_an_account_shows_its_money_pools_services_and_last_events(office: Office) -> None:
    org = office.organization()
    office.done("users", "set", org, "bob", "--country", "US", "--calling-plan", "world")
    office.done("auto-recharge", "set", org, *AUTO)
    told = office.done("account", org, "--events", "2")
    for line in ("status         active", "balance        99.40 USD", "below 10.00 it takes 50.00 from card", "world"):
        assert line in told
    assert [line.split()[2] for line in told.splitlines()[-2:]] == ["user.changed", "auto_recharge.changed"]
    assert "there is no organization 'nobody'" in office.refused("account", "nobody")


def test_users_from_a_file_are_set_listed_and_removed(office: Office, tmp_path: Path) -> None:
    org = office.organization()
    lines = ["user_id,usage_country,phone_system,calling_plan,audio_conferencing,communications_credits"]
    lines += [f"user-{i:03},GB,yes,world,,no" for i in range(300)]
    file, bad = tmp_path / "users.csv", tmp_path / "bad.csv"
    file.write_text("\n".join(lines) + "\n")
    assert office.done("users", "set", org, "--file", str(file), "--command-id", "bulk") == f"{org}: 300 users set"
    again = office.done("users", "set", org, "--file", str(file), "--command-id", "bulk")
    assert again == f"{org}: 0 users set, 300 already done before"
    office.done("users", "remove", org, "ann")
    listed = CliRunner().invoke(cli, ["users", "list", org, "--csv", "--bootstrap", office.bootstrap, "--prefix", PREFIX])
    assert listed.stdout.splitlines() == lines
    bad.write_text("user_id,usage_country,calling_plan\neve,US,world\nfay,US,gone\n")
    refused = office.refused("users", "set", org, "--file", str(bad))
    assert "fay: unknown_plan" in refused
    assert f"{org}: 1 users set, 1 refused" in refused
    file.write_text("\n".join(lines[:300]) + "\n")
    office.done("users", "remove", org, "--file", str(file))
    left = [json.loads(line)["user_id"] for line in office.done("users", "list", org, "--json").splitlines()]
    assert left == ["eve", "user-299"]


def test_the_current_numbers_are_listed(office: Office) -> None:
    org = office.organization()
    office.done("numbers", "set", org, "+14255550101", "--kind", "toll-free")
    office.done("numbers", "remove", org, "+14255550100")
    assert office.done("numbers", "list", org).split() == ["+14255550101", "toll-free"]


def test_without_a_worker_a_command_stays_published_and_repeating_it_shows_its_outcome(
    kafka: EmbeddedKafka, make_topics: Callable[..., Topics], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = make_topics()
    prefix = topics.cdr.removesuffix("telephony.cdr.v1")
    worker = Worker(kafka.bootstrap, topics, prefix, tmp_path)
    monkeypatch.setenv("RATER_APP_ID", worker.app_id)
    act = ["organization", "set", "late", *settings("USD"), "--command-id", "ticket-4"]
    act += ["--bootstrap", kafka.bootstrap, "--prefix", prefix]
    waited = CliRunner().invoke(cli, [*act, "--timeout", "1"])
    assert waited.exit_code == 1, waited.output
    assert "published, but no outcome within 1 s" in waited.output
    assert "--command-id ticket-4" in waited.output
    worker.start()
    try:
        asyncio.run(until_done(kafka.bootstrap, topics, worker))
        told = CliRunner().invoke(cli, act)
        assert (told.exit_code, "late: already done before: organization set" in told.output) == (0, True), told.output
    finally:
        worker.close()
