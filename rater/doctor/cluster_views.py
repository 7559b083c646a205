"""What the doctor sees of a Kafka cluster: plain values, filled in by `cluster_reader`, judged by the checks."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from aiokafka import TopicPartition

__all__ = ["BrokerView", "ClusterView", "GroupView", "LastBatch", "PartitionView", "TopicView"]

_READ = 3  # Kafka's number of the operation


@dataclass(frozen=True, slots=True)
class PartitionView:
    number: int
    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopicView:
    """`error` is Kafka's code, 0 for none; `may` the bits of what the user may do."""

    error: int
    may: int
    partitions: tuple[PartitionView, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The cluster as one broker describes it; `topics` are those that were asked for; `may`: with the cluster itself."""

    brokers: dict[int, str]
    controller: int
    topics: dict[str, TopicView]
    may: int = -1

    def present(self) -> list[str]:
        """The topics that are there and may be looked at."""
        return [name for name, topic in self.topics.items() if topic.error == 0]

    def unreadable(self, topics: Collection[str]) -> list[str]:
        """Those of the topics that are not there, or may not be read."""
        present = self.present()
        return [name for name in topics if name not in present or not self.topics[name].may >> _READ & 1]

    def partitions(self, topics: Collection[str]) -> list[TopicPartition]:
        """The partitions with a leader of those of the topics that are there."""
        return [
            TopicPartition(name, p.number)
            for name in topics
            if name in self.topics
            for p in self.topics[name].partitions
            if p.leader >= 0
        ]


@dataclass(frozen=True, slots=True)
class BrokerView:
    """A broker: the versions it speaks of each API, and the level of its metadata.version, supported and settled on."""

    apis: dict[int, tuple[int, int]]
    supported: int | None
    settled: int | None


@dataclass(frozen=True, slots=True)
class GroupView:
    """A consumer group. `static`: members with an instance id. `owned`: partitions that any of them has."""

    state: str
    members: int = 0
    static: int = 0
    owned: frozenset[TopicPartition] = frozenset()
    committed: Mapping[TopicPartition, int] | None = None
    may: int = -1


@dataclass(frozen=True, slots=True)
class LastBatch:
    """The last batch of a partition. A marker ends a transaction and bears the time of the broker that wrote it."""

    timestamp_ms: int
    is_marker: bool
