"""One real Kafka for all system tests, and topics of its own for each of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from rater.embedded import EmbeddedKafka
from rater.kafka.topic_admin import apply
from rater.kafka.topics import Topics, load_topics


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture
def make_topics(kafka: EmbeddedKafka) -> Iterator[Callable[..., Topics]]:
    """Create the topics under a prefix nobody else has: `make_topics(account_partitions=…)`."""
    made: list[Topics] = []

    def make(account_partitions: int | None = None) -> Topics:
        topics = load_topics(f"t{uuid.uuid4().hex[:10]}.", account_partitions)
        _in_own_loop(apply(kafka.bootstrap, topics))
        made.append(topics)
        return topics

    yield make
    for topics in made:
        _in_own_loop(_delete(kafka.bootstrap, topics))


@pytest.fixture
def topics(make_topics: Callable[..., Topics]) -> Topics:
    """The topics, freshly created for this test alone."""
    return make_topics()


async def _delete(bootstrap: str, topics: Topics) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic.name for topic in topics.definitions])
    finally:
        await admin.close()


def _in_own_loop(work: Coroutine[Any, Any, object]) -> None:
    """Run it in a thread, out of the way of the test's own event loop."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()
