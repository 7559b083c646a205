"""The recharge agent by hand: requests in, time moved, commands out; a restart in between charges nobody twice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rater.adapters.payments.circuit_breaker import BreakerLimits, CircuitBreaker
from rater.adapters.payments.gateway import Declined, Outcome, Taken, Unresolved
from rater.agents.recharge import BREAKER_POLL_MS, PartitionRecharges
from rater.agents.retry_queue import REMEMBERED_DAYS
from rater.domain.outputs import RechargeRequest
from rater.kafka.log import LogRecord
from rater.simulation import MemoryRows
from tests.builders import ORG, START_MS, TOPICS, Desk, messages

DAY_MS = 86_400_000
AUTO_RECHARGE: dict[str, Any] = {
    "enabled": True,
    "trigger_amount": "10.00",
    "recharge_amount": "20.00",
    "payment_method": "cus_1/pm_1",
}


class Bank:
    """A gateway that knows each charge by its id and attempt; `outcomes` are what it says, in turn, then `Taken`."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome | Unresolved] = []
        self.asked: list[tuple[str, int]] = []
        self.taken: set[tuple[str, int]] = set()

    async def charge(self, request: RechargeRequest, age_ms: int) -> Outcome:
        self.asked.append((request.recharge_id, request.attempt))
        outcome = self.outcomes.pop(0) if self.outcomes else Taken("r")
        if isinstance(outcome, Unresolved):
            raise outcome
        if isinstance(outcome, Taken):
            self.taken.add(self.asked[-1])
        return outcome

    async def close(self) -> None: ...


class Agent:
    """A processor on rows that outlive it, and what it publishes."""

    def __init__(self, stop_file: Path) -> None:
        self.bank = Bank()
        self.rows = MemoryRows()
        self.sent: list[LogRecord] = []
        self.now_ms = START_MS + 60_000
        self.breaker = CircuitBreaker(self.bank, BreakerLimits(), stop_file, lambda: self.now_ms)
        self.restart()

    def restart(self) -> None:
        self.processor = PartitionRecharges(TOPICS.command, self.breaker, self.rows, self)

    def emit(
        self, topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        self.sent.append(LogRecord(topic, timestamp_ms, key, value, headers))

    async def see(self, *records: LogRecord) -> None:
        self.processor.accept([record for record in records if record.topic == TOPICS.recharge_request])

    async def work(self, for_ms: int = 0) -> list[dict[str, Any]]:
        """Let time pass and do what falls due; gives the commands."""
        start, end_ms = len(self.sent), self.now_ms + for_ms
        while (due_ms := self.processor.next_due_ms()) is not None and due_ms <= end_ms:
            self.now_ms = max(self.now_ms, due_ms)
            await self.processor.charge_due(self.now_ms)
        self.now_ms = end_ms
        return [msgspec.json.decode(record.value or b"") for record in self.sent[start:]]


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path / "stop")


@pytest.fixture
def desk() -> Desk:
    """An organization whose top-up has just been requested."""
    desk = Desk().ready(funds=None)
    desk.command("auto_recharge.put", **AUTO_RECHARGE)
    return desk


async def test_a_request_is_charged_and_the_account_credited(agent: Agent, desk: Desk) -> None:
    await agent.see(*desk.outputs)
    (command,) = await agent.work()
    assert (command["type"], command["recharge_id"], command["amount"]) == ("recharge.succeeded", f"{ORG}:1", "20.00")
    desk.give(*agent.sent)
    assert desk.state()["balance"] == "20.00"


async def test_a_request_that_comes_again_is_answered_without_the_card(agent: Agent, desk: Desk) -> None:
    await agent.see(*desk.outputs)
    await agent.work()
    agent.restart()
    await agent.see(*desk.outputs)
    await agent.see(*desk.outputs)
    first, *again = [record.value for record in agent.sent]
    assert again == [first] * 2
    assert len(agent.bank.asked) == 1


async def test_it_is_remembered_for_longer_than_the_request_topic_is_kept(agent: Agent, desk: Desk) -> None:
    assert TOPICS[TOPICS.recharge_request].kept == "30d"
    assert REMEMBERED_DAYS > 30


async def test_a_request_that_comes_again_while_it_waits_waits_once(agent: Agent, desk: Desk) -> None:
    await agent.see(*desk.outputs)
    await agent.see(*desk.outputs)
    assert len(await agent.work()) == 1


async def test_what_is_not_known_is_asked_again_with_growing_gaps_until_it_is(agent: Agent, desk: Desk) -> None:
    agent.bank.outcomes = [Unresolved("?", blames_gateway=False) for _ in range(12)]
    await agent.see(*desk.outputs)
    assert await agent.work(for_ms=60_000) == []
    assert 4 <= len(agent.bank.asked) <= 8
    (command,) = await agent.work(for_ms=DAY_MS)
    assert command["type"] == "recharge.succeeded"
    assert len(agent.bank.asked) == 13


async def test_a_restart_in_between_loses_nothing(agent: Agent, desk: Desk) -> None:
    agent.bank.outcomes = [Unresolved("?", blames_gateway=False)]
    await agent.see(*desk.outputs)
    await agent.work()
    agent.restart()
    (command,) = await agent.work(for_ms=10_000)
    assert command["type"] == "recharge.succeeded"


async def test_a_decline_is_told_with_its_attempt_and_the_next_attempt_is_charged(agent: Agent, desk: Desk) -> None:
    agent.bank.outcomes = [Declined("insufficient_funds", retryable=True)]
    await agent.see(*desk.outputs)
    (command,) = await agent.work()
    assert (command["type"], command["attempt"], command["retryable"]) == ("recharge.failed", 1, True)
    desk.give(*agent.sent)
    desk.later(1)
    retried = desk.command("recharge.retry", recharge_id=f"{ORG}:1", attempt=2)
    assert [request["attempt"] for request in messages(retried, TOPICS.recharge_request)] == [2]
    await agent.see(*retried)
    (command,) = await agent.work()
    assert command["type"] == "recharge.succeeded"
    desk.give(agent.sent[-1])
    assert desk.state()["balance"] == "20.00"


async def test_while_payments_are_stopped_requests_wait(agent: Agent, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    await agent.see(*desk.outputs)
    assert await agent.work(for_ms=10 * BREAKER_POLL_MS) == []
    assert agent.bank.asked == []
    (tmp_path / "stop").unlink()
    assert len(await agent.work(for_ms=2 * BREAKER_POLL_MS)) == 1


async def test_many_are_charged_together_each_once(agent: Agent) -> None:
    desk = Desk()
    for n in range(100):
        desk.organization(f"org-{n}")
        desk.command("auto_recharge.put", f"org-{n}", **AUTO_RECHARGE)
    await agent.see(*desk.outputs)
    await agent.work()
    assert sorted(agent.bank.asked) == sorted((f"org-{n}:1", 1) for n in range(100))
    desk.give(*agent.sent)
    assert {desk.state(f"org-{n}")["balance"] for n in range(100)} == {"20.00"}


async def test_what_was_requested_before_the_agents_time_is_left_to_who_took_payments_then(agent: Agent, desk: Desk) -> None:
    later_us = (START_MS + DAY_MS) * 1000
    agent.processor = PartitionRecharges(TOPICS.command, agent.breaker, agent.rows, agent, later_us)
    await agent.see(*desk.outputs)
    assert await agent.work(for_ms=DAY_MS) == []
    assert agent.bank.asked == []


@pytest.mark.parametrize("value", [b"", b"{}", b"not json", None])
async def test_what_is_no_request_is_left_out(agent: Agent, value: bytes | None) -> None:
    await agent.see(LogRecord(TOPICS.recharge_request, 1, ORG.encode(), value))
    assert await agent.work() == []
    assert agent.bank.asked == []
