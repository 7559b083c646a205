"""Timers on a real Kafka: due work is done once, though the rating agent and the timer are killed when it falls due.

The test doesn't change the clock: the records have timestamps in the past, chosen so that something falls due a few seconds
from now.
"""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rater.demo.payment_service import PaymentService
from rater.domain import moments
from rater.embedded import EmbeddedKafka
from rater.kafka.clients import read_all
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics
from rater.simulation import simulate
from tests.system.harness import Worker, assert_same, publish, read_outputs, until_done

AGENTS = ("rating", "timer")
ORGS = [f"org-{n}" for n in range(40)]
SEED = 22
KILLS = 6
SPREAD_MS = 12_000  # the time over which work falls due
AHEAD_MS = 6_000  # the time for the workers to start before that
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
DONE_TIMEOUT_S = 90.0
#: About how many days each lot has left when the test begins. The event for that number of days is the last one of the lot.
#: What fell due weeks ago, before the timer ever ran, is published late and once.
LAST_DAYS = (30, 7, 0)


class Given:
    """Commands at chosen times."""

    def __init__(self, topics: Topics) -> None:
        self.records: list[LogRecord] = []
        self._topics = topics

    def command(self, at_ms: int, org_id: str, type_: str, **fields: Any) -> None:
        envelope = {"command_id": f"c{len(self.records)}", "org_id": org_id, "issued_at": moments.to_text(at_ms * 1000)}
        value = msgspec.json.encode(envelope | {"type": type_} | fields)
        self.records.append(LogRecord(self._topics.command, at_ms, org_id.encode(), value))

    def organization(self, at_ms: int, org_id: str) -> None:
        self.command(at_ms, org_id, "organization.put", name=org_id, country="US", currency="USD", offer="commercial")

    def funds(self, at_ms: int, org_id: str) -> None:
        more = {"purchase_channel": "web-direct", "payment_reference": "r"}
        self.command(at_ms, org_id, "funds.add", amount="10.00", currency="USD", **more)


@pytest.fixture
def workers(kafka: EmbeddedKafka, topics: Topics, tmp_path: Path) -> Iterator[list[Worker]]:
    prefix = topics.cdr.removesuffix("telephony.cdr.v1")
    made = [Worker(kafka.bootstrap, topics, prefix, tmp_path, agents=agent) for agent in AGENTS]
    yield made
    for worker in made:
        worker.close()


async def run_and_kill(workers: Sequence[Worker], until: Callable[[], Any]) -> None:
    """Run the agents, kill them again and again while work falls due, then run them until `until` returns true."""
    draw = random.Random(SEED)
    for worker in workers:
        worker.start()
    for _ in range(KILLS):
        await asyncio.sleep(draw.uniform(1.5, 3.0))
        killed = draw.choice((workers[:1], workers[-1:], workers))
        for worker in killed:
            worker.kill()
        for worker in killed:
            worker.start()
    deadline_s = time.monotonic() + DONE_TIMEOUT_S
    while not await until():
        for worker in workers:
            worker.check_alive()
        assert time.monotonic() < deadline_s, "\n".join(worker.log_tail() for worker in workers)
        await asyncio.sleep(0.2)


async def read(kafka: EmbeddedKafka, topic: str) -> list[tuple[LogRecord, dict[str, Any]]]:
    records, _ = await read_all(kafka.bootstrap, [topic])
    return [(record, msgspec.json.decode(record.value or b"null")) for record in records]


async def check_against_simulate(kafka: EmbeddedKafka, topics: Topics) -> None:
    """Check that simulate gives the same outputs for the same commands, including those of the timer."""
    commands, _ = await read_all(kafka.bootstrap, [topics.command])
    assert_same(topics, list(simulate(topics, commands)), await read_outputs(kafka.bootstrap, topics))


async def test_a_soft_decline_is_tried_again_once_though_the_agents_are_killed(
    kafka: EmbeddedKafka, topics: Topics, workers: list[Worker]
) -> None:
    given, draw = Given(topics), random.Random(SEED)
    start_ms = time.time_ns() // 1_000_000 + AHEAD_MS
    due_ms = {org: start_ms + draw.randrange(SPREAD_MS) for org in ORGS}
    auto = {"trigger_amount": "50.00", "recharge_amount": "20.00", "payment_method": "card"}
    for org in ORGS:
        declined_ms = due_ms[org] - HOUR_MS
        given.organization(declined_ms - 1000, org)
        given.command(declined_ms - 500, org, "auto_recharge.put", enabled=True, **auto)
        given.command(declined_ms, org, "recharge.failed", recharge_id=f"{org}:1", code="declined", retryable=True)
    await publish(kafka.bootstrap, topics, given.records)

    async def all_tried_again() -> bool:
        return len(await read(kafka, topics.recharge_request)) >= 2 * len(ORGS)

    await run_and_kill(workers, all_tried_again)
    await until_done(kafka.bootstrap, topics, workers[0])
    assert [worker.stop() for worker in workers] == [0, 0]
    tries = Counter((request["org_id"], request["attempt"]) for _, request in await read(kafka, topics.recharge_request))
    assert tries == {(org, attempt): 1 for org in ORGS for attempt in (1, 2)}
    retries = [(record, c) for record, c in await read(kafka, topics.command) if c["type"] == "recharge.retry"]
    assert Counter(command["org_id"] for _, command in retries) == dict.fromkeys(ORGS, 1)
    assert all(record.timestamp >= due_ms[command["org_id"]] for record, command in retries)
    await check_against_simulate(kafka, topics)


async def test_expiry_and_its_warnings_come_once_each_though_the_agents_are_killed(
    kafka: EmbeddedKafka, topics: Topics, workers: list[Worker]
) -> None:
    given, draw = Given(topics), random.Random(SEED)
    start_ms = time.time_ns() // 1_000_000 + AHEAD_MS
    for org in ORGS:
        given.organization(bought_to_expire_at(start_ms), org)
        for days_ahead in LAST_DAYS:
            given.funds(bought_to_expire_at(start_ms + draw.randrange(SPREAD_MS) + days_ahead * DAY_MS), org)
    await publish(kafka.bootstrap, topics, given.records)

    async def all_said() -> bool:
        said = days_by_lot(await read(kafka, topics.event))
        return Counter(days[-1] for days in said.values()) == dict.fromkeys(LAST_DAYS, len(ORGS))

    await run_and_kill(workers, all_said)
    await until_done(kafka.bootstrap, topics, workers[0])
    assert [worker.stop() for worker in workers] == [0, 0]
    found = await read(kafka, topics.event)
    said = days_by_lot(found)
    # Each once. (On a slow machine the timer may start after two stages of a lot have fallen due: it publishes only the later.)
    assert list(said.values()) == [sorted(set(days), reverse=True) for days in said.values()]
    assert Counter(days[-1] for days in said.values()) == dict.fromkeys(LAST_DAYS, len(ORGS))
    for record, event in expiries(found):
        due_us = (
            moments.to_us(datetime.fromisoformat(event["data"]["expires_at"])) - event["data"].get("days", 0) * moments.DAY_US
        )
        assert record.timestamp * 1000 >= due_us, event
    commands = [command["command_id"] for _, command in await read(kafka, topics.command)]
    sent = [command_id for command_id in commands if command_id.startswith("timer:")]
    assert len(sent) == len(set(sent))
    await check_against_simulate(kafka, topics)


class SlowBank(PaymentService):
    """Never tells the outcome of a first attempt (the test does, as a webhook would), and takes the money at the second."""

    def _take(self, charge: dict[str, Any]) -> dict[str, Any]:
        return {"status": "pending"} if charge["attempt"] == 1 else super()._take(charge)


async def test_from_a_soft_decline_to_the_money_all_agents_in_one_worker_that_is_killed(
    kafka: EmbeddedKafka, topics: Topics, tmp_path: Path
) -> None:
    given = Given(topics)
    declined_ms = time.time_ns() // 1_000_000 + AHEAD_MS - HOUR_MS
    auto = {"trigger_amount": "10.00", "recharge_amount": "20.00"}
    for org in ORGS:
        given.organization(declined_ms - 1000, org)
        given.command(declined_ms - 500, org, "auto_recharge.put", enabled=True, payment_method=f"card-{org}", **auto)
        given.command(declined_ms, org, "recharge.failed", recharge_id=f"{org}:1", code="declined", retryable=True)
    await publish(kafka.bootstrap, topics, given.records)
    prefix = topics.cdr.removesuffix("telephony.cdr.v1")
    async with SlowBank() as bank:
        payment = {"GATEWAY": "webhook", "WEBHOOK_URL": bank.url, "WEBHOOK_SECRET": bank.secret}
        payment = {f"RATER_PAYMENT_{name}": value for name, value in payment.items()}
        worker = Worker(kafka.bootstrap, topics, prefix, tmp_path, agents="rating,recharge,timer", **payment)

        async def all_paid() -> bool:
            states = {record.key: state for record, state in await read(kafka, topics.state)}
            return all(state["balance"] == "20.00" for state in states.values()) and len(states) == len(ORGS)

        try:
            await run_and_kill([worker], all_paid)
            assert worker.stop() == 0
        finally:
            worker.close()
    assert bank.taken == {f"card-{org}": 1 for org in ORGS}
    ledger = [transaction for _, transaction in await read(kafka, topics.ledger)]
    assert Counter((t["org_id"], t["kind"]) for t in ledger) == {(org, "recharge"): 1 for org in ORGS}


def days_by_lot(events: list[tuple[LogRecord, dict[str, Any]]]) -> dict[tuple[str, str], list[int]]:
    """Organization and lot → how many days before the expiry its events were published, in order."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for _, event in expiries(events):
        found[event["org_id"], event["data"]["lot_id"]].append(event["data"].get("days", 0))
    return found


def expiries(events: list[tuple[LogRecord, dict[str, Any]]]) -> list[tuple[LogRecord, dict[str, Any]]]:
    return [(record, event) for record, event in events if event["type"].startswith("credit.")]


def bought_to_expire_at(expires_ms: int) -> int:
    """When a lot that expires at `expires_ms` was bought. (If that is a 29 February, the lot expires a day earlier.)"""
    bought_us = (expires_ms - 365 * DAY_MS) * 1000
    late_us = moments.a_year_later(bought_us) - expires_ms * 1000
    return (bought_us - late_us) // 1000
