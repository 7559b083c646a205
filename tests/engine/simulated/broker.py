"""A broker in memory: partitions with transactions, read committed, fencing, committed offsets, compaction.

It is what Kafka promises, not how: every method happens at once. What goes wrong on the way to it and back is `process`'s.
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
    """A record of a partition; one with no `transaction` was sent without."""

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
    """Records in offset order, with gaps where markers are and where compaction has been."""

    records: list[Stored] = field(default_factory=list)
    end: int = 0

    def stable(self) -> int:
        """The last stable offset: before the first record of a transaction that is open."""
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
    """All of it; `epoch` is what InitProducerId answered."""

    def __init__(self) -> None:
        self.partitions: dict[TopicPartition, Partition] = defaultdict(Partition)
        self.offsets: dict[tuple[str, TopicPartition], int] = {}
        self._producers: dict[str, _Producer] = defaultdict(_Producer)

    def init_producer(self, transactional_id: str) -> int:
        """InitProducerId: what the one before left open is aborted, and it is fenced."""
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
        """Produce. Gives the first offset."""
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
        """EndTxn. One that has been fenced meanwhile changes nothing."""
        producer = self._fenced_unless(transactional_id, epoch)
        if producer.transaction is not None:
            self._end(producer, "committed" if commit else "aborted")

    def compact(self, tp: TopicPartition) -> None:
        """Of every key keep the last committed record, as a cleaner may at any time; tombstones stay a while."""
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
