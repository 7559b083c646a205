"""Looks up one organization in the topics: its state, last events, users and numbers.

Reads only the organization's own partition. State and events are searched from the end backwards.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from rater.kafka.clients import reader
from rater.kafka.connection import Brokers
from rater.kafka.partitioning import partition_of
from rater.kafka.topics import Topics

#: Number of offsets in the first step from the end; each further step is four times as large.
_FIRST_STEP = 2000
_POLL_MS = 200

Message = dict[str, Any]


class AccountOverview(NamedTuple):
    """An organization's latest state (None: it has none) and its last events, oldest first."""

    state: Message | None
    events: list[Message]


async def account_overview(brokers: Brokers, topics: Topics, org_id: str, events_max: int) -> AccountOverview:
    """Look up state and last events. Raises TopicAdminError if a topic is missing, KafkaError if Kafka fails."""
    state, events = await asyncio.gather(
        account_state(brokers, topics, org_id), last_events(brokers, topics, org_id, events_max)
    )
    return AccountOverview(state, events)


async def account_state(brokers: Brokers, topics: Topics, org_id: str) -> Message | None:
    """The latest state; None if the organization has none. Raises as `account_overview`."""
    found = await _latest(brokers, topics.state, org_id, 1)
    return found[0] if found else None


async def last_events(brokers: Brokers, topics: Topics, org_id: str, count: int) -> list[Message]:
    """Up to `count` of the last events the topic still has, oldest first. Raises as `account_overview`."""
    return await _latest(brokers, topics.event, org_id, count)


async def directory(brokers: Brokers, topics: Topics, org_id: str, entry: Literal["user", "number"]) -> list[Message]:
    """The organization's current users or numbers, sorted by user id or number. Raises as `account_overview`."""
    name = "user_id" if entry == "user" else "number"
    latest: dict[str, Message] = {}
    async with reader(brokers, [topics.directory]) as consumer:
        tp = _partition(consumer, topics.directory, org_id)
        consumer.assign([tp])
        begin, end = await _bounds(consumer, tp)
        for message in await _between(consumer, tp, org_id, begin, end):
            if message["entry"] != entry:
                continue
            if message["change"] == "put":
                latest[message[name]] = message
            else:
                latest.pop(message[name], None)
    return [latest[key] for key in sorted(latest)]


async def _latest(brokers: Brokers, topic: str, org_id: str, count: int) -> list[Message]:
    found: list[Message] = []
    async with reader(brokers, [topic]) as consumer:
        tp = _partition(consumer, topic, org_id)
        consumer.assign([tp])
        begin, end = await _bounds(consumer, tp)
        step = _FIRST_STEP
        while end > begin and len(found) < count:
            start = max(begin, end - step)
            found = [*await _between(consumer, tp, org_id, start, end), *found]
            end, step = start, step * 4
    return found[-count:] if count else []


def _partition(consumer: AIOKafkaConsumer, topic: str, org_id: str) -> TopicPartition:
    return TopicPartition(topic, partition_of(org_id, len(consumer.assignment())))


async def _bounds(consumer: AIOKafkaConsumer, tp: TopicPartition) -> tuple[int, int]:
    return (await consumer.beginning_offsets([tp]))[tp], (await consumer.end_offsets([tp]))[tp]


async def _between(consumer: AIOKafkaConsumer, tp: TopicPartition, org_id: str, start: int, end: int) -> list[Message]:
    """The organization's committed messages from offset `start` up to, but not including, `end`."""
    key, found = org_id.encode(), []
    consumer.seek(tp, start)
    while await consumer.position(tp) < end:
        records: Iterable[Any] = (await consumer.getmany(tp, timeout_ms=_POLL_MS)).get(tp, ())
        found += [msgspec.json.decode(r.value) for r in records if r.key == key and r.offset < end and r.value]
    return found
