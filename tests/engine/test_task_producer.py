"""A task's transactional producer on a real broker."""

from collections.abc import Awaitable, Callable

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from rater.bootstrap import engine_settings
from rater.engine.aiokafka_broker import AiokafkaBroker, AiokafkaTaskProducer
from rater.settings import Settings
from tests.engine.kafka_io import make_topics


async def test_a_fenced_producer_says_so_at_every_further_step(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings]
) -> None:
    await make_topics(bootstrap, prefix, 1)
    topic = f"{prefix}rated"
    kafka = AiokafkaBroker(engine_settings(settings_of()))

    async def send(producer: AiokafkaTaskProducer) -> None:
        batch = producer.create_batch()
        batch.add(1, b"k", b"v", [])
        await (await producer.send_batch(batch, topic, 0))

    older = await kafka.open_producer(f"{prefix}id")
    newer = await kafka.open_producer(f"{prefix}id")
    try:
        await older.begin()
        offsets = {TopicPartition(topic, 0): OffsetAndMetadata(1, "")}
        steps: list[Awaitable[object]] = [
            send(older),
            send(older),
            older.send_offsets(offsets, "group"),
            older.commit(),
            older.begin(),
        ]
        for step in steps:
            with pytest.raises(ProducerFenced):
                await step
        await newer.begin()
        await send(newer)
        await newer.commit()
    finally:
        await older.close()
        await newer.close()
