"""The notification agent by hand: what is due is sent once, tried again when it must be, and answered for."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from rater.adapters.notices import ChannelName, NotNow, Undeliverable
from rater.agents.notification import FIRST_GAP_MS, GIVE_UP_MS, PartitionDeliveries
from rater.domain.outputs import Notification
from rater.kafka.log import LogRecord
from rater.simulation import MemoryRows
from tests.builders import ORG, START_MS, TOPICS, Desk


class Post:
    """A channel that writes down what it is given; `faults` are raised in turn, for the recipient they name."""

    def __init__(self, name: ChannelName = "mail") -> None:
        self.name = name
        self.sent: list[tuple[str, str]] = []
        self.faults: dict[str, list[Exception]] = {}

    def recipients(self, note: Notification) -> list[str]:
        return note.emails

    async def deliver(self, note: Notification, recipient: str) -> None:
        if faults := self.faults.get(recipient):
            raise faults.pop(0)
        self.sent.append((note.notification_id, recipient))

    async def close(self) -> None: ...


class Agent:
    """A processor on rows that outlive it, and what it publishes."""

    def __init__(self, *channels: Post) -> None:
        self.channels = {channel.name: channel for channel in channels}
        self.rows = MemoryRows()
        self.published: list[LogRecord] = []
        self.now_ms = START_MS
        self.restart()

    def restart(self) -> None:
        self.processor = PartitionDeliveries(TOPICS.command, self.channels, self.rows, self, lambda: self.now_ms)

    def emit(
        self, topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        self.published.append(LogRecord(topic, timestamp_ms, key, value, headers))

    async def see(self, *records: LogRecord) -> None:
        self.processor.accept(records)

    async def work(self, for_ms: int = 0) -> list[dict[str, Any]]:
        """Let time pass and do what falls due; gives the commands."""
        start, end_ms = len(self.published), self.now_ms + for_ms
        while (due_ms := self.processor.next_due_ms()) is not None and due_ms <= end_ms:
            self.now_ms = max(self.now_ms, due_ms)
            await self.processor.deliver_due(self.now_ms)
        self.now_ms = end_ms
        return [msgspec.json.decode(record.value or b"") for record in self.published[start:]]


def told(number: int = 1, emails: Sequence[str] = ("a@x.example",), org_id: str = ORG) -> LogRecord:
    id_ = f"{org_id}:{number}"
    note = Notification(id_, org_id, id_, "balance.low", "Contoso", list(emails), "2026-11-24T10:00:00Z", {})
    return LogRecord(TOPICS.notification, START_MS, org_id.encode(), msgspec.json.encode(note))


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def agent(post: Post) -> Agent:
    return Agent(post)


async def test_each_address_gets_one_mail_and_the_account_hears_of_each(agent: Agent, post: Post) -> None:
    await agent.see(told(emails=["a@x.example", "b@x.example"]))
    results = await agent.work()
    assert post.sent == [(f"{ORG}:1", "a@x.example"), (f"{ORG}:1", "b@x.example")]
    assert [(r["type"], r["recipient"]) for r in results] == [
        ("notification.sent", "a@x.example"),
        ("notification.sent", "b@x.example"),
    ]


async def test_the_result_becomes_an_event_of_the_account(agent: Agent, post: Post) -> None:
    await agent.see(told())
    await agent.work()
    desk = Desk().ready()
    outputs = desk.give(*agent.published)
    (event,) = [msgspec.json.decode(r.value or b"") for r in outputs if r.topic == TOPICS.event]
    assert (event["type"], event["data"]["notification_id"]) == ("notification.sent", f"{ORG}:1")


async def test_a_notification_that_comes_again_is_not_sent_again(agent: Agent, post: Post) -> None:
    await agent.see(told(), told())
    await agent.work()
    agent.restart()
    await agent.see(told())
    assert await agent.work() == []
    assert len(post.sent) == 1


async def test_what_can_t_be_sent_now_is_tried_again_later_and_over_a_restart(agent: Agent, post: Post) -> None:
    post.faults["a@x.example"] = [NotNow("421 busy"), NotNow("421 busy")]
    await agent.see(told())
    assert await agent.work() == []
    agent.restart()
    results = await agent.work(for_ms=4 * FIRST_GAP_MS)
    assert [r["type"] for r in results] == ["notification.sent"]
    assert len(post.sent) == 1


async def test_who_waits_holds_up_nobody_else(agent: Agent, post: Post) -> None:
    post.faults["a@x.example"] = [NotNow("421 busy")]
    await agent.see(told(1), told(2, ["b@x.example"]))
    await agent.work()
    assert post.sent == [(f"{ORG}:2", "b@x.example")]


async def test_what_is_refused_for_good_is_said_and_not_tried_again(agent: Agent, post: Post) -> None:
    post.faults["a@x.example"] = [Undeliverable("550 no such user")]
    await agent.see(told())
    (result,) = await agent.work(for_ms=GIVE_UP_MS)
    assert (result["type"], result["reason"]) == ("notification.failed", "550 no such user")
    assert post.sent == []


async def test_after_three_days_it_is_given_up(agent: Agent, post: Post) -> None:
    post.faults["a@x.example"] = [NotNow("421 busy") for _ in range(1000)]
    await agent.see(told())
    (result,) = await agent.work(for_ms=2 * GIVE_UP_MS)
    assert (result["type"], result["reason"]) == ("notification.failed", "421 busy")
    assert agent.processor.next_due_ms() is None


async def test_a_fault_nobody_thought_of_is_tried_again(agent: Agent, post: Post) -> None:
    post.faults["a@x.example"] = [ZeroDivisionError()]
    await agent.see(told())
    assert [r["type"] for r in await agent.work(for_ms=2 * FIRST_GAP_MS)] == ["notification.sent"]


async def test_every_channel_tells_on_its_own() -> None:
    mail, webhook = Post("mail"), Post("webhook")
    mail.faults["a@x.example"] = [NotNow("421 busy")]
    agent = Agent(mail, webhook)
    await agent.see(told())
    assert [r["channel"] for r in await agent.work()] == ["webhook"]
    assert [r["channel"] for r in await agent.work(for_ms=2 * FIRST_GAP_MS)] == ["mail"]


async def test_what_is_no_notification_is_passed_over(agent: Agent, post: Post) -> None:
    bad = told()
    await agent.see(
        LogRecord(TOPICS.notification, START_MS, ORG.encode(), b"{not json"),
        LogRecord(TOPICS.notification, START_MS, b"another", bad.value),
        told(2),
    )
    await agent.work()
    assert post.sent == [(f"{ORG}:2", "a@x.example")]


async def test_a_long_address_makes_an_id_that_is_still_short_enough(agent: Agent, post: Post) -> None:
    await agent.see(told(emails=["a" * 200 + "@x.example", "a" * 201 + "@x.example"]))
    ids = [r["command_id"] for r in await agent.work()]
    assert len(set(ids)) == 2
    assert max(map(len, ids)) <= 128
