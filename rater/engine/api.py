"""What a processor sees of the engine: records in, state, a sink for outputs. No Kafka here.

The model. The engine reads groups of co-partitioned topics. One *task* is one partition number of such a
group; it is the one writer of its part of the state. For every task the engine makes a `Processor` and
gives it batches of records. A batch is all or nothing: its outputs, its state changes and its input offsets
are committed in one Kafka transaction.

Invariants a processor can rely on:
- Records of one topic partition come in offset order, none twice and none left out; records of several
  topics come merged by timestamp.
- What `State` returns is the committed rows plus this batch's own writes.
- When a batch does not commit, the processor is thrown away with everything it did. So it may keep decoded
  objects from batch to batch and mutate them freely: the next processor starts from committed state.
- An exception out of `process` stops the task before anything of that batch is committed, and with it the
  worker. A record that can't be handled is therefore the processor's own to answer for (a dead letter
  through the sink). A retryable `EngineError` is no verdict on the batch: the task is opened anew and the
  batch comes again.

Due work. A processor that has work of its own making at times it knows is a `TimedProcessor`: the engine
calls `tick` once the moment has come, between two batches, in a transaction of its own. A tick is all or
nothing exactly as a batch is; the input stays where it is. What is due must stand in the state, as the next
processor knows nothing else.

Figures. A processor that has something to be watched by is a `MeasuredProcessor`. What it counts is asked for once a
batch is committed, so what was counted in a batch that comes again is never counted twice.

Topic names, in `Record.topic` and `Sink.emit`, are the physical ones, prefix included.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

__all__ = [
    "Headers",
    "MeasuredProcessor",
    "Metric",
    "Processor",
    "ProcessorFactory",
    "Record",
    "Sink",
    "State",
    "TimedProcessor",
]

Metric = tuple[str, ...]
"""What is measured, and the values of its labels."""

Headers = Sequence[tuple[str, bytes]]


class Record(Protocol):
    """One input record; aiokafka's `ConsumerRecord` is one."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch, as the record carries it."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class State(Protocol):
    """One partition's key-value state as the batch sees it: committed rows plus this batch's own writes."""

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of `keys`, in their order; None where there is none. Far cheaper than as many `get`."""

    def put(self, key: bytes, value: bytes) -> None:
        """Write a row that stays until it is written again or deleted."""

    def delete(self, key: bytes) -> None: ...

    def append(self, day: int, key: bytes, value: bytes) -> None:
        """Write an index row that may expire with its bucket `day` (days since the epoch).

        It is read like any other row. In the changelog all such rows of a batch are packed into few records
        a bucket, so thousands of them cost one record. A later append to the same key wins, and so does its
        day. A key is written either by `put` or by `append`, never by both.
        """

    def expire(self, before_day: int) -> None:
        """Rows appended to buckets before `before_day` may be forgotten; done in bounded slices with later
        batches."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key starts with `prefix`, in key order. For rare paths, not for every record."""


class Sink(Protocol):
    def emit(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers = (),
    ) -> None:
        """Send a record with this batch's transaction, to the partition of `topic` with the task's own
        number."""


class Processor(Protocol):
    """Made for one task when it is opened; thrown away whenever a batch does not commit."""

    async def process(self, records: Sequence[Record]) -> None:
        """Handle one batch; called once a batch, with the records in processing order."""


@runtime_checkable
class TimedProcessor(Processor, Protocol):
    """A processor with due work besides its records."""

    def next_due_ms(self) -> int | None:
        """When `tick` is to be called next, in ms since the epoch; None: nothing is due. Asked often: cheap."""

    async def tick(self, now_ms: int) -> None:
        """Do what is due by `now_ms`, or a part of it; called when `next_due_ms() <= now_ms`.

        A worker that has been away calls it late. It waits, if not for ever, until the input has been read to its end:
        what is due is best judged by the newest records.
        """


@runtime_checkable
class MeasuredProcessor(Processor, Protocol):
    """A processor with figures of its own."""

    def take_counts(self) -> Mapping[Metric, int]:
        """What was counted since this was asked last."""

    def gauges(self) -> Mapping[Metric, float]:
        """How things stand now."""


ProcessorFactory = Callable[[int, State, Sink], Processor]
"""(partition, state, sink) → the processor of that partition."""
