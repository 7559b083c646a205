"""Look-ups return the latest records of an organization, from its own partition."""

from typing import Any

import pytest
from aiokafka import TopicPartition

from rater.accounts import account_overview, account_state, directory, last_events
from rater.accounts.lookup import _FIRST_STEP
from rater.kafka.partitioning import partition_of
from rater.kafka.topic_admin import TopicAdminError
from rater.kafka.topics import Topics
from tests.fake_kafka import FakeKafka

ORG = "contoso"


def neighbour(topics: Topics) -> str:
    """Another organization in the same partition."""
    count = topics.account_partitions
    return next(name for name in map(str, range(1000)) if partition_of(name, count) == partition_of(ORG, count))


def event(seq: int) -> dict[str, Any]:
    return {"seq": seq, "type": "funds.added"}


def user(user_id: str, change: str = "put") -> dict[str, Any]:
    return {"entry": "user", "user_id": user_id, "change": change}


async def test_the_state_is_the_latest_of_the_organization(kafka: FakeKafka, topics: Topics) -> None:
    kafka.put(topics.state, ORG, {"balance": "1"})
    kafka.put(topics.state, ORG, {"balance": "2"})
    kafka.put(topics.state, neighbour(topics), {"balance": "3"})
    assert await account_state("broker", topics, ORG) == {"balance": "2"}


async def test_an_organization_without_a_state_has_none(kafka: FakeKafka, topics: Topics) -> None:
    kafka.put(topics.state, neighbour(topics), {"balance": "3"})
    assert await account_state("broker", topics, ORG) is None


async def test_only_the_organizations_own_partition_is_read(kafka: FakeKafka, topics: Topics) -> None:
    own = partition_of(ORG, topics.account_partitions)
    kafka.put(topics.state, ORG, {"balance": "1"}, partition=(own + 1) % topics.account_partitions)
    assert await account_state("broker", topics, ORG) is None


async def test_the_last_events_are_listed_oldest_first(kafka: FakeKafka, topics: Topics) -> None:
    for seq in (1, 2, 3):
        kafka.put(topics.event, ORG, event(seq))
    assert [found["seq"] for found in await last_events("broker", topics, ORG, 2)] == [2, 3]


async def test_if_there_are_fewer_events_than_asked_for_all_are_listed(kafka: FakeKafka, topics: Topics) -> None:
    kafka.put(topics.event, ORG, event(1))
    assert [found["seq"] for found in await last_events("broker", topics, ORG, 9)] == [1]


async def test_no_events_are_listed_if_none_are_asked_for(kafka: FakeKafka, topics: Topics) -> None:
    kafka.put(topics.event, ORG, event(1))
    assert await last_events("broker", topics, ORG, 0) == []


async def test_events_far_from_the_end_are_found(kafka: FakeKafka, topics: Topics) -> None:
    kafka.put(topics.event, ORG, event(1))
    for seq in range(_FIRST_STEP + 100):
        kafka.put(topics.event, neighbour(topics), event(seq))
    kafka.put(topics.event, ORG, event(2))
    assert [found["seq"] for found in await last_events("broker", topics, ORG, 2)] == [1, 2]


async def test_events_removed_by_retention_are_not_waited_for(kafka: FakeKafka, topics: Topics) -> None:
    for seq in (1, 2, 3):
        kafka.put(topics.event, ORG, event(seq))
    kafka.begins[TopicPartition(topics.event, partition_of(ORG, topics.account_partitions))] = 2
    assert [found["seq"] for found in await last_events("broker", topics, ORG, 3)] == [3]


async def test_the_end_of_a_transaction_is_not_an_event(kafka: FakeKafka, topics: Topics) -> None:
    kafka.put(topics.event, ORG, event(1))
    kafka.mark(topics.event, partition_of(ORG, topics.account_partitions))
    assert [found["seq"] for found in await last_events("broker", topics, ORG, 3)] == [1]


async def test_an_overview_has_state_and_events(kafka: FakeKafka, topics: Topics) -> None:
    kafka.put(topics.state, ORG, {"balance": "1"})
    kafka.put(topics.event, ORG, event(1))
    assert await account_overview("broker", topics, ORG, 5) == ({"balance": "1"}, [event(1)])


async def test_the_directory_lists_the_current_users_by_id(kafka: FakeKafka, topics: Topics) -> None:
    for entry in (user("bob"), user("ann"), user("cid"), user("bob", "remove")):
        kafka.put(topics.directory, ORG, entry)
    kafka.put(topics.directory, neighbour(topics), user("dan"))
    assert [found["user_id"] for found in await directory("broker", topics, ORG, "user")] == ["ann", "cid"]


async def test_the_directory_tells_users_from_numbers(kafka: FakeKafka, topics: Topics) -> None:
    kafka.put(topics.directory, ORG, user("ann"))
    kafka.put(topics.directory, ORG, {"entry": "number", "number": "+1", "change": "put"})
    assert [found["number"] for found in await directory("broker", topics, ORG, "number")] == ["+1"]


async def test_a_missing_topic_is_named(kafka: FakeKafka, topics: Topics) -> None:
    kafka.topics = {}
    with pytest.raises(TopicAdminError, match=rf"there is no topic {topics.state}; create it with `rater topics apply`"):
        await account_state("broker", topics, ORG)
