"""The topics of the system: their names and settings as code, and what a cluster has of them.

`topics/topics.toml` is the one definition. `load_topics` reads it; the result's attributes are the physical
names (prefix included) that producers, consumers and tests use. `apply` creates what a cluster lacks and
`diff` says what differs; nothing here deletes or alters.
"""

from __future__ import annotations

import asyncio
import re
import time
import tomllib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from rater.kafka.connection import Brokers, client_options
from rater.resources import topics_file

_DAY_MS = 24 * 60 * 60 * 1000
_AGE = re.compile(r"([1-9][0-9]{0,4})d")
_PREFIX = re.compile(r"[A-Za-z0-9._-]{0,100}")
_CREATED_TIMEOUT_S = 30.0
_REQUEST_TIMEOUT_MS = 15_000
_REPLICAS_WANTED = 3
_AHEAD_MS_MAX = 60 * 60 * 1000
_COMPACTED_SEGMENT_BYTES = 128 * 1024 * 1024


class TopicsError(Exception):
    """The topics could not be read, created or compared; the message says which and why."""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic. `name` is physical; `schema` names a file in schemas/, None for an internal topic."""

    name: str
    description: str
    key: str
    partitions: int
    kept: str
    written_by: str
    owner: str
    schema: str | None
    max_message_bytes: int

    @property
    def configs(self) -> dict[str, str]:
        """Kafka's own settings that follow from the definition."""
        configs = {"max.message.bytes": str(self.max_message_bytes)}
        if self.kept == "compacted":
            configs["cleanup.policy"] = "compact"
            # Only full segments are compacted, so their size bounds how much stale data a reader of all must
            # pass.
            configs["segment.bytes"] = str(_COMPACTED_SEGMENT_BYTES)
            # A reader that was away for less than this still learns what was removed.
            configs["delete.retention.ms"] = str(_DAY_MS)
        else:
            configs["cleanup.policy"] = "delete"
            configs["retention.ms"] = str(_retention_ms(self.kept))
        if self.written_by == "rater":
            # Outputs carry the timestamp of their input, which one broker has let in already; another, whose
            # clock is behind, must not refuse it and stop the partition.
            configs["message.timestamp.after.max.ms"] = str(2**63 - 1)
        else:
            # A record's timestamp is the "now" of what it does: one of next year would make its partition forget the
            # calls it must know again.
            configs["message.timestamp.after.max.ms"] = str(_AHEAD_MS_MAX)
        return configs


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Physical names by what the topic is for; `definitions` holds everything else about them."""

    cdr: str
    dead_letter: str
    rated: str
    command: str
    event: str
    state: str
    ledger: str
    recharge_request: str
    notification: str
    directory: str
    plan: str
    rate: str
    changelog: str
    recharge_changelog: str
    timer_changelog: str
    notification_changelog: str
    account_partitions: int
    definitions: tuple[Topic, ...]

    def __getitem__(self, physical_name: str) -> Topic:
        for topic in self.definitions:
            if topic.name == physical_name:
                return topic
        raise KeyError(physical_name)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which a cluster differs from the definition."""

    topic: str
    what: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.what} is {self.found}, should be {self.wanted}"


class _Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    partitions: int


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    description: str
    key: str
    group: Literal["account", "catalog"]
    kept: str
    written_by: str
    owner: str
    max_message_bytes: int
    schema: str | None = None
    internal: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    groups: dict[str, _Group]
    topics: dict[str, _Entry]


def load_topics(prefix: str = "", account_partitions: int | None = None, file: Path | None = None) -> Topics:
    """Read the definition. `account_partitions` overrides the one count of all account topics.

    Raises TopicsError when the prefix or the file is not right.
    """
    if not _PREFIX.fullmatch(prefix):
        raise TopicsError(f"topic prefix {prefix!r}: only letters, digits, '.', '_' and '-', at most 100 of them")
    path = file or topics_file()
    try:
        content = msgspec.convert(tomllib.loads(path.read_text()), _File)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise TopicsError(f"{path}: {error}") from error
    partitions = {name: group.partitions for name, group in content.groups.items()}
    if account_partitions is not None:
        partitions["account"] = account_partitions
    for name, count in partitions.items():
        if count < 1:
            raise TopicsError(f"{path}: group {name} needs at least 1 partition, not {count}")
    definitions = {use: _topic(use, entry, prefix, partitions, path) for use, entry in content.topics.items()}
    try:
        return Topics(
            account_partitions=partitions["account"],
            definitions=tuple(definitions.values()),
            **{use: topic.name for use, topic in definitions.items()},
        )
    except TypeError as error:
        raise TopicsError(f"{path}: {error}") from error


async def apply(brokers: Brokers, topics: Topics, replication_factor: int | None = None) -> list[str]:
    """Create the topics the cluster lacks and return their names once every partition of all has a leader.

    Replicated three times where there are brokers enough, unless told otherwise. Raises TopicsError.
    """
    async with admin(brokers) as client:
        missing = [topic for topic in topics.definitions if topic.name not in await _partition_counts(client)]
        if missing:
            copies = replication_factor or await _replicas(client)
            await _create(client, missing, copies)
            await _wait_for_leaders(client, missing)
        return [topic.name for topic in missing]


async def diff(brokers: Brokers, topics: Topics) -> list[Difference]:
    """Return in what the cluster differs: missing topics, partition counts, settings. Raises TopicsError."""
    async with admin(brokers) as client:
        counts = await _partition_counts(client)
        present = [topic for topic in topics.definitions if topic.name in counts]
        configs = await _configs(client, present)
    return compare(topics, counts, configs)


def compare(topics: Topics, counts: Mapping[str, int], configs: Mapping[str, Mapping[str, str]]) -> list[Difference]:
    """In what a cluster differs that has `counts` partitions a topic, and those `configs` of the topics it has."""
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


def _topic(use: str, entry: _Entry, prefix: str, partitions: dict[str, int], path: Path) -> Topic:
    if entry.internal == (entry.schema is not None):
        raise TopicsError(f"{path}: topic {use} must be internal or have a schema, and not both")
    if entry.group not in partitions:
        raise TopicsError(f"{path}: topic {use} is of group {entry.group}, which is not defined")
    topic = Topic(
        name=prefix + entry.name,
        description=entry.description,
        key=entry.key,
        partitions=partitions[entry.group],
        kept=entry.kept,
        written_by=entry.written_by,
        owner=entry.owner,
        schema=entry.schema,
        max_message_bytes=entry.max_message_bytes,
    )
    if topic.kept != "compacted" and _retention_ms(topic.kept) is None:
        raise TopicsError(f"{path}: topic {use} is kept {topic.kept!r}: neither days ('7d'), forever nor compacted")
    return topic


def _retention_ms(kept: str) -> int | None:
    if kept == "forever":
        return -1
    days = _AGE.fullmatch(kept)
    return int(days[1]) * _DAY_MS if days else None


@asynccontextmanager
async def admin(brokers: Brokers) -> AsyncIterator[Any]:
    """An admin client. Whatever goes wrong with Kafka within the block is a `TopicsError`."""
    client = AIOKafkaAdminClient(**client_options(brokers), request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        await client.start()
        yield client
    except (KafkaError, OSError, TimeoutError) as error:
        raise TopicsError(f"Kafka at {brokers}: {type(error).__name__}: {error}") from error
    finally:
        await client.close()


async def _partition_counts(client: Any) -> dict[str, int]:
    return {topic["topic"]: len(topic["partitions"]) for topic in await client.describe_topics() if topic["error_code"] == 0}


async def _replicas(client: Any) -> int:
    cluster = await client.describe_cluster()
    return min(len(cluster["brokers"]), _REPLICAS_WANTED)


async def _create(client: Any, topics: Iterable[Topic], copies: int) -> None:
    # Two copies in sync, where there are three: a broker may fail without stopping writes or losing any.
    safety = {"min.insync.replicas": "2"} if copies >= _REPLICAS_WANTED else {}
    wanted = [NewTopic(topic.name, topic.partitions, copies, topic_configs=topic.configs | safety) for topic in topics]
    response = await client.create_topics(wanted)
    for name, code, message in response.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            raise TopicsError(f"could not create {name}: {message or for_code(code).__name__}")


async def _wait_for_leaders(client: Any, topics: Iterable[Topic]) -> None:
    """A created topic is not known to every broker at once; return when the one asked has it all."""
    deadline = time.monotonic() + _CREATED_TIMEOUT_S
    waiting = {topic.name: topic.partitions for topic in topics}
    while waiting:
        for topic in await client.describe_topics():
            leaders = sum(1 for partition in topic["partitions"] if partition["leader"] >= 0)
            if leaders == waiting.get(topic["topic"]):
                del waiting[topic["topic"]]
        if waiting and time.monotonic() > deadline:
            raise TopicsError(f"no leader {_CREATED_TIMEOUT_S:.0f} s after creation: {', '.join(waiting)}")
        await asyncio.sleep(0.05 if waiting else 0)


async def _configs(client: Any, topics: Iterable[Topic]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics]
    found: dict[str, dict[str, str]] = {}
    if not resources:
        return found
    for response in await client.describe_configs(resources):
        for code, message, _type, name, entries in response.resources:
            if code:
                raise TopicsError(f"could not read the settings of {name}: {message or for_code(code).__name__}")
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found
