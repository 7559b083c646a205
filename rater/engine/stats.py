"""Figures of a worker, kept in plain attributes; written once a batch, read by whoever exports them."""

from dataclasses import dataclass, field

__all__ = ["EngineStats", "TaskStats"]


@dataclass(slots=True)
class TaskStats:
    """One task since it was first assigned. Counters never go back."""

    records: int = 0
    batches: int = 0
    ticks: int = 0
    outputs: int = 0
    process_s: float = 0.0
    commit_s: float = 0.0
    aborts: int = 0
    reopens: int = 0
    merge_waits_given_up: int = 0
    restored_records: int = 0
    restore_remaining: int = 0
    lag_records: int = 0
    open: bool = False


@dataclass(slots=True)
class EngineStats:
    """`tasks` by (group, partition); a task that was revoked stays with its counters."""

    tasks: dict[tuple[str, int], TaskStats] = field(default_factory=dict)
    rebalances: int = 0

    def task(self, group: str, partition: int) -> TaskStats:
        return self.tasks.setdefault((group, partition), TaskStats())

    @property
    def records(self) -> int:
        return sum(task.records for task in self.tasks.values())

    @property
    def batches(self) -> int:
        return sum(task.batches for task in self.tasks.values())

    @property
    def lag_records(self) -> int:
        return sum(task.lag_records for task in self.tasks.values())
