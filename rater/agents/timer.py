"""The timer agent: reads the states of accounts, and publishes a command when something on one of them falls due.

What is due when is the domain's (`rater.domain.timers`). That each command goes out once, over restarts too, is the engine's:
the timers are rows of its state, and a command, with the mark that it was sent, is one transaction.

The clock decides only when to publish: the command's record carries that time, and from there on the account goes by it as by
any other record's.
"""

import heapq
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from rater.domain import timers
from rater.domain.outputs import encode
from rater.domain.timers import Timers
from rater.engine.api import Metric, Processor, ProcessorFactory, Record, Sink, State
from rater.kafka.topics import Topics

log = logging.getLogger(__name__)

ORGANIZATIONS_MAX = 1000  # a tick: one transaction stays small however many fall due at once

_encode_row = msgspec.msgpack.Encoder().encode
_decode_row = msgspec.msgpack.Decoder(Timers).decode


class TimerProcessor:
    """The timers of one partition: a row an organization, and in memory when each is due next."""

    def __init__(self, command_topic: str, state: State, sink: Sink) -> None:
        self._command_topic = command_topic
        self._state = state
        self._sink = sink
        self._due_ms: dict[bytes, int] = {}
        self._counts: Counter[Metric] = Counter()
        self._queue: list[tuple[int, bytes]] = []  # may hold what no longer counts: `_due_ms` says what does
        for key, row in state.scan(b""):
            self._schedule(key, _decode_row(row))

    async def process(self, records: Sequence[Record]) -> None:
        """Take the newest state of each organization."""
        newest = {record.key: record for record in records if record.key is not None}
        rows = self._state.get_many(list(newest))
        for (key, record), row in zip(newest.items(), rows, strict=True):
            self._notice(key, record, row)

    def next_due_ms(self) -> int | None:
        """When the first of all timers is due."""
        while self._queue and self._due_ms.get(self._queue[0][1]) != self._queue[0][0]:
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else None

    async def tick(self, now_ms: int) -> None:
        """Publish what is due by now, of so many organizations at most."""
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
        """`timers_pending`: organizations with something to fall due."""
        return {("timers_pending",): len(self._due_ms)}

    def _notice(self, key: bytes, record: Record, row: bytes | None) -> None:
        if record.value is None:
            now = Timers(key.decode(errors="replace"))
        else:
            try:
                seen = timers.read_state(record.value)
            except ValueError as error:  # somebody else has written there: what was known before still holds
                log.error("%s offset %d is no account state, left out: %s", record.topic, record.offset, error)
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


def timer_factory(topics: Topics) -> ProcessorFactory:
    """Makes the processor of each partition."""

    def make(partition: int, state: State, sink: Sink) -> Processor:
        del partition
        return TimerProcessor(topics.command, state, sink)

    return make
