"""Task groups and tasks: which topics belong together, and who writes them."""

from dataclasses import dataclass

from rater.engine.api import MemoryFactory, Sink, State
from rater.engine.broker import TopicPartition
from rater.engine.stats import MetricDefinition

__all__ = ["TaskGroup", "TaskId", "no_memory"]


def no_memory(partition: int, state: State, sink: Sink) -> None:
    """For an agent that keeps nothing between batches but its state."""
    del partition, state, sink


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Co-partitioned topics with one writer per partition.

    `topics` are the input topics in rank order (see `merge`). `outputs` are the topics that the agent emits to. All names are
    physical, and all topics have the same number of partitions. If `partitions` is set, the topics must have exactly that many,
    because what is in a partition depends on how many there are. The engine checks this at the start and while the worker runs.
    `metrics` declares what the memory counts.
    """

    name: str
    topics: tuple[str, ...]
    changelog: str
    outputs: tuple[str, ...] = ()
    partitions: int | None = None
    memory: MemoryFactory = no_memory
    metrics: tuple[MetricDefinition, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskId:
    """A task: one partition number of a task group."""

    app_id: str
    group: str
    partition: int
    topics: tuple[str, ...]
    changelog: str
    partitions: int | None = None

    @property
    def transactional_id(self) -> str:
        """The id that Kafka fences older owners of the task by."""
        return f"{self.app_id}-{self.group}-{self.partition}"

    @property
    def inputs(self) -> list[TopicPartition]:
        """The partitions that the task reads."""
        return [TopicPartition(topic, self.partition) for topic in self.topics]

    def __str__(self) -> str:
        return f"{self.group}[{self.partition}]"
