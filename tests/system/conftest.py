"""One real Kafka for all system tests, and separate topics for each test."""

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
    """Create the topics under a unique prefix: `make_topics(account_partitions=…)`. They are deleted after the test."""
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
    """The topics, newly created for this test only."""
    return make_topics()


async def _delete(bootstrap: str, topics: Topics) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic.name for topic in topics.definitions])
    finally:
        await admin.close()


def _in_own_loop(work: Coroutine[Any, Any, object]) -> None:
    """Run `work` in an event loop of another thread, because the test's own loop may be running."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()
