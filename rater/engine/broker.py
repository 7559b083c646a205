"""What a task asks of the brokers. `aiokafka_broker` answers with aiokafka; a test can put a broker of its own in its place.

Every call is bounded by the broker timeout and raises TimeoutError after it.

The fence. `open_producer` returns when InitProducerId has been answered: by then every older producer of the same transactional
id is fenced, and its open transaction has been ended. Only what is read after that can be trusted.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Protocol

from aiokafka import TopicPartition

from rater.engine.output import RecordBatch

__all__ = ["Broker", "ChangelogReader", "TaskProducer", "TopicPartition"]


class TaskProducer(Protocol):
    """A transactional producer of one task."""

    async def begin(self) -> None: ...

    def create_batch(self) -> RecordBatch: ...

    async def send_batch(self, batch: RecordBatch, topic: str, partition: int) -> "asyncio.Future[Any]": ...

    async def send_offsets(self, offsets: Mapping[TopicPartition, int], group_id: str) -> None: ...

    async def commit(self) -> None: ...

    async def abort(self) -> None: ...

    async def close(self) -> None:
        """Drop the producer, whatever it is doing; never raises, never takes long."""


class ChangelogReader(Protocol):
    """One changelog partition, read committed."""

    async def bounds(self) -> tuple[int, int]:
        """First offset, and the offset after the last one that can be read (the last stable offset)."""

    def read(self, start: int, end: int) -> AsyncIterator[tuple[Sequence[Any], int]]:
        """Records from `start` on, in portions, each with the position after it, until that reaches `end`."""


class Broker(Protocol):
    """The brokers, as one task or the engine sees them."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def partition_counts(self, topics: Collection[str]) -> dict[str, int]:
        """Number of partitions of each topic. Raises TopicsError if one is missing or can't be read."""

    async def open_producer(self, transactional_id: str) -> TaskProducer: ...

    async def committed(self, group_id: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Committed offsets; a partition without one is omitted."""

    async def bounds(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """First offset and last stable offset of each partition."""

    async def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Last stable offset of each partition."""

    def changelog(self, partition: TopicPartition) -> Any:
        """Async context manager of a ChangelogReader."""
