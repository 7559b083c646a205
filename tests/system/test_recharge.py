"""Top-ups on a real Kafka with a misbehaving payment gateway: each card is charged and each lot credited once per episode."""

import asyncio
import base64
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rater.adapters.payments.stripe_events import PATH
from rater.embedded import EmbeddedKafka
from rater.kafka.clients import read_all
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics
from rater.simulation import simulate
from tests.fake_gateway import API_KEY, OPERATOR_KEY, SIGNING_SECRET, FakeGateway, GatewayFault, Hook
from tests.system.harness import Worker, assert_same, publish, read_outputs, until_done

SEED = 20
EPISODES = 4  # per organization: its initial balance is so far below its trigger
KILLS = 8
DONE_TIMEOUT_S = 120.0
FAULTS: tuple[GatewayFault, ...] = (
    "drop_before",
    "drop_after",
    "hang_after",
    "error_after",
    "unavailable",
    "limited",
    "in_use",
)
HOOKS: tuple[tuple[Hook, ...], ...] = ((), ("after",), ("before",), ("late",), ("before", "after"), ("late", "late", "before"))
#: Short timeouts, so that misbehaviour takes the test little time.
HASTE = {
    "RATER_PAYMENT_TIMEOUT_MS": "700",
    "RATER_PAYMENT_SHUT_MS": "300",
    "RATER_PAYMENT_FAILURES_MAX": "20",
    "RATER_BATCH_RECORDS_MAX": "50",
}


@pytest.fixture
async def fake() -> AsyncIterator[FakeGateway]:
    async with FakeGateway(fault=misbehaviour).serve() as serving:
        yield serving


@pytest.fixture
def run(kafka: EmbeddedKafka, topics: Topics, tmp_path: Path) -> Iterable[Callable[..., Worker]]:
    """Make a worker: `run(agents, **settings)`."""
    made: list[Worker] = []

    def make(agents: str, **settings: str) -> Worker:
        prefix = topics.cdr.removesuffix("telephony.cdr.v1")
        made.append(Worker(kafka.bootstrap, topics, prefix, tmp_path, agents=agents, **settings))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


def misbehaviour(recharge_id: str, attempt: int, call: int) -> GatewayFault:
    """A fault in half of the first calls, in a quarter of the second and in none after that. The same in every run."""
    draw = random.Random(f"{SEED} {recharge_id} {attempt} {call}")
    return draw.choice(FAULTS) if draw.random() < {1: 0.5, 2: 0.25}.get(call, 0.0) else ""


def hooks(recharge_id: str, attempt: int) -> Iterable[Hook]:
    return random.Random(f"{SEED} {recharge_id} {attempt}").choice(HOOKS)


def in_need(topics: Topics, orgs: Iterable[str], short: str) -> list[LogRecord]:
    """Organizations that owe `short`, with auto-recharge on."""
    now_ms = time.time_ns() // 1_000_000
    auto = {"enabled": True, "trigger_amount": "10.00", "recharge_amount": "20.00"}
    found = []
    for org in orgs:
        commands: list[dict[str, Any]] = [
            {"type": "organization.put", "name": org, "country": "US", "currency": "USD", "offer": "commercial"},
            {"type": "funds.adjust", "amount": f"-{short}", "reason": "owed"},
            {"type": "auto_recharge.put", "payment_method": f"cus_{org}/pm_{org}", **auto},
        ]
        for number, command in enumerate(commands):
            envelope = {"command_id": f"c{number}", "org_id": org, "issued_at": "2026-01-01T00:00:00Z"}
            found.append(LogRecord(topics.command, now_ms, org.encode(), msgspec.json.encode(envelope | command)))
    return found


async def until(reached: Callable[[], bool], *workers: Worker) -> None:
    deadline_s = time.monotonic() + DONE_TIMEOUT_S
    while not reached():
        for worker in workers:
            worker.check_alive()
        assert time.monotonic() < deadline_s, "\n".join(worker.log_tail() for worker in workers)
        await asyncio.sleep(0.02)


async def until_credited(kafka: EmbeddedKafka, topics: Topics, count: int, *workers: Worker) -> list[dict[str, Any]]:
    """The ledger's recharges, once there are `count`."""
    deadline_s = time.monotonic() + DONE_TIMEOUT_S
    while len(found := await recharges(kafka, topics)) < count:
        for worker in workers:
            worker.check_alive()
        assert time.monotonic() < deadline_s, (len(found), "\n".join(worker.log_tail() for worker in workers))
    return found


async def recharges(kafka: EmbeddedKafka, topics: Topics) -> list[dict[str, Any]]:
    return [t for t in await values(kafka, topics.ledger) if t["kind"] == "recharge"]


async def values(kafka: EmbeddedKafka, topic: str) -> list[dict[str, Any]]:
    records, _ = await read_all(kafka.bootstrap, [topic])
    return [msgspec.json.decode(record.value or b"null") for record in records]


async def check_books(kafka: EmbeddedKafka, topics: Topics, fake: FakeGateway, orgs: list[str], episodes: int) -> None:
    """Each card was charged and each lot credited once per episode, and the outputs are those of simulate for the commands."""
    expected = [f"{org}:{episode}" for org in orgs for episode in range(1, episodes + 1)]
    assert Counter(charged.recharge_id for charged in fake.taken) == Counter(expected)
    postings = [posting for transaction in await recharges(kafka, topics) for posting in transaction["postings"]]
    credited = Counter((p["lot_id"], p["amount"]) for p in postings if "lot_id" in p and not p["amount"].startswith("-"))
    assert credited == Counter((f"recharge:{recharge_id}", "20.00") for recharge_id in expected)
    balances = {state["org_id"]: state["balance"] for state in await values(kafka, topics.state)}
    assert {org: balances[org] for org in orgs} == dict.fromkeys(orgs, "15.00")
    commands, _ = await read_all(kafka.bootstrap, [topics.command])
    assert_same(topics, list(simulate(topics, commands)), await read_outputs(kafka.bootstrap, topics))


@pytest.mark.timeout(400)
async def test_1000_top_ups_charge_and_credit_once_each_though_the_agents_are_killed(
    kafka: EmbeddedKafka, topics: Topics, fake: FakeGateway, run: Callable[..., Worker]
) -> None:
    orgs, refused = [f"org-{n}" for n in range(250)], [f"refused-{n}" for n in range(20)]
    episodes = len(orgs) * EPISODES
    port = free_port()
    fake.hooks, fake.hook_url = hooks, f"http://127.0.0.1:{port}{PATH}"
    fake.declines = {f"pm_{org}": "expired_card" for org in refused}
    stripe = {
        "RATER_PAYMENT_GATEWAY": "stripe",
        "RATER_STRIPE_API_KEY": API_KEY,
        "RATER_STRIPE_API_URL": fake.url,
        "RATER_STRIPE_WEBHOOK_SECRETS": SIGNING_SECRET,
        "RATER_STRIPE_WEBHOOK_PORT": str(port),
    }
    rating, recharge = run("rating", **HASTE), run("recharge", **stripe, **HASTE)
    await publish(kafka.bootstrap, topics, in_need(topics, [*orgs, *refused], short="65.00"))
    draw = random.Random(SEED)
    for worker in (rating, recharge):
        worker.start()
    for kill in range(KILLS):
        taken = len(fake.taken) + draw.randrange(40, 110)
        await until(lambda taken=taken: len(fake.taken) >= taken, rating, recharge)  # type: ignore[misc]
        await asyncio.sleep(draw.random() * 0.2)
        for worker in (recharge, rating) if kill % 4 == 3 else (recharge,):
            worker.kill()
            worker.start()
    assert len(fake.taken) < episodes, "the last kill came after the work was done"
    await until_credited(kafka, topics, episodes, rating, recharge)
    await until_refused(kafka, topics, refused)
    await until_done(kafka.bootstrap, topics, rating)
    assert [rating.stop(), recharge.stop()] == [0, 0]
    assert max(fake.calls.values()) > 1
    await check_books(kafka, topics, fake, orgs, EPISODES)


async def test_rating_timer_and_recharge_run_in_one_process_with_a_payment_service_of_ones_own(
    kafka: EmbeddedKafka, topics: Topics, fake: FakeGateway, run: Callable[..., Worker]
) -> None:
    orgs = [f"org-{n}" for n in range(40)]
    service = {
        "RATER_PAYMENT_GATEWAY": "webhook",
        "RATER_PAYMENT_WEBHOOK_URL": f"{fake.url}/charges",
        "RATER_PAYMENT_WEBHOOK_SECRET": "whsec_" + base64.b64encode(OPERATOR_KEY).decode(),
    }
    worker = run("rating,timer,recharge", **service, **HASTE)
    await publish(kafka.bootstrap, topics, in_need(topics, orgs, short="65.00"))
    worker.start()
    for taken in (20, 80):
        await until(lambda taken=taken: len(fake.taken) >= taken, worker)  # type: ignore[misc]
        worker.kill()
        worker.start()
    await until_credited(kafka, topics, len(orgs) * EPISODES, worker)
    await until_done(kafka.bootstrap, topics, worker)
    assert worker.stop() == 0
    await check_books(kafka, topics, fake, orgs, EPISODES)


async def test_a_gateway_that_never_answers_does_not_delay_rating_in_the_same_process(
    kafka: EmbeddedKafka, topics: Topics, fake: FakeGateway, run: Callable[..., Worker]
) -> None:
    fake.fault = lambda *_: "hang_after"
    service = {
        "RATER_PAYMENT_GATEWAY": "webhook",
        "RATER_PAYMENT_WEBHOOK_URL": f"{fake.url}/charges",
        "RATER_PAYMENT_WEBHOOK_SECRET": "whsec_" + base64.b64encode(OPERATOR_KEY).decode(),
        "RATER_PAYMENT_TIMEOUT_MS": "14000",
    }
    worker = run("rating,recharge", **service)
    worker.start()
    await publish(kafka.bootstrap, topics, in_need(topics, [f"org-{n}" for n in range(40)], short="65.00"))
    await until(lambda: len(fake.calls) >= 1, worker)
    await publish(kafka.bootstrap, topics, in_need(topics, [f"more-{n}" for n in range(40)], short="65.00"))
    await until_done(kafka.bootstrap, topics, worker)
    assert "no answer within" not in worker.log_tail(), "the first charge is no longer in flight"
    assert worker.stop() == 0


async def until_refused(kafka: EmbeddedKafka, topics: Topics, orgs: list[str]) -> None:
    """Wait until auto-recharge is switched off for all organizations whose card has expired."""
    deadline_s = time.monotonic() + DONE_TIMEOUT_S
    while True:
        states = {state["org_id"]: state["auto_recharge"]["state"] for state in await values(kafka, topics.state)}
        if all(states[org] == "disabled" for org in orgs):
            return
        assert time.monotonic() < deadline_s, states


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
