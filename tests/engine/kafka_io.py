"""Small Kafka helpers for the engine's tests: create topics, fill them, and read what is committed."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError

INPUTS = ("commands", "calls")
OUTPUTS = ("rated", "states")


async def make_topics(
    bootstrap: str, prefix: str, partitions: int, configs: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Create the toy worker's topics."""
    given = {"changelog": {"cleanup.policy": "compact"}, **(configs or {})}
    names = {prefix + name: given.get(name, {}) for name in (*INPUTS, *OUTPUTS, "changelog")}
    await create(bootstrap, list(names), partitions, names)


async def create(
    bootstrap: str, names: Sequence[str], partitions: int, configs: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Create topics. Returns when the broker knows all of them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics(
            # Records of tests carry timestamps of long ago, which a broker would delete after some minutes.
            [
                NewTopic(name, partitions, 1, topic_configs={"retention.ms": "-1", **(configs or {}).get(name, {})})
                for name in names
            ]
        )
        while True:
            described = await admin.describe_topics(list(names))
            if all(not topic["error_code"] and len(topic["partitions"]) == partitions for topic in described):
                return
            await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def fill(
    bootstrap: str, topic: str, partition: int, records: Iterable[tuple[bytes | None, bytes | None, int]], **options: Any
) -> None:
    """Send records (key, value, timestamp in ms) to one partition, in order."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, compression_type="lz4", max_batch_size=500_000, enable_idempotence=True, **options
    )
    await producer.start()
    try:
        batch = producer.create_batch()
        sends = []
        for key, value, timestamp_ms in records:
            while batch.append(timestamp=timestamp_ms, key=key, value=value) is None:
                sends.append(await producer.send_batch(batch, topic, partition=partition))
                batch = producer.create_batch()
        sends.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*sends)
    finally:
        await producer.stop()


async def read_all(bootstrap: str, topics: Sequence[str], partitions: int, level: str = "read_committed") -> list[Any]:
    """All records of `topics` up to their present ends, sorted by topic, partition and offset."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level=level,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    try:
        tps = [TopicPartition(topic, number) for topic in topics for number in range(partitions)]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        found: list[Any] = []
        while True:
            for records in (await consumer.getmany(timeout_ms=50)).values():
                found += records
            if all([await consumer.position(tp) >= end for tp, end in ends.items()]):
                return sorted(found, key=lambda r: (r.topic, r.partition, r.offset))
    finally:
        await consumer.stop()


async def committed(bootstrap: str, group_id: str) -> dict[TopicPartition, int]:
    """The group's committed offsets; empty if it has none."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(group_id)
        return {tp: held.offset for tp, held in found.items()}
    except GroupCoordinatorNotAvailableError:  # the first group of all: the broker is still creating its offsets topic
        return {}
    finally:
        await admin.close()
