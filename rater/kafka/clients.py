"""Kafka clients for tools: publish rows, read committed records, ask for the lag. The worker's own clients are in `engine`."""

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
from rater.kafka.topic_admin import TopicAdminError
from rater.kafka.topics import Topics

#: Longer than a worker takes from the first write of a batch to its commit.
_QUIET_S = 0.5
_QUIET_TIMEOUT_S = 30.0


read_any_header_name()


class BusyError(Exception):
    """The topics were written to all the time, so there was no moment at which to read them consistently."""


@contextlib.asynccontextmanager
async def producer(brokers: Brokers) -> AsyncIterator[AIOKafkaProducer]:
    """An idempotent producer with Kafka's default partitioner. Raises KafkaError if it can't connect."""
    made = AIOKafkaProducer(**client_options(brokers), enable_idempotence=True, linger_ms=5, max_request_size=12_000_000)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


async def publish_rows(brokers: Brokers, topic: str, rows: Iterable[tuple[str, dict[str, Any]]]) -> list[LogRecord]:
    """Publish messages by key. Returns the published records, once all are acknowledged.

    Raises TopicAdminError if the topic is missing, KafkaError if Kafka fails; some rows may be published by then.
    """
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
    """A consumer of all partitions of the topics, at their beginnings, that sees committed records only.

    Raises TopicAdminError if a topic is missing, KafkaError if it can't connect.
    """
    consumer = AIOKafkaConsumer(
        **client_options(brokers), isolation_level="read_committed", enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        await consumer.start()
        await require_topics(consumer._client, topics)
        partitions = []
        for topic in topics:
            numbers = await consumer._client._wait_on_metadata(topic)  # `partitions_for_topic` doesn't ask the broker
            partitions += [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        yield consumer
    finally:
        await consumer.stop()


async def read_all(brokers: Brokers, topics: Sequence[str]) -> tuple[list[LogRecord], bool]:
    """Read the topics whole. Returns the records, in order within each partition, and whether retention has removed older ones.

    Topics that are written in one transaction agree with each other only while no transaction is open, so it waits for a pause
    in writing. Raises BusyError if there is no pause within 30 s, TopicAdminError if a topic is missing, KafkaError.
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
    """Raises TopicAdminError if a topic is missing. aiokafka would wait for it, with a warning every 0.1 s."""
    known = (await client.fetch_all_metadata()).topics()
    missing = [topic for topic in topics if topic not in known]
    if missing:
        raise TopicAdminError(f"there is no topic {', '.join(missing)}; create it with `rater topics apply`")


async def lag(brokers: Brokers, topics: Topics, app_id: str) -> int:
    """Number of input records (calls and commands) that the rating agent has not committed yet."""
    inputs = [TopicPartition(t, p) for t in (topics.cdr, topics.command) for p in range(topics.account_partitions)]
    consumer = AIOKafkaConsumer(**client_options(brokers))
    admin = AIOKafkaAdminClient(**client_options(brokers))
    await consumer.start()
    await admin.start()
    try:
        ends = await consumer.end_offsets(inputs)
        try:
            held = await admin.list_consumer_group_offsets(app_id, partitions=inputs)
        except GroupCoordinatorNotAvailableError:  # the group has never been used
            held = {}
        return sum(end - max(0, held[tp].offset if tp in held else 0) for tp, end in ends.items())
    finally:
        await admin.close()
        await consumer.stop()


async def _quiet_ends(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    """End offsets at a moment when nothing has been written for `_QUIET_S`. Raises BusyError."""
    deadline_s = time.monotonic() + _QUIET_TIMEOUT_S
    ends = await consumer.end_offsets(partitions)
    while True:
        await asyncio.sleep(_QUIET_S)
        later = await consumer.end_offsets(partitions)
        if later == ends:
            return dict(ends)
        if time.monotonic() > deadline_s:
            raise BusyError(f"for {_QUIET_TIMEOUT_S:.0f} s, writes to the topics never paused for {_QUIET_S} s")
        ends = later
