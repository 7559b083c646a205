"""Creates the topics on a cluster and compares them with their definitions. Never deletes or changes a topic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from rater.kafka.connection import Brokers, client_options
from rater.kafka.topics import Topic, Topics

_CREATED_TIMEOUT_S = 30.0
_REQUEST_TIMEOUT_MS = 15_000
_REPLICAS_WANTED = 3


class TopicAdminError(Exception):
    """A topic is missing, or the cluster could not be asked or did not do what it was asked; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between a cluster and the definition. `what`: "topic", "partitions" or the name of a setting."""

    topic: str
    what: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.what} is {self.found}, should be {self.wanted}"


async def apply(brokers: Brokers, topics: Topics, replication_factor: int | None = None) -> list[str]:
    """Create the missing topics. Returns their names once each of their partitions has a leader.

    `replication_factor`: None means three, or as many as there are brokers. Raises TopicAdminError.
    """
    async with admin_client(brokers) as client:
        missing = [topic for topic in topics.definitions if topic.name not in await _partition_counts(client)]
        if missing:
            copies = replication_factor or await _replicas(client)
            await _create(client, missing, copies)
            await _wait_for_leaders(client, missing)
        return [topic.name for topic in missing]


async def diff(brokers: Brokers, topics: Topics) -> list[Difference]:
    """Compare the cluster with the definitions: missing topics, partition counts, settings. Raises TopicAdminError."""
    async with admin_client(brokers) as client:
        counts = await _partition_counts(client)
        present = [topic for topic in topics.definitions if topic.name in counts]
        configs = await _configs(client, present)
    return compare(topics, counts, configs)


def compare(topics: Topics, counts: Mapping[str, int], configs: Mapping[str, Mapping[str, str]]) -> list[Difference]:
    """Compare what a cluster has with the definitions. `counts`: partitions by topic; `configs`: settings by topic."""
    differences: list[Difference] = []
    for topic in topics.definitions:
        if topic.name not in counts:
            differences.append(Difference(topic.name, "topic", "present", "missing"))
            continue
        if counts[topic.name] != topic.partitions:
            found = str(counts[topic.name])
            differences.append(Difference(topic.name, "partitions", str(topic.partitions), found))
        for name, wanted in topic.configs.items():
            found = configs.get(topic.name, {}).get(name, "unknown to the broker")
            if found != wanted:
                differences.append(Difference(topic.name, name, wanted, found))
    return differences


@asynccontextmanager
async def admin_client(brokers: Brokers) -> AsyncIterator[Any]:
    """Open an admin client. Turns every Kafka or network error in the block into a `TopicAdminError`."""
    client = AIOKafkaAdminClient(**client_options(brokers), request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        await client.start()
        yield client
    except (KafkaError, OSError, TimeoutError) as error:
        raise TopicAdminError(f"Kafka at {brokers}: {type(error).__name__}: {error}") from error
    finally:
        await client.close()


async def _partition_counts(client: Any) -> dict[str, int]:
    return {topic["topic"]: len(topic["partitions"]) for topic in await client.describe_topics() if topic["error_code"] == 0}


async def _replicas(client: Any) -> int:
    cluster = await client.describe_cluster()
    return min(len(cluster["brokers"]), _REPLICAS_WANTED)


async def _create(client: Any, topics: Iterable[Topic], copies: int) -> None:
    # With three copies, two must be in sync: one broker can then fail without stopping or losing writes.
    safety = {"min.insync.replicas": "2"} if copies >= _REPLICAS_WANTED else {}
    wanted = [NewTopic(topic.name, topic.partitions, copies, topic_configs=topic.configs | safety) for topic in topics]
    response = await client.create_topics(wanted)
    for name, code, message in response.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            raise TopicAdminError(f"could not create {name}: {message or for_code(code).__name__}")


async def _wait_for_leaders(client: Any, topics: Iterable[Topic]) -> None:
    """Wait until the connected broker knows a leader for every partition: brokers learn of a new topic at different times."""
    deadline = time.monotonic() + _CREATED_TIMEOUT_S
    waiting = {topic.name: topic.partitions for topic in topics}
    while waiting:
        for topic in await client.describe_topics():
            leaders = sum(1 for partition in topic["partitions"] if partition["leader"] >= 0)
            if leaders == waiting.get(topic["topic"]):
                del waiting[topic["topic"]]
        if waiting and time.monotonic() > deadline:
            raise TopicAdminError(f"no leader {_CREATED_TIMEOUT_S:.0f} s after creation: {', '.join(waiting)}")
        await asyncio.sleep(0.05 if waiting else 0)


async def _configs(client: Any, topics: Iterable[Topic]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics]
    found: dict[str, dict[str, str]] = {}
    if not resources:
        return found
    for response in await client.describe_configs(resources):
        for code, message, _type, name, entries in response.resources:
            if code:
                raise TopicAdminError(f"could not read the settings of {name}: {message or for_code(code).__name__}")
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found
