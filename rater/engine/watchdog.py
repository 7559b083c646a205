"""The watchdog: is every task moving, how far behind is it, and are the topics still what they were?

It asks the brokers where the input ends apart from the consumer: a consumer that has silently stopped fetching would not know.
A worker that stands still while there is input is not alive. It is never called so if the brokers can't be asked, because
restarting it wouldn't help then.
"""

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

from mode.utils.logging import get_logger

from rater.engine.broker import Broker, TopicPartition
from rater.engine.errors import FatalError, TopicsError
from rater.engine.settings import EngineSettings
from rater.engine.stats import Lag
from rater.engine.task import Task

if TYPE_CHECKING:
    from rater.engine.engine import InputSource

__all__ = ["Watchdog", "Watched"]

log = get_logger(__name__)

_LOOK_EVERY_S = 1.0
_TOPICS_EVERY_S = 5.0
_TOPICS_FAULTS_MAX = 3  # in a row: a broker that has just come up may not know all topics
_ENDS_EVERY_S = 2.0
_ENDS_AGE_S_MAX = 15.0  # older knowledge of the topics' ends is no reason to call a worker stalled


class Watched(Protocol):
    """What the watchdog looks at: the engine."""

    clock_ms: Callable[[], int]

    @property
    def assigned_tasks(self) -> Collection[Task]: ...
    @property
    def source(self) -> "InputSource": ...
    @property
    def broker(self) -> Broker: ...

    async def check_topics(self) -> int:
        """Raise TopicsError if a topic is missing or has another number of partitions."""

    def fail(self, error: BaseException) -> None:
        """End the worker."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds, or when the engine stops."""


class Watchdog:
    """Three looks, each to be repeated for as long as the worker runs. `stalled` says which tasks stand still."""

    def __init__(self, watched: Watched, settings: EngineSettings) -> None:
        self.stalled: list[str] = []
        self._watched = watched
        self._settings = settings
        self._topics_faults = 0
        self._ends: dict[TopicPartition, int] = {}
        self._ends_at_s = 0.0
        self._restored_records = 0

    async def look(self) -> None:
        """Measure each task, and report those that have not moved for `stall_ms_max`. Raises what has ended the membership."""
        await self._watched.sleep(_LOOK_EVERY_S)
        await self._watched.source.check_membership()
        now_s = time.monotonic()
        ends_are_known = now_s - self._ends_at_s < _ENDS_AGE_S_MAX
        self._count_restoring_as_moving(now_s)
        stalled: list[str] = []
        for task in self._watched.assigned_tasks:
            self._measure(task, now_s)
            if ends_are_known and now_s - task.moved_at_s > self._settings.stall_ms_max / 1000:
                stalled.append(f"{task.id} (lag {task.stats.lag_records}, restoring {task.stats.restore_remaining})")
        if stalled and not self.stalled:
            log.error("no progress for %s ms: %s", self._settings.stall_ms_max, ", ".join(stalled))
        self.stalled = stalled
        if stalled and self._settings.stall_is_fatal:
            self._watched.fail(FatalError(f"no progress for {self._settings.stall_ms_max} ms: {', '.join(stalled)}"))

    async def look_at_topics(self) -> None:
        """End the worker if a topic disappears or gets more partitions. Its clients would only go on asking."""
        await self._watched.sleep(_TOPICS_EVERY_S)
        try:
            await self._watched.check_topics()
            self._topics_faults = 0
        except TopicsError as error:
            self._topics_faults += 1
            if self._topics_faults == _TOPICS_FAULTS_MAX:
                self._watched.fail(error)
        except Exception as error:  # noqa: BLE001 - the broker is away, or the client is being closed
            log.debug("could not check the topics: %r", error)

    async def look_at_ends(self) -> None:
        """Ask the brokers where the input ends."""
        try:
            inputs = [tp for task in self._watched.assigned_tasks for tp in task.id.inputs]
            self._ends = await self._watched.broker.ends(inputs)
            self._ends_at_s = time.monotonic()
            await self._look_up_positions()
        except Exception as error:  # noqa: BLE001 - the broker is away, or the client is being closed
            log.debug("could not ask for the ends of the input: %r", error)
        await self._watched.sleep(_ENDS_EVERY_S)

    async def _look_up_positions(self) -> None:
        """Find where tasks stand that are still to be restored, so that their lag is visible meanwhile."""
        waiting = [task for task in self._watched.assigned_tasks if not task.positions]
        inputs = [tp for task in waiting for tp in task.id.inputs]
        if not inputs:
            return
        committed = await self._watched.broker.committed(self._settings.app_id, inputs)
        bounds = await self._watched.broker.bounds(inputs)
        for task in waiting:
            if not task.positions:
                task.positions = {tp.topic: committed.get(tp, bounds[tp][0]) for tp in task.id.inputs}

    def _count_restoring_as_moving(self, now_s: float) -> None:
        """Tasks that wait for their turn to be restored move while others are being restored."""
        restored = sum(task.stats.restored_records for task in self._watched.assigned_tasks)
        if restored != self._restored_records:
            self._restored_records = restored
            for task in self._watched.assigned_tasks:
                if not task.is_open:
                    task.moved_at_s = now_s

    def _measure(self, task: Task, now_s: float) -> None:
        """What of its input a task has not processed, and since when it has not moved."""
        stats = task.stats
        stats.merge_waits_given_up = task.queues.waits_given_up
        if task.is_open and not stats.lag_records:
            task.moved_at_s = task.committed_at_s = now_s
        stats.lag = {tp.topic: self._lag(task, tp) for tp in task.id.inputs}
        stats.stalled_s = now_s - task.committed_at_s if stats.lag_records else 0.0

    def _lag(self, task: Task, tp: TopicPartition) -> Lag:
        offset, timestamp_ms = task.reached(tp.topic)
        end = max(self._ends.get(tp, 0), self._watched.source.progress(tp).end or 0)
        if offset is None or offset >= end:
            return Lag(0, 0.0)
        if timestamp_ms is None:  # not fetched yet: at least as old as the last commit
            return Lag(end - offset, time.monotonic() - task.committed_at_s)
        return Lag(end - offset, max(0.0, (self._watched.clock_ms() - timestamp_ms) / 1000))
