"""The sink: a batch's output records, packed for the broker as they are emitted.

`emit` puts each record straight into a Kafka record batch (aiokafka's batch API). This is several times cheaper than sending
records one by one. They are sent only with the batch's transaction, all to the task's own partition number.

Every send has its own future, and every future is checked: aiokafka's `flush` returns normally even if a send has failed.
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol

from rater.engine.api import Headers

__all__ = ["Outbox", "RecordBatch", "Sender", "Sends"]


_NO_HEADERS: list[tuple[str, bytes]] = []


class RecordBatch(Protocol):
    """A Kafka record batch that is being filled."""

    def add(self, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> object | None:
        """Add a record. Returns None if the batch is full. An empty batch accepts a record of any size."""

    def record_count(self) -> int:
        """How many records have been added."""


class Sender(Protocol):
    """What the outbox needs of a producer; see `broker.TaskProducer`."""

    def create_batch(self) -> RecordBatch:
        """A new, empty record batch."""

    async def send_batch(self, batch: RecordBatch, topic: str, partition: int) -> "asyncio.Future[Any]":
        """Queue the batch. The future returns the metadata of its first record, or raises why the send failed."""


class Outbox:
    """Implements `api.Sink` for one task. `queue` moves its records into the open transaction.

    `records` is how many records it holds.
    """

    def __init__(self, sender: Sender, partition: int) -> None:
        self._sender = sender
        self._partition = partition
        self._full: dict[str, list[RecordBatch]] = {}
        self._open: dict[str, RecordBatch] = {}
        self.records = 0

    def emit(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers = (),
    ) -> None:
        """Add a record to the batch's outputs."""
        header_list = list(headers) if headers else _NO_HEADERS
        batch = self._open.get(topic)
        if batch is None:
            batch = self._open[topic] = self._sender.create_batch()
        if batch.add(timestamp_ms, key, value, header_list) is None:
            self._full.setdefault(topic, []).append(batch)
            batch = self._open[topic] = self._sender.create_batch()
            added = batch.add(timestamp_ms, key, value, header_list)
            assert added is not None, "an empty record batch takes any record"
        self.records += 1

    async def queue(self, last_topic: str, last_records: Iterable[tuple[bytes, bytes | None]]) -> "Sends":
        """Hand all records to the producer, then `last_records` (key, value) for `last_topic`. This empties the outbox."""
        timestamp_ms = time.time_ns() // 1_000_000
        for key, value in last_records:
            self.emit(last_topic, key, value, timestamp_ms)
        queues = [
            [(topic, batch) for batch in [*self._full.get(topic, []), last_batch]] for topic, last_batch in self._open.items()
        ]
        last = self._open[last_topic]
        self._full, self._open, self.records = {}, {}, 0
        futures: dict[RecordBatch, asyncio.Future[Any]] = {}
        # Topics take turns: the broker accepts one record batch per partition at a time.
        for turn in zip_longest(*queues):
            for topic, batch in filter(None, turn):
                futures[batch] = await self._sender.send_batch(batch, topic, self._partition)
                futures[batch].add_done_callback(_observe)
        return Sends(futures, last)


@dataclass(frozen=True, slots=True)
class Sends:
    """Record batches that are being sent. `last` is the last batch of the topic that was given last."""

    futures: dict[RecordBatch, "asyncio.Future[Any]"]
    last: RecordBatch

    async def acknowledged(self) -> int | None:
        """Wait until the broker has acknowledged every record batch.

        Returns the offset after the last record; None if the broker didn't tell it. If sends have failed, raises the error of
        the first one, after all sends have ended.
        """
        await asyncio.wait(self.futures.values())
        for future in self.futures.values():
            future.result()
        first_offset = getattr(self.futures[self.last].result(), "offset", None)
        return None if first_offset is None or first_offset < 0 else first_offset + self.last.record_count()


def _observe(send: "asyncio.Future[Any]") -> None:
    """Mark the error of a send as seen: asyncio would report it if nothing waits for the send any longer."""
    if not send.cancelled():
        send.exception()
