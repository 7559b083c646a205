"""The engine: from the partitions this worker is assigned to the tasks that process them.

It holds one task for every partition number of every task group it is assigned, feeds them from the one
consumer, and watches that they move. All of it runs in the worker's loop; only the consumer is in a thread
of its own.

Rebalance. Every partition is revoked before a new assignment (aiokafka knows only the eager protocol).
Revoking returns when each task has committed the batch it was at, or has given it up; a new assignment
opens every task anew. So no two workers ever believe to own a task at once, except a zombie, and that one
is fenced.

Feeding. A poll asks for just those topics whose task has room, so a slow or restoring task holds up nobody
and what is held in memory is bounded: at most two batches a topic.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from aiokafka.errors import KafkaError
from mode import Service
from mode.utils.logging import get_logger

from rater.engine.api import ProcessorFactory
from rater.engine.broker import AiokafkaKafka, TopicPartition
from rater.engine.checkpoint import Checkpoint, TaskId
from rater.engine.errors import FatalError, StoreBusyError, TopicsError
from rater.engine.partition_group import InputBuffer
from rater.engine.stats import EngineStats, Lag
from rater.engine.store import LocalStore, StoreIdentity, open_store
from rater.engine.task import Task
from rater.settings import Settings

if TYPE_CHECKING:
    from rater.engine.app import EngineApp

__all__ = ["BackgroundService", "Engine", "TaskGroup"]

log = get_logger(__name__)

_POLL_S = 0.5
_POLL_PARTIAL_S = 0.02
_WATCH_S = 1.0
_OPENING_MAX = 4
_TOPICS_CHECK_S = 5.0
_ENDS_CHECK_S = 2.0
_ENDS_AGE_S_MAX = 15.0  # what is known of the topics' ends for longer is no ground to call a worker stalled
_TOPICS_FAULTS_MAX = 3  # in a row: a broker that has just come up may not know them all


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Co-partitioned topics with one writer a partition.

    `topics` are in rank order (see `merge`). `outputs` are the topics the processor emits to. All names are
    physical, and all topics have the same number of partitions; where `partitions` says which, no other will do:
    what is in a partition depends on how many there are. That is checked at the start and while the worker runs.
    """

    name: str
    topics: tuple[str, ...]
    processor: ProcessorFactory
    changelog: str
    outputs: tuple[str, ...] = ()
    partitions: int | None = None


class BackgroundService(Protocol):
    """What runs beside the tasks and outlives each of them: a follower, a client's connections, an endpoint.

    All are started before the first task is opened and stopped after the last one is closed.
    """

    async def start(self, on_fatal: Callable[[BaseException], None]) -> None:
        """Returns when it is ready. `on_fatal` is told later what must end the worker."""

    async def stop(self) -> None: ...


class Engine(Service):
    """A service of the app: it is started after the consumer and stopped before it."""

    app: "EngineApp"

    def __init__(
        self,
        app: "EngineApp",
        settings: Settings,
        groups: Sequence[TaskGroup],
        background_services: Sequence[BackgroundService] = (),
        *,
        clock_ms: Callable[[], int],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.app = app
        self.settings = settings
        self.groups = tuple(groups)
        self.background_services = tuple(background_services)
        self.stats = EngineStats()
        self.clock_ms = clock_ms
        self.failure: BaseException | None = None
        self.failed = asyncio.Event()
        self._kafka = AiokafkaKafka(settings)
        self._assigned: dict[tuple[str, int], Task] = {}
        self._by_input: dict[TopicPartition, Task] = {}
        self._room = asyncio.Event()
        self._opening = asyncio.Semaphore(_OPENING_MAX)
        self._stalled: list[str] = []
        self._has_assignment = False
        self._ends: dict[TopicPartition, int] = {}
        self._ends_at_s = 0.0
        self._restored = 0
        self._closed = False

    def alive(self) -> bool:
        """False when the worker can't be trusted to go on: it has failed, or a partition lags and does not
        move."""
        return self.failure is None and not self._stalled

    def troubles(self) -> list[str]:
        """What keeps it from being alive."""
        return [*([] if self.failure is None else [str(self.failure)]), *(f"{task} does not move" for task in self._stalled)]

    def missing(self) -> list[str]:
        """What keeps it from being ready: an assignment (which may be empty) and every task of it restored."""
        if self._closed or not self._has_assignment:
            return ["no partitions have been assigned yet"]
        opening = [task for task in self._assigned.values() if not task.is_open]
        return [f"{task.id} is being opened, {task.stats.restore_remaining} offsets to restore" for task in opening]

    @property
    def input_topics(self) -> list[str]:
        """What this worker reads."""
        return [topic for group in self.groups for topic in group.topics]

    @property
    def assigned(self) -> list[tuple[str, int]]:
        """Tasks of this worker now, as (group, partition)."""
        return sorted(self._assigned)

    async def on_start(self) -> None:
        await self._kafka.start()
        await self._check_topics()
        await asyncio.gather(*(service.start(self.fail) for service in self.background_services))
        await self.app.consumer.subscribe(set(self.input_topics))

    async def on_stop(self) -> None:
        await self.close_tasks(0.0)
        await asyncio.gather(*(service.stop() for service in self.background_services), self._kafka.stop())

    def fail(self, error: BaseException) -> None:
        """End the worker. The first error is the one that counts."""
        if self.failure is None:
            self._closed = True
            self.failure = error
            self.failed.set()

    async def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Open a task for each assigned partition number. Returns before they have been restored."""
        if self._closed:
            return
        self.stats.rebalances += 1
        assert not self._assigned, "a new assignment comes after everything has been revoked"
        for group in self.groups:
            for partition in sorted({tp.partition for tp in partitions if tp.topic in group.topics}):
                if group.partitions is not None and partition >= group.partitions:
                    self.fail(_wrong_count(group, f"{group.name}[{partition}] has been assigned"))
                    return
                missing = [t for t in group.topics if TopicPartition(t, partition) not in set(partitions)]
                if missing:
                    self.fail(
                        TopicsError(
                            f"{group.name}[{partition}] is assigned without {', '.join(missing)}; see `rater topics diff`"
                        )
                    )
                    return
                self._add_task(group, partition)
        self._has_assignment = True
        self._room.set()

    async def revoke(self) -> None:
        """Close every task: each commits the batch it is at, or gives it up when that takes too long."""
        await self.close_tasks(self.settings.rebalance_timeout_ms / 1000 / 2)

    async def close(self, timeout_s: float) -> None:
        """Close every task, for good."""
        self._closed = True
        await self.close_tasks(timeout_s)

    async def close_tasks(self, timeout_s: float) -> None:
        tasks, self._assigned, self._by_input = list(self._assigned.values()), {}, {}
        self._has_assignment = False
        finished = await asyncio.gather(*(task.stop(timeout_s) for task in tasks))
        for task, in_time in zip(tasks, finished, strict=True):
            if not in_time:
                log.warning("%s: gave up the batch under way", task.id)

    async def seek(self, task: TaskId, positions: Mapping[str, int]) -> bool:
        return await self.app.consumer.seek_to(
            {TopicPartition(topic, task.partition): offset for topic, offset in positions.items()}
        )

    async def is_member(self) -> bool:
        try:
            return await self.app.consumer.heartbeat()
        except (KafkaError, OSError, TimeoutError):
            return False  # not known is not confirmed

    def has_room(self) -> None:
        self._room.set()

    @Service.task
    async def _feed(self) -> None:
        await self._until_failure(self._feed_once)

    @Service.task
    async def _watch_topics(self) -> None:
        """A topic that goes, or gets partitions, ends the worker. Its clients would only go on asking."""
        faults = 0
        while not self.should_stop and not self._closed:
            await self.sleep(_TOPICS_CHECK_S)
            try:
                await self._check_topics()
                faults = 0
            except TopicsError as error:
                faults += 1
                if faults == _TOPICS_FAULTS_MAX:
                    self.fail(error)
            except Exception as error:  # noqa: BLE001 - the broker is away, or the client is being closed
                log.debug("the topics could not be looked at: %r", error)

    @Service.task
    async def _watch_ends(self) -> None:
        """Ask where the input ends, apart from the consumer: one that has silently ceased to fetch would not know."""
        while not self.should_stop and not self._closed:
            try:
                self._ends = await self._kafka.ends(list(self._by_input))
                self._ends_at_s = time.monotonic()
                await self._look_up_positions()
            except Exception as error:  # noqa: BLE001 - the broker is away, or the client is being closed
                log.debug("the ends of the input could not be asked for: %r", error)
            await self.sleep(_ENDS_CHECK_S)

    async def _look_up_positions(self) -> None:
        """Where tasks stand that are still to be restored, so that their lag is seen meanwhile."""
        waiting = [task for task in self._assigned.values() if not task.positions]
        inputs = [tp for task in waiting for tp in task.id.inputs]
        if not inputs:
            return
        committed = await self._kafka.committed(str(self.app.conf.id), inputs)
        bounds = await self._kafka.bounds(inputs)
        for task in waiting:
            if not task.positions:
                task.positions = {tp.topic: committed.get(tp, bounds[tp][0]) for tp in task.id.inputs}

    @Service.task
    async def _watch(self) -> None:
        await self._until_failure(self._watch_once)

    async def _until_failure(self, step: Callable[[], Awaitable[None]]) -> None:
        while not self.should_stop and not self._closed:
            try:
                await step()
            except Exception as error:  # noqa: BLE001 - whatever it is, it ends the worker
                unknown = error if isinstance(error, FatalError) else FatalError(f"the consumer failed: {error!r}")
                unknown.__cause__ = error if unknown is not error else error.__cause__
                self.fail(unknown)

    async def _feed_once(self) -> None:
        wanted: dict[TopicPartition, int] = {}
        askers: dict[TopicPartition, tuple[Task, int]] = {}
        self._room.clear()
        for task in self._assigned.values():
            if task.is_open:
                for topic, position in task.buffer.wanted().items():
                    tp = TopicPartition(topic, task.id.partition)
                    wanted[tp] = position
                    askers[tp] = task, task.epoch
        if not wanted:
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._room.wait()
            return
        # While some have no room, poll briefly: they may have it any moment.
        timeout_s = _POLL_S if len(wanted) == len(self._by_input) else _POLL_PARTIAL_S
        polled = await self.app.consumer.poll(wanted, timeout_s, self.settings.batch_records_max)
        for tp, position in polled.positions.items():
            task, epoch = askers[tp]
            if task.is_open and task.epoch == epoch:
                task.buffer.add(tp.topic, polled.records.get(tp, ()), position)

    async def _watch_once(self) -> None:
        await self.sleep(_WATCH_S)
        await self.app.consumer.check_membership()
        now_s = time.monotonic()
        known = now_s - self._ends_at_s < _ENDS_AGE_S_MAX
        restored = sum(task.stats.restored_records for task in self._assigned.values())
        if restored != self._restored:  # those that wait for their turn to be restored move with it
            self._restored = restored
            for task in self._assigned.values():
                if not task.is_open:
                    task.moved_at_s = now_s
        stalled: list[str] = []
        for task in self._assigned.values():
            self._measure(task, now_s)
            if known and now_s - task.moved_at_s > self.settings.stall_ms_max / 1000:
                stalled.append(f"{task.id} (lag {task.stats.lag_records}, restoring {task.stats.restore_remaining})")
        if stalled and not self._stalled:
            log.error("not moving for %s ms: %s", self.settings.stall_ms_max, ", ".join(stalled))
        self._stalled = stalled
        if stalled and self.settings.stall_is_fatal:
            self.fail(FatalError(f"not moving for {self.settings.stall_ms_max} ms: {', '.join(stalled)}"))

    def _measure(self, task: Task, now_s: float) -> None:
        """What of its input a task has not processed, and since when it has not moved."""
        stats = task.stats
        stats.merge_waits_given_up = task.buffer.merge_waits_given_up
        if task.is_open and not stats.lag_records:
            task.moved_at_s = task.committed_at_s = now_s
        stats.lag = {tp.topic: self._lag(task, tp) for tp in task.id.inputs}
        stats.stalled_s = now_s - task.committed_at_s if stats.lag_records else 0.0

    def _lag(self, task: Task, tp: TopicPartition) -> Lag:
        offset, timestamp_ms = task.reached(tp.topic)
        end = max(self._ends.get(tp, 0), self.app.consumer.progress(tp).end or 0)
        if offset is None or offset >= end:
            return Lag(0, 0.0)
        if timestamp_ms is None:  # not fetched yet: as old as the last commit, at least
            return Lag(end - offset, time.monotonic() - task.committed_at_s)
        return Lag(end - offset, max(0.0, (self.clock_ms() - timestamp_ms) / 1000))

    def _add_task(self, group: TaskGroup, partition: int) -> None:
        settings = self.settings
        task_id = TaskId(self.app.conf.id, group.name, partition, group.topics, group.changelog, group.partitions)
        stats = self.stats.task(group.name, partition)

        def new_checkpoint() -> Checkpoint:
            return Checkpoint(
                task_id,
                self._kafka,
                lambda: self._open_store(task_id),
                group.processor,
                stats,
                self.stats.histograms,
                settings.store_age_ms_max,
                settings.accept_lost_input,
                settings.broker_timeout_ms / 1000,
                self.stats.on_batch,
            )

        def is_dry(topic: str, position: int) -> bool:
            progress = self.app.consumer.progress(TopicPartition(topic, partition))
            return progress.end is not None and progress.position == position and position >= progress.end

        buffer = InputBuffer(
            group.topics,
            settings.batch_records_max,
            settings.batch_bytes_max,
            settings.merge_wait_ms_max / 1000,
            is_dry,
            time.monotonic,
        )
        task = Task(
            task_id,
            buffer,
            self,
            new_checkpoint,
            stats,
            self.fail,
            settings.retry_wait_ms_max / 1000,
            self._opening,
            self.clock_ms,
        )
        self._assigned[group.name, partition] = task
        for tp in task_id.inputs:
            self._by_input[tp] = task
        task.start()

    def _open_store(self, task: TaskId) -> LocalStore:
        identity = StoreIdentity(task.app_id, task.group, task.changelog, task.partition)
        folder = self.settings.data_dir / task.app_id / task.group / str(task.partition)
        cache_bytes = self.settings.store_cache_bytes
        try:
            return open_store(folder, identity, cache_bytes)
        except StoreBusyError:
            # A stopped process of the same host still holds it. Its transactions are fenced, but its files
            # are its own.
            spare = Path(f"{folder}-spare")
            log.warning("%s is in use by another process: restoring to %s", folder, spare)
            return open_store(spare, identity, cache_bytes)

    async def _check_topics(self) -> None:
        for group in self.groups:
            names: Iterable[str] = dict.fromkeys((*group.topics, group.changelog, *group.outputs))
            counts = await self._kafka.partition_counts(list(names))
            if len(set(counts.values())) != 1:
                listed = ", ".join(f"{topic} {count}" for topic, count in sorted(counts.items()))
                raise TopicsError(f"the topics of {group.name} must have one number of partitions: {listed}")
            found = next(iter(counts.values()))
            if group.partitions not in (None, found):
                raise _wrong_count(group, f"the topics of {group.name} have {found} partitions")


def _wrong_count(group: TaskGroup, found: str) -> TopicsError:
    return TopicsError(
        f"{found}, and {group.partitions} are expected (RATER_PARTITIONS). Once there is data their number is fixed: with "
        "another, a key's records would go on in another partition than its state is in"
    )
