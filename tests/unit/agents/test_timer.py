"""The timer agent by hand: states in, time moved, commands out; a restart in between changes nothing."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from rater.agents.timer import PartitionTimers
from rater.domain import timers
from rater.kafka.log import LogRecord
from rater.simulation import MemoryRows
from tests.builders import ORG, START_MS, TOPICS, Desk, events, messages

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
EXPIRY_MS = START_MS + 365 * DAY_MS  # of what is bought at START_MS, give or take the records before it


class Agent:
    """A processor on rows that outlive it, and what it publishes."""

    def __init__(self) -> None:
        self.rows = MemoryRows()
        self.sent: list[LogRecord] = []
        self.restart()

    def restart(self) -> None:
        self.processor = PartitionTimers(TOPICS.command, self.rows, self)

    def emit(
        self, topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        self.sent.append(LogRecord(topic, timestamp_ms, key, value, headers))

    async def see(self, desk: Desk) -> None:
        """The states the desk has published."""
        desk.outputs += desk.simulation.finish()
        self.processor.note_states([record for record in desk.outputs if record.topic == TOPICS.state])

    async def at(self, now_ms: int) -> list[tuple[str, dict[str, Any]]]:
        """Move time there; gives (type, command) of what was published on the way, each at its due time."""
        start = len(self.sent)
        while (due_ms := self.processor.next_due_ms()) is not None and due_ms <= now_ms:
            self.processor.publish_due(due_ms)
        return self.commands(start)

    async def late(self, now_ms: int) -> list[tuple[str, dict[str, Any]]]:
        """Be asked only now, after having been away."""
        start = len(self.sent)
        self.processor.publish_due(now_ms)
        return self.commands(start)

    def commands(self, start: int = 0) -> list[tuple[str, dict[str, Any]]]:
        decoded = [msgspec.json.decode(record.value or b"") for record in self.sent[start:]]
        return [(command["type"], command) for command in decoded]


def types(commands: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [type_ for type_, _ in commands]


@pytest.fixture
def desk() -> Desk:
    return Desk().ready("100.00")


@pytest.fixture
def agent() -> Agent:
    return Agent()


async def test_a_lot_is_warned_of_30_and_7_days_ahead_and_then_expires(desk: Desk, agent: Agent) -> None:
    await agent.see(desk)
    days = []
    for day in range(330, 370):
        days += [(365 - day, type_) for type_ in types(await agent.at(START_MS + day * DAY_MS + HOUR_MS))]
    assert days == [(30, "funds.warn"), (7, "funds.warn"), (0, "funds.expire")]


async def test_the_commands_do_on_the_account_what_they_are_for(desk: Desk, agent: Agent) -> None:
    await agent.see(desk)
    await agent.at(EXPIRY_MS + HOUR_MS)
    out = desk.give(*agent.sent)
    assert [e for e in events(out) if e.startswith("credit")] == ["credit.expiring", "credit.expiring", "credit.expired"]
    assert desk.state()["balance"] == "0.00"


async def test_a_restart_loses_nothing_and_sends_nothing_again(desk: Desk, agent: Agent) -> None:
    await agent.see(desk)
    assert types(await agent.at(EXPIRY_MS - 29 * DAY_MS)) == ["funds.warn"]
    agent.restart()
    assert types(await agent.at(EXPIRY_MS - 29 * DAY_MS)) == []
    assert types(await agent.at(EXPIRY_MS + HOUR_MS)) == ["funds.warn", "funds.expire"]
    agent.restart()
    assert agent.processor.next_due_ms() is None


async def test_further_states_of_the_account_start_no_timer_anew(desk: Desk, agent: Agent) -> None:
    await agent.see(desk)
    await agent.at(EXPIRY_MS - 29 * DAY_MS)
    desk.user("u2")
    await agent.see(desk)
    assert types(await agent.at(EXPIRY_MS - 8 * DAY_MS)) == []


async def test_what_was_missed_is_taken_as_one_the_latest(desk: Desk, agent: Agent) -> None:
    await agent.see(desk)
    assert types(await agent.late(EXPIRY_MS - 2 * DAY_MS)) == ["funds.warn"]
    assert messages(desk.give(*agent.sent), TOPICS.event)[0]["data"]["days"] == 7


async def test_a_lot_that_comes_back_after_its_expiry_expires_as_well(desk: Desk, agent: Agent) -> None:
    desk.rate("100.00")
    desk.now_ms = EXPIRY_MS - 10 * DAY_MS
    desk.call("last", answered_at="2026-09-21T00:00:00Z")
    await agent.see(desk)
    assert agent.processor.next_due_ms() is None  # the lot is used up
    desk.now_ms = EXPIRY_MS + DAY_MS
    desk.command("call.void", cdr_id="last", reason="disputed")
    assert desk.state()["balance"] == "100.00"
    await agent.see(desk)
    assert types(await agent.at(desk.now_ms)) == ["funds.expire"]
    assert events(desk.give(*agent.sent)) == ["credit.expired", "balance.depleted"]


def test_a_lot_seen_only_after_its_expiry_is_due_when_it_was_seen() -> None:
    state = msgspec.json.decode(
        b'{"org_id": "o", "lots": [{"lot_id": "l", "expires_at": "2025-01-01T00:00:00Z"}], "auto_recharge": {},'
        b' "updated_at": "2025-03-01T00:00:00Z"}',
        type=timers.StateSeen,
    )
    found = timers.noticed(None, state)
    due_us = timers.next_due_us(found)
    assert due_us is not None
    (command,) = timers.take_due(found, due_us)
    assert (command["type"], command["as_of"]) == ("funds.expire", "2025-03-01T00:00:00Z")


def softly_declined(desk: Desk) -> None:
    auto = {"trigger_amount": "500.00", "recharge_amount": "50.00", "payment_method": "card"}
    desk.command("auto_recharge.put", enabled=True, **auto)
    desk.command("recharge.failed", recharge_id=f"{ORG}:1", code="declined", retryable=True)


async def test_the_next_try_of_a_soft_decline_is_asked_for_when_it_is_due_and_once(desk: Desk, agent: Agent) -> None:
    softly_declined(desk)
    await agent.see(desk)
    due_ms = desk.now_ms + HOUR_MS
    assert types(await agent.at(due_ms - 1)) == []
    ((type_, command),) = await agent.at(due_ms)
    assert (type_, command["recharge_id"], command["attempt"]) == ("recharge.retry", f"{ORG}:1", 2)
    agent.restart()
    await agent.see(desk)  # a state from before the command has had its effect
    assert types(await agent.at(due_ms + DAY_MS)) == []
    assert [r["attempt"] for r in messages(desk.give(*agent.sent), TOPICS.recharge_request)] == [2]


async def test_three_tries_follow_the_first_each_asked_for_by_the_timer(desk: Desk, agent: Agent) -> None:
    softly_declined(desk)
    for attempt in (2, 3, 4):
        await agent.see(desk)
        due_ms = agent.processor.next_due_ms()
        assert due_ms is not None
        await agent.at(due_ms)
        (request,) = messages(desk.give(agent.sent[-1]), TOPICS.recharge_request)
        assert request["attempt"] == attempt
        desk.now_ms = due_ms
        desk.command("recharge.failed", recharge_id=f"{ORG}:1", code="declined", retryable=True)
    await agent.see(desk)
    assert types(await agent.at(desk.now_ms + 30 * DAY_MS)) == []


async def test_a_try_that_a_call_has_already_made_is_not_asked_for(desk: Desk, agent: Agent) -> None:
    softly_declined(desk)
    await agent.see(desk)
    desk.later(1)
    desk.user("u3")  # any record of the organization makes the try that is due
    await agent.see(desk)
    assert types(await agent.at(desk.now_ms + DAY_MS)) == []


async def test_an_agent_that_has_lost_its_state_sends_what_the_account_knows_already(desk: Desk, agent: Agent) -> None:
    softly_declined(desk)
    await agent.see(desk)
    await agent.at(EXPIRY_MS + DAY_MS)
    other = Agent()
    await other.see(desk)
    await other.at(EXPIRY_MS + DAY_MS)
    assert [record.value for record in other.sent] == [record.value for record in agent.sent]
    desk.give(*agent.sent)
    assert desk.give(*other.sent) == []


async def test_of_many_organizations_each_gets_its_own_commands_however_many_fall_due_at_once() -> None:
    desk, agent = Desk(), Agent()
    names = [f"org-{n}" for n in range(30)]
    for name in names:
        desk.organization(name)
        desk.funds("5.00", name)
    await agent.see(desk)
    await agent.late(EXPIRY_MS + DAY_MS)
    assert sorted(record.key or b"" for record in agent.sent) == sorted(name.encode() for name in names)
    assert len({command["command_id"] for _, command in agent.commands()}) == len(names)


NO_STATES = (
    b"{",
    b'{"a":' * 10_000,
    b'{"org_id":"contoso","lots":[],"auto_recharge":{},"updated_at":"9999-12-31T23:59:59-23:59"}',
    b'{"org_id":"contoso","lots":[],"auto_recharge":{},"updated_at":"2025-10-01T12:00:00"}',
    b'{"org_id":"contoso","lots":[],"auto_recharge":{"attempt":99999999999999999999},"updated_at":"2025-10-01T12:00:00Z"}',
)


@pytest.mark.parametrize("value", NO_STATES)
async def test_what_is_no_state_is_left_out_and_what_was_known_still_holds(desk: Desk, agent: Agent, value: bytes) -> None:
    await agent.see(desk)
    agent.processor.note_states([LogRecord(TOPICS.state, START_MS, ORG.encode(), value)])
    assert types(await agent.at(EXPIRY_MS - 29 * DAY_MS)) == ["funds.warn"]


async def test_an_account_that_is_removed_takes_its_timers_with_it(desk: Desk, agent: Agent) -> None:
    await agent.see(desk)
    agent.processor.note_states([LogRecord(TOPICS.state, START_MS, ORG.encode(), None)])
    assert agent.processor.next_due_ms() is None
    agent.restart()
    assert agent.processor.next_due_ms() is None
