"""A broker in memory: partitions with transactions, read committed, fencing, committed offsets, compaction.

It does what Kafka promises, but every method takes effect at once. `process` simulates faults on the way to it and back.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from aiokafka.errors import ProducerFenced

from rater.engine.broker import TopicPartition


@dataclass(eq=False, slots=True)
class Transaction:
    """`state` is open, committed or aborted."""

    state: str = "open"
    partitions: set[TopicPartition] = field(default_factory=set)
    offsets: dict[tuple[str, TopicPartition], int] = field(default_factory=dict)


@dataclass(slots=True)
class Stored:
    """A record of a partition. `transaction` is None if it was sent outside of a transaction."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    transaction: Transaction | None


@dataclass(slots=True)
class Partition:
    """Records in offset order, with gaps for transaction markers and compacted records."""

    records: list[Stored] = field(default_factory=list)
    end: int = 0

    def stable(self) -> int:
        """The last stable offset: the offset of the first record of an open transaction, or else the end."""
        for record in self.records:
            if record.transaction is not None and record.transaction.state == "open":
                return record.offset
        return self.end

    def committed(self, start: int = 0) -> list[Stored]:
        """What a `read_committed` reader gets from `start` on."""
        stable = self.stable()
        return [
            record
            for record in self.records
            if start <= record.offset < stable and (record.transaction is None or record.transaction.state == "committed")
        ]


@dataclass(slots=True)
class _Producer:
    epoch: int = -1
    transaction: Transaction | None = None


class Broker:
    """The whole cluster. `epoch` is the one that InitProducerId returned to the caller."""

    def __init__(self) -> None:
        self.partitions: dict[TopicPartition, Partition] = defaultdict(Partition)
        self.offsets: dict[tuple[str, TopicPartition], int] = {}
        self._producers: dict[str, _Producer] = defaultdict(_Producer)

    def init_producer(self, transactional_id: str) -> int:
        """InitProducerId: aborts the open transaction of the previous producer and fences that producer. Returns the epoch."""
        producer = self._producers[transactional_id]
        if producer.transaction is not None:
            self._end(producer, "aborted")
        producer.epoch += 1
        return producer.epoch

    def append(
        self,
        transactional_id: str | None,
        epoch: int,
        tp: TopicPartition,
        records: list[tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]],
    ) -> int:
        """Produce. Returns the offset of the first record."""
        transaction = None
        if transactional_id is not None:
            transaction = self._transaction(transactional_id, epoch)
            transaction.partitions.add(tp)
        partition = self.partitions[tp]
        first = partition.end
        for timestamp, key, value, headers in records:
            partition.records.append(Stored(tp.topic, tp.partition, partition.end, timestamp, key, value, headers, transaction))
            partition.end += 1
        return first

    def add_offsets(self, transactional_id: str, epoch: int, group: str, offsets: dict[TopicPartition, int]) -> None:
        """TxnOffsetCommit."""
        transaction = self._transaction(transactional_id, epoch)
        transaction.offsets.update({(group, tp): offset for tp, offset in offsets.items()})

    def end_transaction(self, transactional_id: str, epoch: int, commit: bool) -> None:
        """EndTxn. Changes nothing if there is no open transaction; raises ProducerFenced if the caller has been fenced."""
        producer = self._fenced_unless(transactional_id, epoch)
        if producer.transaction is not None:
            self._end(producer, "committed" if commit else "aborted")

    def compact(self, tp: TopicPartition) -> None:
        """Keep only the last committed record of every key, as Kafka's log cleaner may do at any time. Tombstones stay."""
        partition = self.partitions[tp]
        last = {record.key: record.offset for record in partition.committed()}
        stable = partition.stable()
        partition.records = [
            record for record in partition.records if record.offset >= stable or last.get(record.key) == record.offset
        ]

    def _transaction(self, transactional_id: str, epoch: int) -> Transaction:
        producer = self._fenced_unless(transactional_id, epoch)
        if producer.transaction is None:
            producer.transaction = Transaction()
        return producer.transaction

    def _fenced_unless(self, transactional_id: str, epoch: int) -> _Producer:
        producer = self._producers[transactional_id]
        if producer.epoch != epoch:
            raise ProducerFenced
        return producer

    def _end(self, producer: _Producer, state: str) -> None:
        transaction, producer.transaction = producer.transaction, None
        assert transaction is not None
        transaction.state = state
        for tp in transaction.partitions:
            self.partitions[tp].end += 1  # the marker
        if state == "committed":
            self.offsets.update(transaction.offsets)
