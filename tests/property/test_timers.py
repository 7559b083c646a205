"""Account and timer together, through years of random actions, with a timer that crashes now and then.

The loop is closed as on Kafka: the timer reads the states that the core writes, and the core reads the timer's commands.
"""

import asyncio
import copy
import random
from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from rater.agents.timer import PartitionTimers
from rater.domain.recharge import TRIES_MAX
from rater.kafka.log import LogRecord
from rater.simulation import MemoryRows
from tests.builders import TOPICS, Desk, events, messages

ORGS = ("contoso", "fabrikam")
STEPS = 60
DAYS = (0.05, 0.3, 1.5, 20.0, 100.0)
CRASHES = 0.2  # of the ticks
HURRIED = 0.4  # of the ticks, after which something else happens before their commands arrive


class World:
    """A desk, and a timer that sees its states at once and is asked at every step."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.desk = Desk()
        self.rows = MemoryRows()
        self.sent: list[LogRecord] = []
        self.waiting: list[LogRecord] = []
        self._seen = 0
        self._ending = False
        self.timer = PartitionTimers(TOPICS.command, self.rows, self)

    def emit(
        self, topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        self.sent.append(LogRecord(topic, timestamp_ms, key, value, headers))

    async def live(self) -> None:
        for org in ORGS:
            self.desk.organization(org)
        for _ in range(STEPS):
            self.something(self.draw.choice(ORGS))
            self.desk.later(self.draw.choice(DAYS) * self.draw.random())
            await self.catch_up()
        for org in ORGS:
            self.desk.command("auto_recharge.put", org, enabled=False, **AUTO)
        self._ending = True
        for _ in range(3):  # one step for the last answer, one for the year of its money, one for the rest
            self.desk.later(400)
            await self.catch_up()

    def something(self, org: str) -> None:
        draw, desk = self.draw, self.desk
        doing = draw.choice(("buy", "spend", "spend", "auto", "answer", "answer", "restart", "nothing"))
        if doing == "buy":
            desk.funds(f"{draw.randrange(1, 40)}.00", org)
        elif doing == "spend":
            desk.command("funds.adjust", org, amount=f"-{draw.randrange(1, 30)}.00", reason="calls")
        elif doing == "auto":
            desk.command("auto_recharge.put", org, enabled=draw.random() < 0.8, **AUTO)
        elif doing == "answer":
            self.answer()
        elif doing == "restart":
            self.timer = PartitionTimers(TOPICS.command, self.rows, self)

    def answer(self) -> None:
        """The payment side answers the latest request, most of the time with a soft decline."""
        requests = messages(self.desk.outputs, TOPICS.recharge_request)
        if requests:
            request = requests[-1]
            about = {"recharge_id": request["recharge_id"], "attempt": request["attempt"]}
            if self.draw.random() < 0.7:
                self.desk.command("recharge.failed", request["org_id"], code="declined", retryable=True, **about)
            else:
                about = {"recharge_id": request["recharge_id"], "amount": request["amount"], "payment_reference": "p"}
                self.desk.command("recharge.succeeded", request["org_id"], **about)

    async def catch_up(self) -> None:
        """Pass states to the timer and its commands to the account until nothing is due."""
        desk = self.desk
        while True:
            desk.outputs += desk.simulation.finish()
            new, self._seen = desk.outputs[self._seen :], len(desk.outputs)
            self.timer.note_states([record for record in new if record.topic == TOPICS.state])
            due_ms = self.timer.next_due_ms()
            if due_ms is not None and due_ms <= desk.now_ms:
                await self.tick()
                if not self._ending and self.draw.random() < HURRIED:
                    self.something(self.draw.choice(ORGS))
            elif self.waiting:
                desk.give(*self.waiting)
                self.waiting.clear()
            else:
                return

    async def tick(self) -> None:
        before, sent = copy.deepcopy(self.rows), len(self.sent)
        self.timer.publish_due(self.desk.now_ms)
        if self.draw.random() < CRASHES:  # nothing of it is committed
            del self.sent[sent:]
            self.rows = before
            self.timer = PartitionTimers(TOPICS.command, self.rows, self)
        self.waiting += self.sent[sent:]


#: How many commands there may be for one lot, or one try.
COMMANDS_MAX = {"funds.warn": 2, "funds.expire": 1, "recharge.retry": 1}
AUTO = {"trigger_amount": "10.00", "recharge_amount": "25.00", "payment_method": "card"}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_each_try_warning_and_expiry_comes_once_and_none_is_forgotten(seed: int) -> None:
    world = World(seed)
    asyncio.run(world.live())
    outputs = world.desk.outputs

    told = [event for event in messages(outputs, TOPICS.event) if event["type"].startswith("credit.")]
    of_lots = Counter((event["org_id"], event["data"]["lot_id"], event["data"].get("days", 0)) for event in told)
    assert set(of_lots.values()) <= {1}
    for org in ORGS:
        assert world.desk.state(org)["lots"] == [], "the rest of a lot is forfeited after its year"

    tries = Counter((request["recharge_id"], request["attempt"]) for request in messages(outputs, TOPICS.recharge_request))
    assert set(tries.values()) <= {1}
    assert all(attempt <= TRIES_MAX for _, attempt in tries)
    assert all(attempt == 1 or (recharge_id, attempt - 1) in tries for recharge_id, attempt in tries)

    commands = messages(world.sent, TOPICS.command)
    assert len({command["command_id"] for command in commands}) == len(commands)
    about = Counter((command["type"], command["command_id"].rpartition(":")[2]) for command in commands)
    assert all(count <= COMMANDS_MAX[type_] for (type_, _), count in about.items())
    assert "command.refused" not in events(outputs)


def test_the_random_lives_go_through_everything_that_falls_due() -> None:
    said: Counter[str] = Counter()
    asked: Counter[int] = Counter()
    for seed in range(20):
        world = World(seed)
        asyncio.run(world.live())
        said.update(events(world.desk.outputs))
        asked.update(request["attempt"] for request in messages(world.desk.outputs, TOPICS.recharge_request))
    assert said["credit.expiring"]
    assert said["credit.expired"]
    assert set(asked) == set(range(1, TRIES_MAX + 1))
