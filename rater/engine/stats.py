"""A worker's metrics. They are written once per batch or once per second, and read by the exporter (`rater/ops/metrics.py`).

Counters count committed work. They never decrease: a task that is revoked and assigned again continues from its old values.
Gauges, including the lag, are valid only while the task belongs to this worker.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from prometheus_client import Histogram

from rater.engine.api import Metric, Record

__all__ = ["STAGES", "BatchHistograms", "BatchObserver", "EngineStats", "Lag", "MetricDefinition", "TaskStats"]

STAGES = ("process", "send", "commit", "store")
_RECORDS = (1, 10, 100, 500, 1000, 2000, 4000, 8000, 16_000)
_STAGE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
_AGE_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21_600, 86_400)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricDefinition:
    """How a metric that an agent counts is exported. Declare it beside the code that counts.

    `key` is its short name in `Measured`, `name` its exported name. `scale` divides the counted value (1,000,000 for micros).
    `begins_at_0`: for each label, the values that are exported as 0 from the start, so that the first count is an increase.
    """

    key: str
    name: str
    meaning: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...] = ()
    scale: int = 1
    begins_at_0: tuple[tuple[str, ...], ...] | None = None


class BatchObserver(Protocol):
    """Called after every batch that has records. It must not raise, and must return quickly."""

    def __call__(
        self,
        partition: int,
        records: Sequence[Record],
        began_ns: int,
        stages_s: Sequence[float],
        error: BaseException | None,
    ) -> None:
        """`began_ns` is since the epoch. `stages_s` has the seconds of each of `STAGES`; it is empty if there is an `error`."""


class BatchHistograms:
    """Histograms over the batches of one engine, all tasks together."""

    def __init__(self) -> None:
        self.records = _histogram("rater_batch_records", "Records in a batch.", (), _RECORDS)
        self.age = _histogram(
            "rater_record_age_seconds", "Time from a record's timestamp to its commit; oldest record of each batch.", (), _AGE_S
        )
        self.stage = _histogram("rater_batch_stage_seconds", "Time a batch takes, by stage.", ("stage",), _STAGE_S)
        self._stages = [self.stage.labels(stage) for stage in STAGES]

    def observe(self, records: int, age_s: float | None, stages_s: Sequence[float]) -> None:
        """Record a committed transaction.

        `age_s` is the age of its first record; None if it has no records. `stages_s` has the seconds of each of `STAGES`.
        """
        if age_s is not None:
            self.records.observe(records)
            self.age.observe(max(0.0, age_s))
        for stage, took_s in zip(self._stages, stages_s, strict=True):
            stage.observe(took_s)


@dataclass(frozen=True, slots=True)
class Lag:
    """The records of a topic partition that are not processed: how many, and the age of the first one in seconds."""

    records: int
    seconds: float


@dataclass(slots=True)
class TaskStats:
    """Metrics of one task since it was first assigned. `engine` has those that all tasks share.

    `ticks` counts transactions of due work. `restore_remaining` is in changelog offsets. `counts` and `gauges` are the agent's
    own. `lag` is by topic. `stalled_s` is the time since the last commit while there is lag, else 0.
    """

    engine: "EngineStats"
    input_records: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    ticks: int = 0
    outputs: int = 0
    aborts: int = 0
    reopens: int = 0
    merge_waits_given_up: int = 0
    restored_records: int = 0
    restore_remaining: int = 0
    counts: Counter[Metric] = field(default_factory=Counter)
    gauges: Mapping[Metric, float] = field(default_factory=dict)
    lag: Mapping[str, Lag] = field(default_factory=dict)
    stalled_s: float = 0.0
    store_bytes: int = 0
    open: bool = False

    @property
    def records(self) -> int:
        """Records processed, all topics together."""
        return self.input_records.total()

    def observe_batch(
        self, partition: int, records: Sequence[Record], began_ns: int, stages_s: Sequence[float], error: BaseException | None
    ) -> None:
        """Tell the observer that a batch with records has been committed, or was ended by `error`."""
        if self.engine.on_batch is not None:
            self.engine.on_batch(partition, records, began_ns, stages_s, error)

    @property
    def lag_records(self) -> int:
        """Records not processed yet, all topics together."""
        return sum(lag.records for lag in self.lag.values())


@dataclass(slots=True)
class EngineStats:
    """Metrics of one engine. `tasks` is by (group, partition), and `on_batch` the observer of batches, if there is one."""

    tasks: dict[tuple[str, int], TaskStats] = field(default_factory=dict)
    rebalances: int = 0
    on_batch: BatchObserver | None = None
    histograms: BatchHistograms = field(default_factory=BatchHistograms)

    def task(self, group: str, partition: int) -> TaskStats:
        """The task's metrics, created if necessary. They are kept from one assignment to the next."""
        found = self.tasks.get((group, partition))
        if found is None:
            found = self.tasks[group, partition] = TaskStats(self)
        return found

    @property
    def records(self) -> int:
        """Records processed by all tasks."""
        return sum(task.records for task in self.tasks.values())

    @property
    def batches(self) -> int:
        """Batches committed by all tasks."""
        return sum(task.batches for task in self.tasks.values())

    @property
    def lag_records(self) -> int:
        """Records not processed yet, all tasks together."""
        return sum(task.lag_records for task in self.tasks.values())


def _histogram(name: str, meaning: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
    return Histogram(name, meaning, labels, buckets=buckets, registry=None)
