"""The record queues of one task, and how batches are cut from them. The terms are those of Kafka Streams.

A task has one `RecordQueue` per input topic: records that have been fetched but not processed. Together they are its
`PartitionGroup`.

A queue is *dry* if the broker is known to have no more records for it. While a queue is empty but not dry, its next record may
belong before records of the other queues (see `merge`), so the batch ends there. The wait is bounded by `task_idle_s_max`
(Kafka Streams: `max.task.idle.ms`; here RATER_MERGE_WAIT_MS_MAX). After that, the queue no longer holds the others back, until
it has had records again or is dry.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rater.engine.api import Record
from rater.engine.merge import merge

__all__ = ["InputSlice", "PartitionGroup", "RecordQueue"]

_DRY_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class InputSlice:
    """Records in processing order, and topic → next offset after them."""

    records: Sequence[Record]
    positions: Mapping[str, int]


@dataclass(slots=True)
class RecordQueue:
    """The records of one topic that have been fetched but not taken.

    `position` is the offset after them. `held_since_s` is the time since when the queue has held others back; `given_up` says
    that it has done so for too long. `bytes_held` counts the records' values.
    """

    topic: str
    position: int
    records: Sequence[Record] = ()
    bytes_held: int = 0
    held_since_s: float | None = None
    given_up: bool = False


@dataclass
class PartitionGroup:
    """The queues of one task, in rank order.

    `is_dry(topic, position)` tells whether the broker is known to have no records from `position` on. `clock` returns seconds.
    `waits_given_up` counts how often a queue has held others back for too long.
    """

    topics: tuple[str, ...]
    records_max: int
    bytes_max: int
    task_idle_s_max: float
    is_dry: Callable[[str, int], bool]
    clock: Callable[[], float]
    waits_given_up: int = 0
    _queues: dict[str, RecordQueue] = field(default_factory=dict)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self, positions: Mapping[str, int]) -> None:
        """Empty all queues. They are next filled from `positions` (topic → offset) on."""
        self._queues = {topic: RecordQueue(topic, positions[topic]) for topic in self.topics}

    def wanted(self) -> dict[str, int]:
        """Topics with room in their queue → the position to fetch them from."""
        return {
            queue.topic: queue.position
            for queue in self._queues.values()
            if len(queue.records) < self.records_max and queue.bytes_held < self.bytes_max
        }

    def add(self, topic: str, records: Sequence[Record], position: int) -> None:
        """Append records fetched from `topic`. `position` is the offset after them."""
        queue = self._queues[topic]
        queue.position = position
        if records:
            queue.records = [*queue.records, *records] if queue.records else records
            queue.bytes_held += _bytes(records)
            queue.held_since_s, queue.given_up = None, False
            self._arrived.set()

    def take(self) -> InputSlice | None:
        """Take the next batch; None if there is none yet."""
        queues = list(self._queues.values())
        may_have_more = [not self._is_dry(queue) for queue in queues]
        held_back = [queue for queue, more in zip(queues, may_have_more, strict=True) if more and not queue.records]
        any_records = any(queue.records for queue in queues)
        for queue in held_back if any_records else ():
            may_have_more[queues.index(queue)] = not self._waited_enough(queue)
        records: Sequence[Record]
        records, taken = merge([queue.records for queue in queues], may_have_more, self.records_max)
        if not records:
            return None
        if sum(queue.bytes_held for queue in queues) > self.bytes_max:
            records, taken = self._cut(records, queues)
        for queue, count in zip(queues, taken, strict=True):
            self._drop(queue, count)
        return InputSlice(records, {queue.topic: self._next_offset(queue) for queue in queues})

    def positions(self) -> dict[str, int]:
        """Topic → the offset of the first record that has not been taken, or the position if the queue is empty."""
        return {queue.topic: self._next_offset(queue) for queue in self._queues.values()}

    def is_drained(self) -> bool:
        """Whether all queues are empty and the broker is known to have no more records."""
        return all(not queue.records and self.is_dry(queue.topic, queue.position) for queue in self._queues.values())

    def first(self, topic: str) -> Record | None:
        """The first record of `topic` that has been fetched but not taken; None if there is none."""
        queue = self._queues.get(topic)
        return queue.records[0] if queue is not None and queue.records else None

    async def wait(self, timeout_s: float) -> None:
        """Return when records have arrived, when it is time to check for dry queues again, or after `timeout_s`."""
        self._arrived.clear()
        if any(queue.records for queue in self._queues.values()):
            timeout_s = _DRY_POLL_S
        try:
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        """Make `wait` return."""
        self._arrived.set()

    def _is_dry(self, queue: RecordQueue) -> bool:
        dry = self.is_dry(queue.topic, queue.position)
        if dry:
            queue.held_since_s, queue.given_up = None, False
        return dry

    def _waited_enough(self, queue: RecordQueue) -> bool:
        now_s = self.clock()
        if queue.held_since_s is None:
            queue.held_since_s = now_s
        waited = now_s - queue.held_since_s >= self.task_idle_s_max
        if waited and not queue.given_up:
            queue.given_up = True
            self.waits_given_up += 1
        return waited

    def _cut(self, records: Sequence[Record], queues: Sequence[RecordQueue]) -> tuple[Sequence[Record], list[int]]:
        """As many of `records` as fit in a batch, but at least one; and how many that is of each queue."""
        total = 0
        count = 0
        for record in records:
            total += len(record.value or b"")
            if count and total > self.bytes_max:
                break
            count += 1
        cut = records[:count]
        return cut, [sum(record.topic == queue.topic for record in cut) for queue in queues]

    def _drop(self, queue: RecordQueue, count: int) -> None:
        if count == len(queue.records):
            queue.records, queue.bytes_held = (), 0
        elif count:
            queue.records = queue.records[count:]
            queue.bytes_held = _bytes(queue.records)

    def _next_offset(self, queue: RecordQueue) -> int:
        return queue.records[0].offset if queue.records else queue.position


def _bytes(records: Sequence[Record]) -> int:
    return sum(len(record.value) for record in records if record.value is not None)
