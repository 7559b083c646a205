"""What an agent sees of the engine: records in, state, a way out for records. No Kafka here.

The model. The engine reads groups of co-partitioned topics. One *task* is one partition number of such a group, and the only
writer of its part of the state. The engine hands each batch of a task to a Faust agent, as an event of the agent's stream:

    @app.agent(batches)
    async def rating(stream):
        async for batch in stream:
            async with batch as transaction:
                ...

Leaving the block commits: the outputs, the state changes and the input offsets are one Kafka transaction. An exception out of
the block commits nothing.

What an agent can rely on
- Records of one topic partition come in offset order: none twice, none left out. Records of several topics come merged by
  timestamp.
- A task has one batch in flight at most. Batches of different tasks run side by side.
- `State` returns the committed rows plus this batch's own writes.
- An exception other than a retryable `EngineError` ends the worker before anything of that batch is committed. So an agent
  handles a bad record itself (it emits a dead letter). After a retryable `EngineError` the task is reopened and the same batch
  comes again.

Memory. `transaction.memory` is what the agent keeps for one task between its batches: decoded objects, queues, counters. The
engine makes it when it opens the task, and discards it whenever a batch fails to commit; the next one starts from committed
state. So an agent may change it freely. It may implement two protocols:
- `DueWork`: it has work at times it knows. The engine then sends a `Tick` between two batches, as an event of its own with a
  transaction of its own. The input position stays where it is. What is due must be in the state.
- `Measured`: it has metrics. The engine asks for them after a commit, so a batch that is processed again is not counted twice.

Topic names in `Record.topic` and `Sink.emit` are physical names, prefix included.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

__all__ = ["DueWork", "Headers", "Measured", "MemoryFactory", "Metric", "Record", "Sink", "State"]

Metric = tuple[str, ...]
"""A metric's short name, then the values of its labels."""

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
        """The rows of `keys` in their order; None where there is no row. Far cheaper than as many calls of `get`."""

    def put(self, key: bytes, value: bytes) -> None:
        """Write a row that stays until it is written again or deleted."""

    def delete(self, key: bytes) -> None: ...

    def append(self, day: int, key: bytes, value: bytes) -> None:
        """Write an index row that may expire with its bucket `day` (days since the epoch).

        You read it like any other row. In the changelog all such rows of a batch are packed into a few records per bucket, so
        thousands of them cost one record. A later append to the same key wins, and so does its day. Write a key either with
        `put` or with `append`, never with both.
        """

    def expire(self, before_day: int) -> None:
        """Allow rows appended to buckets before `before_day` to be forgotten. Later batches remove them in bounded slices."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key starts with `prefix`, in key order. For rare paths, not for every record."""


class Sink(Protocol):
    """The way out for records: they are sent with the batch's transaction."""

    def emit(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers = (),
    ) -> None:
        """Send a record with this batch's transaction, to the partition of `topic` that has the task's own number."""


@runtime_checkable
class DueWork(Protocol):
    """Memory with work that falls due without a record."""

    def next_due_ms(self) -> int | None:
        """When the next `Tick` is due, in ms since the epoch; None: nothing is due. Called often, so keep it cheap.

        After a pause the tick comes late. It waits for a bounded time until the input has been read to its end, because what is
        due is best judged by the newest records.
        """


@runtime_checkable
class Measured(Protocol):
    """Memory with metrics of its own."""

    def take_counts(self) -> Mapping[Metric, int]:
        """What was counted since the last call."""

    def gauges(self) -> Mapping[Metric, float]:
        """The current values."""


MemoryFactory = Callable[[int, State, Sink], Any]
"""(partition, state, sink) → the memory of that task, made whenever the task is opened."""
