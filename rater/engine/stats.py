"""What is measured of a worker: written once per batch or once per second, read by the exporter (`rater/ops/metrics.py`).

Counters count what was committed. They never go back: a task that was revoked and comes back continues from its own values.
Momentary values (lag, gauges) are valid only while the task belongs to this worker.
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
    `begins_at_0`: label values, by label, that exist from the start, so that the first occurrence is seen as an increase.
    """

    key: str
    name: str
    meaning: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...] = ()
    scale: int = 1
    begins_at_0: tuple[tuple[str, ...], ...] | None = None


class BatchObserver(Protocol):
    """Told of every batch with records, once it is over. It must not raise, and must not take long."""

    def __call__(
        self,
        partition: int,
        records: Sequence[Record],
        began_ns: int,
        stages_s: Sequence[float],
        error: BaseException | None,
    ) -> None:
        """`began_ns`: since the epoch. `stages_s`: as `STAGES`; empty where an `error` ended it before its commit."""


class BatchHistograms:
    """The batches of one engine, all tasks together."""

    def __init__(self) -> None:
        self.records = _histogram("rater_batch_records", "Records a batch.", (), _RECORDS)
        self.age = _histogram(
            "rater_record_age_seconds", "From a record's timestamp to its commit; the oldest of each batch.", (), _AGE_S
        )
        self.stage = _histogram("rater_batch_stage_seconds", "Time a batch, by stage.", ("stage",), _STAGE_S)
        self._stages = [self.stage.labels(stage) for stage in STAGES]

    def observe(self, records: int, age_s: float | None, stages_s: Sequence[float]) -> None:
        """A transaction was committed. `age_s`: of its oldest record, if it has records; `stages_s`: as in `STAGES`."""
        if age_s is not None:
            self.records.observe(records)
            self.age.observe(max(0.0, age_s))
        for stage, took_s in zip(self._stages, stages_s, strict=True):
            stage.observe(took_s)


@dataclass(frozen=True, slots=True)
class Lag:
    """What of a topic is not processed: how many records, and how old the first of them is."""

    records: int
    seconds: float


@dataclass(slots=True)
class TaskStats:
    """One task since it was first assigned. `engine`: the measurements that all tasks share."""

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
        return self.input_records.total()

    def observe_batch(
        self, partition: int, records: Sequence[Record], began_ns: int, stages_s: Sequence[float], error: BaseException | None
    ) -> None:
        """A batch with records is over: committed, or ended by `error`."""
        if self.engine.on_batch is not None:
            self.engine.on_batch(partition, records, began_ns, stages_s, error)

    @property
    def lag_records(self) -> int:
        return sum(lag.records for lag in self.lag.values())


@dataclass(slots=True)
class EngineStats:
    """`tasks` by (group, partition)."""

    tasks: dict[tuple[str, int], TaskStats] = field(default_factory=dict)
    rebalances: int = 0
    on_batch: BatchObserver | None = None
    histograms: BatchHistograms = field(default_factory=BatchHistograms)

    def task(self, group: str, partition: int) -> TaskStats:
        """The task's own measurements, kept from one assignment to the next."""
        found = self.tasks.get((group, partition))
        if found is None:
            found = self.tasks[group, partition] = TaskStats(self)
        return found

    @property
    def records(self) -> int:
        return sum(task.records for task in self.tasks.values())

    @property
    def batches(self) -> int:
        return sum(task.batches for task in self.tasks.values())

    @property
    def lag_records(self) -> int:
        return sum(task.lag_records for task in self.tasks.values())


def _histogram(name: str, meaning: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
    return Histogram(name, meaning, labels, buckets=buckets, registry=None)
