"""`rater doctor` on a real cluster: no faults on a healthy one, and each problem by its code."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from click.testing import CliRunner

from rater.cli import cli
from rater.domain import moments
from rater.embedded import EmbeddedKafka
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics
from tests.system.harness import Worker, publish, until_done

Examine = Callable[[], dict[str, str]]
DAY_US = 86_400_000_000
DECK_ROWS = 10_000
DECK_S_MAX = 20.0
PATIENCE_S = 60.0


@pytest.fixture
def prefix(topics: Topics) -> str:
    return topics.cdr.removesuffix("telephony.cdr.v1")


@pytest.fixture
def worker(kafka: EmbeddedKafka, topics: Topics, prefix: str, tmp_path: Path) -> Iterable[Worker]:
    made = Worker(kafka.bootstrap, topics, prefix, tmp_path, agents="rating,timer", RATER_SESSION_TIMEOUT_MS="6000")
    yield made
    made.close()


@pytest.fixture
def examine(kafka: EmbeddedKafka, worker: Worker, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Examine:
    monkeypatch.setenv("RATER_APP_ID", worker.app_id)
    monkeypatch.setenv("RATER_DATA_DIR", str(tmp_path))

    def run() -> dict[str, str]:
        """Run the doctor; returns code → severity of every finding that is not ok."""
        result = CliRunner().invoke(cli, ["doctor", "--json", "--bootstrap", kafka.bootstrap, "--prefix", prefix])
        findings = [msgspec.json.decode(line) for line in result.stdout.splitlines()]
        found = {f["code"]: f["severity"] for f in findings if f["severity"] != "ok"}
        assert result.exit_code == (1 if "fault" in found.values() else 0), result.output
        return found

    return run


async def test_a_healthy_rater_has_no_faults_and_each_problem_is_named(
    kafka: EmbeddedKafka, topics: Topics, worker: Worker, examine: Examine
) -> None:
    worker.start()
    await publish(kafka.bootstrap, topics, [*healthy_catalog(topics), *organization(topics), call(topics, "1")])
    await until_done(kafka.bootstrap, topics, worker)
    found = await asyncio.to_thread(examine)
    assert {code: severity for code, severity in found.items() if severity != "note"} == {}

    assert worker.stop() == 0
    await publish(kafka.bootstrap, topics, [*broken_catalog(topics), call(topics, "2")])
    await break_topics(kafka.bootstrap, topics)
    await until_group_is_empty(kafka.bootstrap, worker)
    found = await asyncio.to_thread(examine)
    assert {code: severity for code, severity in found.items() if severity != "note"} == {
        "topics.missing": "fault",
        "topics.loses_records": "fault",
        "lag.no_worker": "fault",
        "catalog.faulty_rows": "fault",
        "catalog.rates_expire": "warning",
        "catalog.plan_unusable": "warning",
    }
    assert found["catalog.rates_overlap"] == "note"


async def test_ten_thousand_rates_are_checked_in_seconds(kafka: EmbeddedKafka, topics: Topics, examine: Examine) -> None:
    await publish(kafka.bootstrap, topics, [rate(topics, str(10_000 + n)) for n in range(DECK_ROWS)])
    began_s = time.monotonic()
    found = await asyncio.to_thread(examine)
    assert time.monotonic() - began_s < DECK_S_MAX
    assert not [code for code in found if code.startswith("catalog.")]


async def test_the_doctor_creates_nothing(kafka: EmbeddedKafka, topics: Topics, examine: Examine) -> None:
    before = await everything(kafka.bootstrap)
    await asyncio.to_thread(examine)
    assert await everything(kafka.bootstrap) - before == set()


def healthy_catalog(topics: Topics) -> list[LogRecord]:
    return [rate(topics, "44"), rate(topics, "1", country="US"), plan(topics, "plan", "GB")]


def broken_catalog(topics: Topics) -> list[LogRecord]:
    soon = moments.to_text(time.time_ns() // 1000 + 10 * DAY_US)
    return [
        rate(topics, "44", rate_id="newer", effective_from="2025-06-01T00:00:00Z"),
        rate(topics, "49", country="DE", effective_to=soon),
        plan(topics, "antarctic", "AQ"),
        record(topics.plan, "faulty", {"plan_id": "faulty"}),
    ]


def organization(topics: Topics) -> list[LogRecord]:
    own = {"name": "o", "country": "US", "currency": "USD", "offer": "commercial"}
    licences = {"phone_system": True, "calling_plan": "plan", "communications_credits": True}
    return [
        command(topics, "organization.put", **own),
        command(topics, "user.put", user_id="u", usage_country="US", licences=licences),
    ]


def command(topics: Topics, type_: str, **fields: Any) -> LogRecord:
    envelope = {"command_id": type_, "type": type_, "org_id": "o", "issued_at": "2025-10-01T00:00:00Z"}
    return record(topics.command, "o", envelope | fields)


def call(topics: Topics, cdr_id: str) -> LogRecord:
    who = {"cdr_id": cdr_id, "org_id": "o", "user_id": "u", "call_type": "user_out", "callee": "+442079460000"}
    return record(topics.cdr, "o", who | {"answered_at": moments.to_text(time.time_ns() // 1000), "duration_ms": 60_000})


def rate(topics: Topics, prefix: str, **fields: Any) -> LogRecord:
    row = {"rate_id": prefix, "service": "outbound", "prefix": prefix, "destination": "there", "country": "GB"}
    row |= {"currency": "USD", "rate_per_minute": "0.01", "effective_from": "2025-01-01T00:00:00Z"} | fields
    return record(topics.rate, row["rate_id"], row)


def plan(topics: Topics, plan_id: str, country: str) -> LogRecord:
    allowance = {"allowance_id": "a", "minutes_per_user": 60, "destinations": [country]}
    return record(topics.plan, plan_id, {"plan_id": plan_id, "name": "n", "service": "outbound", "allowances": [allowance]})


def record(topic: str, key: str, value: Any) -> LogRecord:
    return LogRecord(topic, time.time_ns() // 1_000_000, key.encode(), msgspec.json.encode(value))


async def break_topics(bootstrap: str, topics: Topics) -> None:
    """Change a retention and delete a topic; returns once the broker shows it."""
    async with admin_of(bootstrap) as admin:
        configs = topics[topics.cdr].configs | {"retention.ms": "86400000"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topics.cdr, configs=configs)])
        await admin.delete_topics([topics.recharge_changelog])

        async def is_gone() -> bool:
            return topics.recharge_changelog not in await admin.list_topics()

        await until(is_gone)


async def until_group_is_empty(bootstrap: str, worker: Worker) -> None:
    """Wait until the group is empty: a worker with an instance id stays a member until its session times out."""
    async with admin_of(bootstrap) as admin:

        async def is_empty() -> bool:
            replies = await admin.describe_consumer_groups([worker.app_id])
            return not any(members for reply in replies for _, _, _, _, _, members, *_ in reply.groups)

        await until(is_empty)


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not await is_so():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.05)


async def everything(bootstrap: str) -> set[Any]:
    """All topics, internal ones included, and all consumer groups."""
    async with admin_of(bootstrap) as admin:
        return {*await admin.list_topics(), *await admin.list_consumer_groups()}


@asynccontextmanager
async def admin_of(bootstrap: str) -> AsyncIterator[Any]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()
