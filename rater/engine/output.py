"""The sink: a batch's output records, packed for the broker as they are emitted.

Records are put into Kafka record batches at once (aiokafka's batch API), which is several times
cheaper than sending them one by one. They are sent only with the batch's transaction, all to the task's own
partition number.

Every send has a future of its own and every one is looked at: aiokafka's `flush` returns normally when a
send has failed.
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
    """One Kafka record batch in the making."""

    def add(self, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> object | None:
        """None when the batch is full; an empty batch takes a record of any size."""

    def record_count(self) -> int: ...


class Sender(Protocol):
    """What the outbox needs of a producer; see `kafka.TaskProducer`."""

    def create_batch(self) -> RecordBatch: ...

    async def send_batch(self, batch: RecordBatch, topic: str, partition: int) -> "asyncio.Future[Any]":
        """Queue the batch; the future holds the metadata of its first record, or why it failed."""


class Outbox:
    """Implements `api.Sink` for one task; `queue` empties it into the open transaction."""

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
        """Hand everything over to the producer, and `last_records` to `last_topic` after it."""
        timestamp_ms = time.time_ns() // 1_000_000
        for key, value in last_records:
            self.emit(last_topic, key, value, timestamp_ms)
        queues = [
            [(topic, batch) for batch in [*self._full.get(topic, []), last_batch]] for topic, last_batch in self._open.items()
        ]
        last = self._open[last_topic]
        self._full, self._open, self.records = {}, {}, 0
        futures: dict[RecordBatch, asyncio.Future[Any]] = {}
        # Topics by turns: the broker takes one record batch a partition at a time.
        for turn in zip_longest(*queues):
            for topic, batch in filter(None, turn):
                futures[batch] = await self._sender.send_batch(batch, topic, self._partition)
                futures[batch].add_done_callback(_observe)
        return Sends(futures, last)


@dataclass(frozen=True, slots=True)
class Sends:
    """Record batches on their way to the broker."""

    futures: dict[RecordBatch, "asyncio.Future[Any]"]
    last: RecordBatch

    async def acknowledged(self) -> int | None:
        """Return when the broker has acknowledged every one of them.

        Returns the offset after the last record, None when the broker didn't say. Raises the first error of any
        send, after all have come to an end.
        """
        await asyncio.wait(self.futures.values())
        for future in self.futures.values():
            future.result()
        first_offset = getattr(self.futures[self.last].result(), "offset", None)
        return None if first_offset is None or first_offset < 0 else first_offset + self.last.record_count()


def _observe(send: "asyncio.Future[Any]") -> None:
    """Keep asyncio from reporting the error of a send that nobody waits for any more."""
    if not send.cancelled():
        send.exception()
