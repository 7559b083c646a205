"""Implements the engine's `Broker` with aiokafka."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupLoadInProgressError, IllegalOperation, KafkaError, UnknownTopicOrPartitionError, for_code
from aiokafka.producer.message_accumulator import BatchBuilder

from rater.engine.errors import BrokerNotReadyError, TopicsError
from rater.engine.output import RecordBatch
from rater.engine.settings import EngineSettings
from rater.kafka.connection import client_options as connection_options
from rater.kafka.connection import let_go
from rater.kafka.header_names import read_any_header_name

__all__ = ["AiokafkaBroker", "AiokafkaChangelogReader", "AiokafkaTaskProducer", "client_options"]

T = TypeVar("T")

_STEPS_OF_A_TRANSACTION = 4
_READ_WAIT_MS = 20
_METADATA_AGE_MS = 60_000
_RETRY_S = 0.1
_RETRY_BACKOFF_MS = 20  # mostly for a broker that is still ending the last transaction, which takes a few ms

read_any_header_name()


def client_options(settings: EngineSettings) -> dict[str, Any]:
    """aiokafka's options for every client of the engine."""
    return {**connection_options(settings.brokers), "metadata_max_age_ms": _METADATA_AGE_MS}


class AiokafkaBroker:
    """Implements `Broker`. Start it before use. All tasks of a worker share one."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._timeout_s = settings.broker_timeout_ms / 1000
        self._admin: Any = None
        self._offsets: Any = None

    async def start(self) -> None:
        """Connect. Raises a KafkaError, an OSError or TimeoutError if no broker can be reached."""
        options = client_options(self._settings)
        self._admin = AIOKafkaAdminClient(**options, request_timeout_ms=self._settings.broker_timeout_ms)
        self._offsets = AIOKafkaConsumer(
            **options,
            enable_auto_commit=False,
            isolation_level="read_committed",
            request_timeout_ms=self._settings.broker_timeout_ms,
        )
        async with asyncio.timeout(self._timeout_s):
            await self._admin.start()
            await self._offsets.start()

    async def stop(self) -> None:
        """Close the connections. Never raises."""
        stops = [
            *([self._admin.close()] if self._admin is not None else []),
            *([self._offsets.stop()] if self._offsets is not None else []),
        ]
        await asyncio.gather(*map(let_go, stops))

    async def partition_counts(self, topics: Collection[str]) -> dict[str, int]:
        """Number of partitions of each topic. Raises TopicsError if topics are missing (it names all) or one can't be used."""
        async with asyncio.timeout(self._timeout_s):
            described = await _until_answered(lambda: self._admin.describe_topics(list(topics)))
        errors = {topic["topic"]: for_code(topic["error_code"]) for topic in described if topic["error_code"]}
        missing = sorted(topic for topic, error in errors.items() if error is UnknownTopicOrPartitionError)
        if missing:
            raise TopicsError(f"there is no topic {', '.join(missing)}; `rater topics apply` creates missing topics")
        for topic, error in errors.items():
            raise TopicsError(f"topic {topic} can't be used: {error.__name__} ({error.description})")
        return {topic["topic"]: len(topic["partitions"]) for topic in described}

    async def open_producer(self, transactional_id: str) -> "AiokafkaTaskProducer":
        """A producer that has fenced every older one of the same transactional id."""
        settings = self._settings
        producer = AIOKafkaProducer(
            **client_options(settings),
            transactional_id=transactional_id,
            transaction_timeout_ms=settings.broker_timeout_ms * _STEPS_OF_A_TRANSACTION,
            request_timeout_ms=settings.broker_timeout_ms,
            retry_backoff_ms=_RETRY_BACKOFF_MS,
            max_batch_size=settings.output_batch_bytes_max,
            compression_type=None if settings.output_compression == "none" else settings.output_compression,
        )
        opened = AiokafkaTaskProducer(producer, self._timeout_s, settings.output_batch_bytes_max)
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.start()
        except BaseException:
            await opened.close()
            raise
        return opened

    async def committed(self, group_id: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Committed offsets; a partition without one is omitted. Raises BrokerNotReadyError if there is no answer in time."""

        async def ask() -> dict[TopicPartition, Any]:
            found: dict[TopicPartition, Any] = await self._admin.list_consumer_group_offsets(
                group_id, partitions=list(partitions)
            )
            # A coordinator that is still loading answers with an error for the whole group. aiokafka ignores that error and
            # returns no partitions.
            if not found.keys() >= set(partitions):
                raise GroupLoadInProgressError
            return found

        try:
            async with asyncio.timeout(self._timeout_s):
                found = await _until_answered(ask)
        except TimeoutError as error:
            message = f"no answer from the brokers about the committed offsets of {list(partitions)} in group {group_id}"
            raise BrokerNotReadyError(message) from error
        return {partition: held.offset for partition, held in found.items() if held.offset >= 0}

    async def bounds(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """First offset and last stable offset of each partition."""
        async with asyncio.timeout(self._timeout_s):
            first = await self._offsets.beginning_offsets(list(partitions))
            last = await self._offsets.end_offsets(list(partitions))
        return {partition: (first[partition], last[partition]) for partition in partitions}

    async def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Last stable offset of each partition."""
        async with asyncio.timeout(self._timeout_s):
            found: dict[TopicPartition, int] = await self._offsets.end_offsets(list(partitions))
        return found

    @asynccontextmanager
    async def changelog(self, partition: TopicPartition) -> AsyncIterator["AiokafkaChangelogReader"]:
        """A reader of one changelog partition, with its own connection."""
        consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_partition_fetch_bytes=self._settings.fetch_bytes_max,
            fetch_max_wait_ms=_READ_WAIT_MS,
            request_timeout_ms=self._settings.broker_timeout_ms,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await consumer.start()
            yield AiokafkaChangelogReader(consumer, partition, self._timeout_s)
        finally:
            await let_go(consumer.stop())


class AiokafkaChangelogReader:
    """Implements `ChangelogReader`."""

    def __init__(self, consumer: Any, partition: TopicPartition, timeout_s: float) -> None:
        self._consumer = consumer
        self._partition = partition
        self._timeout_s = timeout_s

    async def bounds(self) -> tuple[int, int]:
        """First offset, and last stable offset."""
        async with asyncio.timeout(self._timeout_s):
            first = await self._consumer.beginning_offsets([self._partition])
            last = await self._consumer.end_offsets([self._partition])
        return first[self._partition], last[self._partition]

    async def read(self, start: int, end: int) -> AsyncIterator[tuple[Sequence[Any], int]]:
        """Records from `start` on, in portions, each with the position after it, until that reaches `end`.

        It goes by the consumer's position, not by offsets of records: the last record may be far before `end`, if transaction
        markers, aborted records or compacted records follow it. Raises TimeoutError if the position stops moving.
        """
        self._consumer.assign([self._partition])
        self._consumer.seek(self._partition, start)
        position = start
        deadline_s = _loop_time_s() + self._timeout_s
        while position < end:
            found = await self._consumer.getmany(self._partition, timeout_ms=_READ_WAIT_MS)
            reached = await self._consumer.position(self._partition)
            if reached > position:
                position = reached
                deadline_s = _loop_time_s() + self._timeout_s
                yield found.get(self._partition, ()), position
            elif _loop_time_s() > deadline_s:
                raise TimeoutError(f"{self._partition} can't be read beyond offset {position}, but it ends at {end}")


class TransactionalBatch(BatchBuilder):  # type: ignore[misc]
    """aiokafka's record batch with a faster `add`: aiokafka's `append` takes a third of the time of a small output."""

    def add(self, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> object | None:
        """Add a record. Returns None if the batch is full."""
        metadata: object | None = self._builder.append(self._relative_offset, timestamp_ms, key, value, headers)
        if metadata is None:
            self.close()
        else:
            self._relative_offset += 1
        return metadata


class AiokafkaTaskProducer:
    """Implements `TaskProducer`."""

    def __init__(self, producer: Any, timeout_s: float, batch_bytes_max: int) -> None:
        self._producer = producer
        self._timeout_s = timeout_s
        self._batch_bytes_max = batch_bytes_max
        self._compression = producer._message_accumulator._compression_type

    def create_batch(self) -> TransactionalBatch:
        """A new, empty record batch."""
        return TransactionalBatch(self._batch_bytes_max, self._compression, is_transactional=1)

    async def begin(self) -> None:
        """Begin a transaction."""
        with self._telling_the_cause():
            async with asyncio.timeout(self._timeout_s):
                await self._producer.begin_transaction()

    async def send_batch(self, batch: RecordBatch, topic: str, partition: int) -> "asyncio.Future[Any]":
        """Queue the batch; see `output.Sender`. Raises TopicsError if there is no such topic or partition."""
        known = self._producer.client.cluster.partitions_for_topic(topic)
        if known is None:
            try:
                known = await self._producer.partitions_for(topic)
            except UnknownTopicOrPartitionError as error:
                raise TopicsError(f"there is no topic {topic}; `rater topics apply` creates missing topics") from error
        if partition not in known:
            raise TopicsError(f"topic {topic} has {len(known)} partitions, but no partition {partition}")
        with self._telling_the_cause():
            future: asyncio.Future[Any] = await self._producer.send_batch(batch, topic, partition=partition)
        return future

    async def send_offsets(self, offsets: Mapping[TopicPartition, int], group_id: str) -> None:
        """Add the group's offsets to the transaction."""
        if not offsets:  # due work doesn't move the input
            return
        with self._telling_the_cause():
            async with asyncio.timeout(self._timeout_s):
                await self._producer.send_offsets_to_transaction(dict(offsets), group_id)

    async def commit(self) -> None:
        """Commit the transaction. After a TimeoutError or a ConnectionError, its outcome is unknown."""
        with self._telling_the_cause():
            async with asyncio.timeout(self._timeout_s):
                await self._producer.commit_transaction()

    async def abort(self) -> None:
        """Abort the transaction."""
        async with asyncio.timeout(self._timeout_s):
            await self._producer.abort_transaction()

    async def close(self) -> None:
        """Drop the producer, whatever it is doing. Never raises, never takes long."""
        if not await let_go(self._producer.stop()):
            # `stop` waits for unsent batches; while no broker answers, its sender would run for ever. The InitProducerId of the
            # next producer fences whatever remains.
            sender = self._producer._sender.sender_task
            if sender is not None:
                sender.cancel()
            with suppress(Exception):
                await self._producer.client.close()

    @contextmanager
    def _telling_the_cause(self) -> Iterator[None]:
        """Raise the error that ended aiokafka's sender. Without this, aiokafka only says that the call isn't allowed now."""
        try:
            yield
        except (AssertionError, IllegalOperation) as error:
            sender = self._producer._sender.sender_task
            if sender is None or not sender.done() or sender.cancelled() or sender.exception() is None:
                raise
            raise sender.exception() from error


async def _until_answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Repeat a request while a broker is away or doesn't know the answer yet: aiokafka's admin client asks one broker, once."""
    while True:
        try:
            return await ask()
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(_RETRY_S)


def _loop_time_s() -> float:
    return asyncio.get_running_loop().time()
