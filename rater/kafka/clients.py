"""Small ways in and out of Kafka for tools: publish rows, read what is committed. The worker has its own, in `engine`."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from rater.kafka.connection import Brokers, client_options
from rater.kafka.header_names import read_any_header_name
from rater.kafka.log import LogRecord, as_log_record
from rater.kafka.topics import Topics, TopicsError

#: Longer than a batch of the worker takes from its first record written to its commit.
_QUIET_S = 0.5
_QUIET_TIMEOUT_S = 30.0


read_any_header_name()


class BusyError(Exception):
    """There was no instant at which nothing was being written."""


@contextlib.asynccontextmanager
async def producer(brokers: Brokers) -> AsyncIterator[AIOKafkaProducer]:
    """An idempotent producer with Kafka's default partitioner."""
    made = AIOKafkaProducer(**client_options(brokers), enable_idempotence=True, linger_ms=5, max_request_size=12_000_000)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def publish_rows(brokers: Brokers, topic: str, rows: Iterable[tuple[str, dict[str, Any]]]) -> list[LogRecord]:
    """Publish keyed messages, each acknowledged; gives what was published."""
    sent = []
    async with producer(brokers) as out:
        await require_topics(out.client, [topic])
        acknowledgements = []
        for key, message in rows:
            record = LogRecord(topic, time.time_ns() // 1_000_000, key.encode(), msgspec.json.encode(message))
            acknowledgements.append(await out.send(topic, record.value, key=record.key, timestamp_ms=record.timestamp))
            sent.append(record)
        await out.flush()
        for acknowledgement in acknowledgements:
            await acknowledgement
    return sent


@contextlib.asynccontextmanager
async def reader(brokers: Brokers, topics: Sequence[str]) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of all partitions of the topics, from their beginnings, of committed records only."""
    consumer = AIOKafkaConsumer(
        **client_options(brokers), isolation_level="read_committed", enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        await consumer.start()
        await require_topics(consumer._client, topics)
        partitions = []
        for topic in topics:
            numbers = await consumer._client._wait_on_metadata(topic)  # `partitions_for_topic` knows only what it was asked for
            partitions += [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        yield consumer
    finally:
        await consumer.stop()


async def read_all(brokers: Brokers, topics: Sequence[str]) -> tuple[list[LogRecord], bool]:
    """Everything in the topics, each partition in its order, and whether retention has taken what came before.

    Topics written in one transaction agree only as of an instant at which none was under way: it waits for such a
    one. Raises `BusyError` where there is none for long.
    """
    async with reader(brokers, topics) as consumer:
        partitions = list(consumer.assignment())
        ends = await _quiet_ends(consumer, partitions)
        truncated = any(begin > 0 for begin in (await consumer.beginning_offsets(partitions)).values())
        found = []
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                found += [as_log_record(record) for record in records if record.offset < ends[tp]]
        return found, truncated


async def require_topics(client: Any, topics: Sequence[str]) -> None:
    """Raise `TopicsError` at once where topics are missing: aiokafka would wait for them, a warning every 0.1 s."""
    known = (await client.fetch_all_metadata()).topics()
    missing = [topic for topic in topics if topic not in known]
    if missing:
        raise TopicsError(f"there is no topic {', '.join(missing)}; `rater topics apply` makes them")


async def lag(brokers: Brokers, topics: Topics, app_id: str) -> int:
    """Input records that are not committed yet."""
    inputs = [TopicPartition(t, p) for t in (topics.cdr, topics.command) for p in range(topics.account_partitions)]
    consumer = AIOKafkaConsumer(**client_options(brokers))
    admin = AIOKafkaAdminClient(**client_options(brokers))
    await consumer.start()
    await admin.start()
    try:
        ends = await consumer.end_offsets(inputs)
        try:
            held = await admin.list_consumer_group_offsets(app_id, partitions=inputs)
        except GroupCoordinatorNotAvailableError:  # no group has ever been here
            held = {}
        return sum(end - max(0, held[tp].offset if tp in held else 0) for tp, end in ends.items())
    finally:
        await admin.close()
        await consumer.stop()


async def _quiet_ends(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    deadline_s = time.monotonic() + _QUIET_TIMEOUT_S
    ends = await consumer.end_offsets(partitions)
    while True:
        await asyncio.sleep(_QUIET_S)
        later = await consumer.end_offsets(partitions)
        if later == ends:
            return dict(ends)
        if time.monotonic() > deadline_s:
            raise BusyError(f"the topics have been written to without a pause of {_QUIET_S} s for {_QUIET_TIMEOUT_S:.0f} s")
        ends = later
