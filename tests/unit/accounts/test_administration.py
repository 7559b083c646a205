"""An operator's commands are published, and their outcomes are found in what a worker writes."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition

from rater.accounts import Administration, CommandOutcome, QueuePosition
from rater.domain.command_records import CommandFields, operator_command
from rater.kafka.log import LogRecord
from rater.kafka.partitioning import partition_of
from rater.kafka.topic_admin import TopicAdminError
from rater.kafka.topics import Topics
from rater.simulation import Simulation
from tests.fake_kafka import FakeKafka, FakeRecord

ORG = "contoso"
SETTINGS = {"name": "C", "country": "US", "currency": "USD", "offer": "commercial"}
TIMEOUT_S = 0.2


class WorkerStandIn:
    """Carries out each command with the rating core as soon as it is published, and commits. `hides`: outputs to leave out."""

    def __init__(self, kafka: FakeKafka, topics: Topics, hides: Callable[[LogRecord], bool] = lambda _: False) -> None:
        self._kafka = kafka
        self._topics = topics
        self._hides = hides
        self._simulation = Simulation(topics)
        kafka.committed = {}
        kafka.on_publish = self.take

    def take(self, record: FakeRecord) -> None:
        read = LogRecord(record.topic, 1_790_000_000_000, record.key, record.value, (), record.offset, record.partition)
        for output in self._simulation.rate([read]):
            if output.topic in (self._topics.event, self._topics.dead_letter) and not self._hides(output):
                self._kafka.put(output.topic, ORG, output.value, output.headers, record.partition)
        assert self._kafka.committed is not None
        self._kafka.committed[TopicPartition(record.topic, record.partition)] = record.offset + 1


@pytest.fixture
def worker(kafka: FakeKafka, topics: Topics) -> WorkerStandIn:
    return WorkerStandIn(kafka, topics)


def organization(command_id: str = "org", **fields: Any) -> CommandFields:
    return operator_command("organization.put", ORG, command_id, **(SETTINGS | fields))


def user(user_id: str, command_id: str = "") -> CommandFields:
    put = {"user_id": user_id, "usage_country": "US", "licences": {}}
    return operator_command("user.put", ORG, command_id or f"put-{user_id}", **put)


async def carry_out(topics: Topics, *commands: CommandFields) -> list[CommandOutcome]:
    return await Administration("broker", topics, "rater", ORG, TIMEOUT_S).carry_out(commands, lambda _: None)


def results(outcomes: Sequence[CommandOutcome]) -> dict[str, str]:
    return {outcome.command["command_id"]: outcome.result for outcome in outcomes}


async def test_a_command_is_done_once_its_event_arrives(topics: Topics, worker: WorkerStandIn) -> None:
    (outcome,) = await carry_out(topics, organization())
    assert (outcome.result, outcome.code) == ("done", None)
    assert outcome.event is not None
    assert outcome.event["type"] == "organization.changed"


async def test_a_command_goes_to_its_organizations_partition_under_its_key(
    kafka: FakeKafka, topics: Topics, worker: WorkerStandIn
) -> None:
    await carry_out(topics, organization())
    (published,) = kafka.published(topics.command)
    assert (published.key, published.partition) == (ORG.encode(), partition_of(ORG, topics.account_partitions))
    assert published.value == msgspec.json.encode(organization())


async def test_a_refusal_has_its_code_and_message(topics: Topics, worker: WorkerStandIn) -> None:
    await carry_out(topics, organization())
    (outcome,) = await carry_out(topics, operator_command("user.remove", ORG, "id", user_id="nobody"))
    assert (outcome.result, outcome.code, outcome.message) == ("refused", "unknown_user", "no user 'nobody'")


async def test_a_dead_lettered_command_is_refused(topics: Topics, worker: WorkerStandIn) -> None:
    await carry_out(topics, organization())
    (outcome,) = await carry_out(topics, organization(name="another name, the same id"))
    assert (outcome.result, outcome.code) == ("refused", "conflicting_duplicate")


async def test_a_dead_letter_with_the_same_id_but_other_bytes_is_not_its_outcome(
    kafka: FakeKafka, topics: Topics, worker: WorkerStandIn
) -> None:
    await carry_out(topics, organization())
    await carry_out(topics, organization(name="another name, the same id"))
    (letter,) = kafka.published(topics.dead_letter)
    kafka.committed = None
    kafka.on_publish = lambda record: kafka.put(letter.topic, ORG, letter.value, letter.headers, record.partition)
    (outcome,) = await carry_out(topics, organization(name="a third name, the same id"))
    assert outcome.result == "pending"


async def test_an_event_of_another_organization_with_the_same_id_is_not_its_outcome(kafka: FakeKafka, topics: Topics) -> None:
    event = {"type": "user.changed", "org_id": "other", "data": {"command_id": "org"}}
    kafka.on_publish = lambda record: kafka.put(topics.event, "other", event, (), record.partition)
    (outcome,) = await carry_out(topics, organization())
    assert outcome.result == "pending"


async def test_a_repeated_command_has_the_outcome_of_the_first_time(topics: Topics, worker: WorkerStandIn) -> None:
    (first,) = await carry_out(topics, organization())
    (again,) = await carry_out(topics, organization())
    assert (again.result, again.event, again.ok) == ("repeated", first.event, True)


async def test_a_repeated_command_that_was_refused_the_first_time_is_not_ok(topics: Topics, worker: WorkerStandIn) -> None:
    await carry_out(topics, organization())
    removal = operator_command("user.remove", ORG, "id", user_id="nobody")
    await carry_out(topics, removal)
    (again,) = await carry_out(topics, removal)
    assert (again.result, again.code, again.ok) == ("repeated", "unknown_user", False)


async def test_a_repeated_command_has_no_event_if_the_event_is_gone(kafka: FakeKafka, topics: Topics) -> None:
    WorkerStandIn(kafka, topics, hides=lambda output: output.topic == topics.event)
    await carry_out(topics, organization())
    (again,) = await carry_out(topics, organization())
    assert (again.result, again.event, again.ok) == ("repeated", None, True)


async def test_outcomes_not_yet_read_when_the_offset_is_committed_are_waited_for(
    kafka: FakeKafka, topics: Topics, worker: WorkerStandIn
) -> None:
    kafka.records_per_poll = 1
    commands = [organization(), *(user(f"user-{number}") for number in range(5))]
    outcomes = await carry_out(topics, *commands)
    assert set(results(outcomes).values()) == {"done"}


async def test_each_command_of_many_has_its_own_outcome(topics: Topics, worker: WorkerStandIn) -> None:
    await carry_out(topics, organization(), user("ann"))
    removal = operator_command("user.remove", ORG, "remove", user_id="nobody")
    outcomes = await carry_out(topics, user("bob"), removal, user("ann"))
    assert results(outcomes) == {"put-bob": "done", "remove": "refused", "put-ann": "repeated"}


async def test_each_outcome_is_reported_as_it_arrives(topics: Topics, worker: WorkerStandIn) -> None:
    reported: list[CommandOutcome] = []
    administration = Administration("broker", topics, "rater", ORG, TIMEOUT_S)
    outcomes = await administration.carry_out([organization(), user("ann")], reported.append)
    assert reported == outcomes


async def test_without_a_worker_a_command_is_pending(kafka: FakeKafka, topics: Topics) -> None:
    administration = Administration("broker", topics, "rater", ORG, TIMEOUT_S)
    (outcome,) = await administration.carry_out([organization()], lambda _: None)
    assert (outcome.result, outcome.ok) == ("pending", False)
    assert administration.position == QueuePosition(partition_of(ORG, topics.account_partitions), 0, None)
    assert administration.position.commands_ahead is None


async def test_if_the_workers_are_behind_the_position_shows_how_far(kafka: FakeKafka, topics: Topics) -> None:
    partition = partition_of(ORG, topics.account_partitions)
    for number in range(4):
        kafka.put(topics.command, ORG, user(f"user-{number}"))
    kafka.committed = {TopicPartition(topics.command, partition): 1}
    administration = Administration("broker", topics, "rater", ORG, TIMEOUT_S)
    await administration.carry_out([organization()], lambda _: None)
    assert administration.position is not None
    assert administration.position.commands_ahead == 4


async def test_a_missing_topic_is_named_and_nothing_is_published(kafka: FakeKafka, topics: Topics) -> None:
    kafka.topics = {name: count for name, count in kafka.topics.items() if name != topics.event}
    with pytest.raises(TopicAdminError, match=topics.event):
        await carry_out(topics, organization())
    assert kafka.published(topics.command) == []
