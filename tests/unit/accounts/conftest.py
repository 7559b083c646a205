"""A Kafka in memory that has all topics."""

import pytest

from rater.kafka.topics import Topics, load_topics
from tests.fake_kafka import FakeKafka


@pytest.fixture
def topics() -> Topics:
    return load_topics()


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch, topics: Topics) -> FakeKafka:
    return FakeKafka.installed(monkeypatch, {topic.name: topic.partitions for topic in topics.definitions})
