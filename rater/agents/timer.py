"""The timer agent: reads the states of accounts, and publishes a command when something on one of them falls due.

What is due when is the domain's business (`rater.domain.timers`). That each command is published once, over restarts too, is
the engine's: the timers are rows of the agent's state, and a command is in one transaction with the mark that it was sent.

The clock only decides when to publish. The command's record carries that time, and from there on the account goes by it as by
any other record's.
"""

import heapq
import logging
from collections import Counter
from collections.abc import AsyncIterable, Mapping, Sequence

import msgspec

from rater.domain import timers
from rater.domain.outputs import encode
from rater.domain.timers import Timers
from rater.engine.api import MemoryFactory, Metric, Record, Sink, State
from rater.engine.app import EngineApp
from rater.engine.batches import Batch, BatchChannel, Tick
from rater.engine.stats import MetricDefinition
from rater.kafka.topics import Topics

log = logging.getLogger(__name__)

ORGANIZATIONS_MAX = 1000  # per tick: one transaction stays small, however many fall due at once

METRICS = (
    MetricDefinition(
        key="timer_commands",
        name="rater_timer_commands",
        meaning="Commands published because something fell due.",
        kind="counter",
        labels=("type",),
    ),
    MetricDefinition(
        key="timers_pending",
        name="rater_timers_pending",
        meaning="Organizations with something that will fall due.",
        kind="gauge",
    ),
)

_encode_row = msgspec.msgpack.Encoder().encode
_decode_row = msgspec.msgpack.Decoder(Timers).decode


def define_timer(app: EngineApp, batches: BatchChannel) -> None:
    """Add the agent to the app. The memory of `batches` is `PartitionTimers`."""

    @app.agent(batches, name="timer")
    async def timer(stream: AsyncIterable[Batch]) -> None:
        """Publishes a command when something on an account falls due."""
        async for batch in stream:
            async with batch as transaction:
                partition: PartitionTimers = transaction.memory
                if isinstance(batch, Tick):
                    partition.publish_due(batch.now_ms)
                else:
                    partition.note_states(transaction.records)


class PartitionTimers:
    """The timers of one partition: a row per organization, and in memory when each is due next."""

    def __init__(self, command_topic: str, state: State, sink: Sink) -> None:
        self._command_topic = command_topic
        self._state = state
        self._sink = sink
        self._due_ms: dict[bytes, int] = {}
        self._counts: Counter[Metric] = Counter()
        self._queue: list[tuple[int, bytes]] = []  # may hold entries that no longer count: `_due_ms` says which do
        for key, row in state.scan(b""):
            self._schedule(key, _decode_row(row))

    def note_states(self, records: Sequence[Record]) -> None:
        """Take the newest state of each organization."""
        newest = {record.key: record for record in records if record.key is not None}
        rows = self._state.get_many(list(newest))
        for (key, record), row in zip(newest.items(), rows, strict=True):
            self._note_state(key, record, row)

    def next_due_ms(self) -> int | None:
        """When the first of all timers is due, in ms since the epoch."""
        while self._queue and self._due_ms.get(self._queue[0][1]) != self._queue[0][0]:
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else None

    def publish_due(self, now_ms: int) -> None:
        """Publish what is due by now, for at most `ORGANIZATIONS_MAX` organizations."""
        for _ in range(ORGANIZATIONS_MAX):
            due_ms = self.next_due_ms()
            if due_ms is None or due_ms > now_ms:
                return
            key = self._queue[0][1]
            row = self._state.get(key)
            assert row is not None, key
            found = _decode_row(row)
            for command in timers.take_due(found, now_ms * 1000):
                self._sink.emit(self._command_topic, key, encode(command), now_ms)
                self._counts["timer_commands", command["type"]] += 1
            self._state.put(key, _encode_row(found))
            self._schedule(key, found)

    def take_counts(self) -> Mapping[Metric, int]:
        """`timer_commands` by type."""
        counts, self._counts = self._counts, Counter()
        return counts

    def gauges(self) -> Mapping[Metric, float]:
        """`timers_pending`: organizations with something that will fall due."""
        return {("timers_pending",): len(self._due_ms)}

    def _note_state(self, key: bytes, record: Record, row: bytes | None) -> None:
        if record.value is None:
            now = Timers(key.decode(errors="replace"))
        else:
            try:
                seen = timers.read_state(record.value)
            except ValueError as error:  # not written by the rater: what was known before still holds
                log.error("%s offset %d is not an account state, ignored: %s", record.topic, record.offset, error)
                return
            now = timers.noticed(None if row is None else _decode_row(row), seen)
        if not now.lots and now.retry is None:
            if row is not None:
                self._state.delete(key)
        elif (encoded := _encode_row(now)) != row:
            self._state.put(key, encoded)
        self._schedule(key, now)

    def _schedule(self, key: bytes, found: Timers) -> None:
        due_us = timers.next_due_us(found)
        if due_us is None:
            self._due_ms.pop(key, None)
            return
        due_ms = -(-due_us // 1000)  # never before it is due
        if self._due_ms.get(key) != due_ms:
            self._due_ms[key] = due_ms
            heapq.heappush(self._queue, (due_ms, key))


def timer_memory(topics: Topics) -> MemoryFactory:
    """Makes the timers of each partition."""

    def make(partition: int, state: State, sink: Sink) -> PartitionTimers:
        del partition
        return PartitionTimers(topics.command, state, sink)

    return make
