"""The state of a Kafka cluster as plain values: `cluster_reader` fills them in, the checks judge them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from aiokafka import TopicPartition

__all__ = ["BrokerView", "ClusterView", "GroupView", "LastBatch", "PartitionView", "TopicView"]

_READ = 3  # Kafka's number of the operation


@dataclass(frozen=True, slots=True)
class PartitionView:
    """A partition. `leader`, `replicas` and `in_sync` are broker ids; `leader` is -1 if there is none."""

    number: int
    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopicView:
    """A topic. `error`: Kafka's error code, 0 for none. `may`: what this user may do, as a bit field of Kafka's operations."""

    error: int
    may: int
    partitions: tuple[PartitionView, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The cluster as one broker describes it.

    `brokers`: id → "host:port". `topics`: only those asked for. `may`: what this user may do with the cluster itself.
    """

    brokers: dict[int, str]
    controller: int
    topics: dict[str, TopicView]
    may: int = -1

    def present(self) -> list[str]:
        """The topics that exist and that this user may describe."""
        return [name for name, topic in self.topics.items() if topic.error == 0]

    def unreadable(self, topics: Collection[str]) -> list[str]:
        """Those of `topics` that don't exist or that this user may not read."""
        present = self.present()
        return [name for name in topics if name not in present or not self.topics[name].may >> _READ & 1]

    def partitions(self, topics: Collection[str]) -> list[TopicPartition]:
        """All partitions of `topics` that have a leader. Topics that don't exist are omitted."""
        return [
            TopicPartition(name, p.number)
            for name in topics
            if name in self.topics
            for p in self.topics[name].partitions
            if p.leader >= 0
        ]


@dataclass(frozen=True, slots=True)
class BrokerView:
    """A broker. `apis`: API key → lowest and highest version. `supported`, `in_use`: levels of its metadata.version."""

    apis: dict[int, tuple[int, int]]
    supported: int | None
    in_use: int | None


@dataclass(frozen=True, slots=True)
class GroupView:
    """A consumer group. `static`: how many members have an instance id. `owned`: partitions assigned to any member.

    `committed`: partition → offset. `may`: what this user may do with the group.
    """

    state: str
    members: int = 0
    static: int = 0
    owned: frozenset[TopicPartition] = frozenset()
    committed: Mapping[TopicPartition, int] | None = None
    may: int = -1


@dataclass(frozen=True, slots=True)
class LastBatch:
    """The last batch of a partition. A marker ends a transaction; its timestamp is the clock of the broker that wrote it."""

    timestamp_ms: int
    is_marker: bool
