"""What the topics say of one organization now: its state, its last events, its users and numbers.

Each look reads the organization's own partition alone; what is wanted the latest of is looked for from the end.
"""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from rater.kafka.clients import reader
from rater.kafka.connection import Brokers
from rater.kafka.partitioning import partition_of
from rater.kafka.topics import Topics

#: Offsets looked through first, from the end backwards; each further step takes four times as many.
_FIRST_LOOK = 2000
_POLL_MS = 200

Message = dict[str, Any]


async def account_state(brokers: Brokers, topics: Topics, org_id: str) -> Message | None:
    """The latest state, or None where the organization has none."""
    found = await _latest(brokers, topics.state, org_id, 1)
    return found[0] if found else None


async def last_events(brokers: Brokers, topics: Topics, org_id: str, count: int) -> list[Message]:
    """The last events the topic still has, oldest first."""
    return await _latest(brokers, topics.event, org_id, count)


async def directory(brokers: Brokers, topics: Topics, org_id: str, entry: Literal["user", "number"]) -> list[Message]:
    """The organization's users or numbers as they are now, by name."""
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
        step = _FIRST_LOOK
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
    """The organization's committed messages from `start` to before `end`."""
    key, found = org_id.encode(), []
    consumer.seek(tp, start)
    while await consumer.position(tp) < end:
        records: Iterable[Any] = (await consumer.getmany(tp, timeout_ms=_POLL_MS)).get(tp, ())
        found += [msgspec.json.decode(r.value) for r in records if r.key == key and r.offset < end and r.value]
    return found
