"""Follows compacted topics: passes all their records to one callback, from the first offset on, each partition in its order.

It is for data that every worker needs in full, such as a catalog. The follower has its own consumer, without a consumer group.
It is ready when it has read up to the ends that the topics had at its start. From then on it keeps reading. `barrier` waits
until it has read everything that is in the topics now. So after a barrier, the callback has received whatever was published
before it.

An exception in the callback ends the worker, so the callback must handle records that it can't use. After a lost connection the
follower tries again.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from mode.utils.logging import get_logger

from rater.engine.aiokafka_broker import AiokafkaBroker, client_options
from rater.engine.api import Record
from rater.engine.errors import BrokerNotReadyError, FatalError, is_retryable
from rater.engine.settings import EngineSettings
from rater.kafka.connection import let_go

__all__ = ["Follower"]

log = get_logger(__name__)

_POLL_MS = 500
_CATCH_UP_POLL_MS = 20
_FETCH_WAIT_MS = 500


class Follower:
    """Reads `topics` and passes their records to `on_record`. Implements `engine.BackgroundService`."""

    def __init__(self, settings: EngineSettings, topics: Sequence[str], on_record: Callable[[Record], None]) -> None:
        self._settings = settings
        self._topics = tuple(topics)
        self._on_record = on_record
        self._partitions: list[TopicPartition] = []
        self._consumer: Any = None
        self._ends_consumer: Any = None  # has its own connection: on the other one, a request waits behind the fetch in flight
        self._reading: asyncio.Task[None] | None = None
        self._moved = asyncio.Condition()
        self._reached: dict[TopicPartition, int] = {}
        self._catching_up = 0
        self.ready = False

    async def start(self, on_fatal: Callable[[BaseException], None]) -> None:
        """Return when all topics have been read to their ends. A later error that can't be retried goes to `on_fatal`.

        Raises TopicsError if a topic is missing, BrokerNotReadyError if no broker answers in time.
        """
        try:
            await self._connect()
        except TimeoutError as error:
            raise BrokerNotReadyError(
                f"no answer from the brokers about {', '.join(self._topics)} within {self._settings.broker_timeout_ms} ms"
            ) from error
        self._reading = asyncio.create_task(self._read(on_fatal), name=f"follow {', '.join(self._topics)}")
        await self.barrier()
        self.ready = True
        log.info("%s: read to the end, following", ", ".join(self._topics))

    async def stop(self) -> None:
        """Stop reading. It may be called at any time."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        await self._disconnect()

    async def barrier(self) -> None:
        """Return when the callback has received everything that is in the topics now.

        Raises BrokerNotReadyError if the brokers don't answer in time, FatalError if the follower has ended.
        """
        ends = await self._ends()
        self._catching_up += 1
        try:
            async with self._moved:
                await self._moved.wait_for(lambda: self._ended() or self._is_past(ends))
        finally:
            self._catching_up -= 1
        if not self._is_past(ends):
            raise FatalError(f"{', '.join(self._topics)}: no longer followed")

    async def _ends(self) -> dict[TopicPartition, int]:
        try:
            async with asyncio.timeout(self._settings.broker_timeout_ms / 1000):
                ends: dict[TopicPartition, int] = await self._ends_consumer.end_offsets(self._partitions)
        except Exception as error:
            if not is_retryable(error):
                raise
            raise BrokerNotReadyError(f"no answer from the brokers about the ends of {', '.join(self._topics)}") from error
        return ends

    def _is_past(self, ends: dict[TopicPartition, int]) -> bool:
        return all(self._reached[tp] >= end for tp, end in ends.items())

    def _ended(self) -> bool:
        return self._reading is None or self._reading.done()

    async def _read(self, on_fatal: Callable[[BaseException], None]) -> None:
        try:
            while True:
                try:
                    await self._read_once()
                except Exception as error:
                    if not is_retryable(error):
                        raise
                    log.warning("%s: %r, trying again", ", ".join(self._topics), error)
                    await asyncio.sleep(self._settings.retry_wait_ms_max / 1000)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the worker
            failure = error if isinstance(error, FatalError) else FatalError(f"following {', '.join(self._topics)}: {error!r}")
            failure.__cause__ = error if failure is not error else error.__cause__
            on_fatal(failure)
        finally:
            async with self._moved:
                self._moved.notify_all()

    async def _read_once(self) -> None:
        timeout_ms = _CATCH_UP_POLL_MS if self._catching_up else _POLL_MS
        found = await self._consumer.getmany(timeout_ms=timeout_ms)
        for records in found.values():
            for record in records:
                self._on_record(record)
        reached = {tp: await self._consumer.position(tp) for tp in self._partitions}
        if reached != self._reached:
            async with self._moved:
                self._reached = reached
                self._moved.notify_all()

    async def _connect(self) -> None:
        timeout_ms = self._settings.broker_timeout_ms
        broker = AiokafkaBroker(self._settings)
        try:
            await broker.start()
            counts = await broker.partition_counts(self._topics)
        finally:
            await broker.stop()
        self._partitions = [TopicPartition(topic, n) for topic in self._topics for n in range(counts[topic])]
        self._consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            request_timeout_ms=timeout_ms,
        )
        self._ends_consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            enable_auto_commit=False,
            isolation_level="read_committed",
            request_timeout_ms=timeout_ms,
        )
        async with asyncio.timeout(timeout_ms / 1000):
            await self._ends_consumer.start()
            await self._consumer.start()
            self._consumer.assign(self._partitions)
            first = await self._consumer.beginning_offsets(self._partitions)
        for tp, offset in first.items():
            self._consumer.seek(tp, offset)
        self._reached = dict(first)

    async def _disconnect(self) -> None:
        consumers = [self._consumer, self._ends_consumer]
        self._consumer = self._ends_consumer = None
        await asyncio.gather(*(let_go(consumer.stop()) for consumer in consumers if consumer is not None))
