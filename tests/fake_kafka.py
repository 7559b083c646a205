"""Topics in memory, with stand-ins for aiokafka's clients as far as the tools use them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError

from rater.kafka.partitioning import partition_of


@dataclass(frozen=True, slots=True)
class FakeRecord:
    """A record as aiokafka gives it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Committed(NamedTuple):
    """A group's committed offset."""

    offset: int


@dataclass(slots=True)
class FakeKafka:
    """Topics, by their number of partitions.

    `on_publish` is called with each record that a client publishes. `records_per_poll` limits what one poll of a consumer
    returns. `committed`: offsets of the only group; None: there is none.
    """

    topics: Mapping[str, int]
    on_publish: Callable[[FakeRecord], object] = lambda _: None
    records_per_poll: int = 500
    logs: dict[TopicPartition, list[FakeRecord | None]] = field(default_factory=dict)
    begins: dict[TopicPartition, int] = field(default_factory=dict)
    committed: dict[TopicPartition, int] | None = None

    @classmethod
    def installed(cls, monkeypatch: pytest.MonkeyPatch, topics: Mapping[str, int]) -> FakeKafka:
        """Make the tools use this Kafka instead of a real one."""
        kafka = cls(topics)
        for module in ("rater.kafka.clients", "rater.accounts.administration"):
            for name, client in (
                ("AIOKafkaConsumer", FakeConsumer),
                ("AIOKafkaProducer", FakeProducer),
                ("AIOKafkaAdminClient", FakeAdmin),
            ):
                monkeypatch.setattr(f"{module}.{name}", lambda _made=client, **_: _made(kafka), raising=False)
        return kafka

    def log(self, tp: TopicPartition) -> list[FakeRecord | None]:
        return self.logs.setdefault(tp, [])

    def put(
        self,
        topic: str,
        key: str,
        value: Any,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
        timestamp_ms: int = 0,
    ) -> FakeRecord:
        """Write a record; `value` becomes JSON unless it is bytes."""
        if partition is None:
            partition = partition_of(key, self.topics[topic])
        log = self.log(TopicPartition(topic, partition))
        payload = value if isinstance(value, bytes) or value is None else msgspec.json.encode(value)
        record = FakeRecord(topic, partition, len(log), timestamp_ms, key.encode(), payload, tuple(headers))
        log.append(record)
        return record

    def mark(self, topic: str, partition: int) -> None:
        """Write the end of a transaction: an offset without a record."""
        self.log(TopicPartition(topic, partition)).append(None)

    def published(self, topic: str) -> list[FakeRecord]:
        return [record for tp, log in self.logs.items() if tp.topic == topic for record in log if record is not None]


class _Metadata:
    def __init__(self, kafka: FakeKafka) -> None:
        self._kafka = kafka

    async def fetch_all_metadata(self) -> _Metadata:
        return self

    def topics(self) -> set[str]:
        return set(self._kafka.topics)

    async def _wait_on_metadata(self, topic: str) -> set[int]:
        return set(range(self._kafka.topics[topic]))


class FakeConsumer:
    """Reads every record; all count as committed."""

    def __init__(self, kafka: FakeKafka) -> None:
        self._kafka = kafka
        self._client = _Metadata(kafka)
        self._positions: dict[TopicPartition, int] = {}

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        self._positions = {tp: self._positions.get(tp, 0) for tp in partitions}

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._positions[tp] = offset

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        self._positions |= await self.beginning_offsets(partitions)

    async def position(self, tp: TopicPartition) -> int:
        return self._positions[tp]

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self._kafka.begins.get(tp, 0) for tp in partitions}

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: len(self._kafka.log(tp)) for tp in partitions}

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[FakeRecord]]:
        del timeout_ms
        found: dict[TopicPartition, list[FakeRecord]] = {}
        left = self._kafka.records_per_poll
        for tp in partitions or list(self._positions):
            log, at = self._kafka.log(tp), self._positions[tp]
            while at < len(log) and (left or log[at] is None):
                if (record := log[at]) is not None:
                    found.setdefault(tp, []).append(record)
                    left -= 1
                at += 1
            self._positions[tp] = at
        await asyncio.sleep(0 if found else 0.001)
        return found


class FakeProducer:
    """Acknowledges every record at once."""

    def __init__(self, kafka: FakeKafka) -> None:
        self._kafka = kafka
        self.client = _Metadata(kafka)

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def flush(self) -> None: ...

    async def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int = 0,
    ) -> asyncio.Future[FakeRecord]:
        record = self._kafka.put(topic, key.decode(), value, headers, partition, timestamp_ms)
        self._kafka.on_publish(record)
        acknowledged: asyncio.Future[FakeRecord] = asyncio.get_running_loop().create_future()
        acknowledged.set_result(record)
        return acknowledged


class FakeAdmin:
    """Knows what the group has committed."""

    def __init__(self, kafka: FakeKafka) -> None:
        self._kafka = kafka

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def list_consumer_group_offsets(
        self, group: str, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, Committed]:
        del group
        if self._kafka.committed is None:
            raise GroupCoordinatorNotAvailableError
        return {tp: Committed(self._kafka.committed.get(tp, -1)) for tp in partitions}
