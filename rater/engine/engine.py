"""The engine: from the partitions assigned to this worker to the tasks that process them.

It has one task for every partition number of every task group that it is assigned, feeds the tasks from the one consumer, and
has the watchdog look after them. All of it runs in the worker's loop; only the consumer has a thread of its own.

Rebalance. Every partition is revoked before a new assignment (aiokafka knows only the eager protocol). `revoke` returns when
each task has committed its batch in flight or has given it up; a new assignment opens all of its tasks. So two workers never
both believe that they own a task, except for a zombie, and a zombie is fenced.

Feeding. A poll asks only for topics whose task has room. So a slow or restoring task delays no other task, and memory is
bounded: at most two batches per topic.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from aiokafka.errors import KafkaError
from mode import Service
from mode.utils.logging import get_logger

from rater.engine.aiokafka_broker import AiokafkaBroker
from rater.engine.batches import Batches
from rater.engine.broker import Broker, TopicPartition
from rater.engine.checkpoint import Checkpoint
from rater.engine.consumer import Polled, Progress
from rater.engine.errors import FatalError, StoreBusyError, TopicsError
from rater.engine.failure import Failure
from rater.engine.groups import TaskGroup, TaskId
from rater.engine.partition_group import PartitionGroup
from rater.engine.settings import EngineSettings
from rater.engine.stats import EngineStats
from rater.engine.store import LocalStore, StoreIdentity, open_store
from rater.engine.task import Task
from rater.engine.watchdog import Watchdog

__all__ = ["BackgroundService", "Engine", "Host", "InputSource"]

log = get_logger(__name__)

_POLL_S = 0.5
_POLL_PARTIAL_S = 0.02
_OPENING_MAX = 4


class BackgroundService(Protocol):
    """What runs beside the tasks and outlives each of them: a follower, a client's connections, an endpoint.

    All are started before the first task is opened and stopped after the last one is closed.
    """

    async def start(self, on_fatal: Callable[[BaseException], None]) -> None:
        """Return when it is ready. Later, `on_fatal` is told what must end the worker."""

    async def stop(self) -> None: ...


class InputSource(Protocol):
    """Where the input comes from: the consumer."""

    async def subscribe(self, topics: Any) -> Any:
        """Join the group for these topics."""

    async def poll(self, wanted: Mapping[TopicPartition, int], timeout_s: float, records_max: int) -> Polled:
        """Records of `wanted` (partition → expected position)."""

    async def seek_to(self, positions: Mapping[TopicPartition, int]) -> bool:
        """Fetch from `positions` on. False if one of them is not assigned any more."""

    async def heartbeat(self) -> bool:
        """Whether the group's coordinator, asked now, counts this member in."""

    async def check_membership(self) -> None:
        """Raise what has ended the membership, if anything has."""

    def progress(self, tp: TopicPartition) -> Progress:
        """How far a partition has been fetched."""


class Host(Protocol):
    """What the engine needs of the app around it."""

    settings: EngineSettings
    failure: Failure

    @property
    def consumer(self) -> InputSource: ...

    async def start_agents(self, actors: int) -> None:
        """Start the agents that read the batches, each with so many actors."""

    @property
    def agents(self) -> Any:
        """Faust's agents, a service."""


class Engine(Service):
    """A service of the app: it is started after the consumer and stopped before it."""

    def __init__(
        self, host: Host, background_services: Sequence[BackgroundService], clock_ms: Callable[[], int], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.settings = host.settings
        self.background_services = tuple(background_services)
        self.clock_ms = clock_ms
        self.groups: list[TaskGroup] = []
        self.stats = EngineStats()
        self.opening = asyncio.Semaphore(_OPENING_MAX)
        self._host = host
        self._failure = host.failure
        self._channels: dict[str, Batches] = {}
        self._broker: Broker = AiokafkaBroker(host.settings)
        self._assigned: dict[tuple[str, int], Task] = {}
        self._by_input: dict[TopicPartition, Task] = {}
        self._room = asyncio.Event()
        self._has_assignment = False
        self._closed = False
        self._watchdog = Watchdog(self, host.settings)

    def add_group(self, group: TaskGroup, channel: Batches) -> None:
        """Have the tasks of `group` put their batches into `channel`. Call it before the start."""
        self.groups.append(group)
        self._channels[group.name] = channel

    # What others ask

    @property
    def failure(self) -> BaseException | None:
        """The error that ends the worker, once there is one."""
        return self._failure.error

    @property
    def source(self) -> InputSource:
        """The consumer."""
        return self._host.consumer

    @property
    def broker(self) -> Broker:
        """The brokers, apart from the consumer."""
        return self._broker

    @property
    def assigned_tasks(self) -> Collection[Task]:
        """The tasks of this worker now."""
        return self._assigned.values()

    @property
    def input_topics(self) -> list[str]:
        """What this worker reads."""
        return [topic for group in self.groups for topic in group.topics]

    @property
    def assigned(self) -> list[tuple[str, int]]:
        """Tasks of this worker now, as (group, partition)."""
        return sorted(self._assigned)

    def alive(self) -> bool:
        """False if the worker can't be trusted to continue: it has failed, or a partition lags and makes no progress."""
        return not self.troubles()

    def troubles(self) -> list[str]:
        """Why it is not alive."""
        failed = [] if self.failure is None else [str(self.failure)]
        return [*failed, *(f"{task} makes no progress" for task in self._watchdog.stalled)]

    def missing(self) -> list[str]:
        """Why it is not ready: it needs an assignment (which may be empty), and every task of it restored."""
        if self._closed or not self._has_assignment:
            return ["no partitions have been assigned yet"]
        opening = [task for task in self._assigned.values() if not task.is_open]
        return [f"{task.id} is being opened, {task.stats.restore_remaining} offsets to restore" for task in opening]

    # Its life

    async def on_start(self) -> None:
        """Reach the brokers, check the topics, start the services and agents, then join the group."""
        await self._broker.start()
        partitions = await self.check_topics()
        await asyncio.gather(*(service.start(self.fail) for service in self.background_services))
        await self._host.start_agents(partitions)
        await self.source.subscribe(set(self.input_topics))

    async def on_stop(self) -> None:
        """Close whatever is open. An orderly end has closed the tasks before, with time for their batches."""
        await self._close_tasks(0.0)
        await self._host.agents.stop()
        await asyncio.gather(*(service.stop() for service in self.background_services), self._broker.stop())

    def fail(self, error: BaseException) -> None:
        """End the worker. The first error is the one that is reported."""
        self._closed = True
        self._failure.report(error)

    async def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Open a task for each assigned partition number. Returns before they have been restored."""
        if self._closed:
            return
        self.stats.rebalances += 1
        assert not self._assigned, "a new assignment comes after everything has been revoked"
        for group in self.groups:
            for partition in sorted({tp.partition for tp in partitions if tp.topic in group.topics}):
                fault = _assignment_fault(group, partition, partitions)
                if fault is not None:
                    self.fail(fault)
                    return
                self._add_task(group, partition)
        self._has_assignment = True
        self._room.set()

    async def revoke(self) -> None:
        """Close every task: each commits its batch in flight, or gives it up if that takes too long."""
        await self._close_tasks(self.settings.rebalance_timeout_ms / 1000 / 2)

    async def close(self, timeout_s: float) -> None:
        """Close every task, for good."""
        self._closed = True
        await self._close_tasks(timeout_s)

    async def _close_tasks(self, timeout_s: float) -> None:
        tasks, self._assigned, self._by_input = list(self._assigned.values()), {}, {}
        self._has_assignment = False
        finished = await asyncio.gather(*(task.stop(timeout_s) for task in tasks))
        for task, in_time in zip(tasks, finished, strict=True):
            if not in_time:
                log.warning("%s: gave up the batch in flight", task.id)

    # What the tasks ask (see task.TaskOwner)

    async def seek(self, task: TaskId, positions: Mapping[str, int]) -> bool:
        """Fetch from `positions` on. False if the task is not assigned any more."""
        return await self.source.seek_to({TopicPartition(topic, task.partition): offset for topic, offset in positions.items()})

    async def is_member(self) -> bool:
        """Whether the coordinator confirms this worker. No answer is no confirmation."""
        try:
            return await self.source.heartbeat()
        except (KafkaError, OSError, TimeoutError):
            return False

    def has_room(self) -> None:
        """A task can take more records than before."""
        self._room.set()

    # Feeding and watching

    @Service.task
    async def _feed(self) -> None:
        await self._until_failure(self._feed_once)

    @Service.task
    async def _watch(self) -> None:
        await self._until_failure(self._watchdog.look)

    @Service.task
    async def _watch_topics(self) -> None:
        await self._until_failure(self._watchdog.look_at_topics)

    @Service.task
    async def _watch_ends(self) -> None:
        await self._until_failure(self._watchdog.look_at_ends)

    async def _until_failure(self, step: Callable[[], Awaitable[None]]) -> None:
        while not self.should_stop and not self._closed:
            try:
                await step()
            except Exception as error:  # noqa: BLE001 - whatever it is, it ends the worker
                fatal = error if isinstance(error, FatalError) else FatalError(f"the consumer failed: {error!r}")
                fatal.__cause__ = error if fatal is not error else error.__cause__
                self.fail(fatal)

    async def _feed_once(self) -> None:
        wanted: dict[TopicPartition, int] = {}
        askers: dict[TopicPartition, tuple[Task, int]] = {}
        self._room.clear()
        for task in self._assigned.values():
            if task.is_open:
                for topic, position in task.queues.wanted().items():
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
        polled = await self.source.poll(wanted, timeout_s, self.settings.batch_records_max)
        for tp, position in polled.positions.items():
            task, epoch = askers[tp]
            if task.is_open and task.epoch == epoch:
                task.queues.add(tp.topic, polled.records.get(tp, ()), position)

    async def check_topics(self) -> int:
        """Raise TopicsError unless every group's topics exist and are co-partitioned. Returns the largest partition count."""
        largest = 1
        for group in self.groups:
            names: Iterable[str] = dict.fromkeys((*group.topics, group.changelog, *group.outputs))
            counts = await self._broker.partition_counts(list(names))
            if len(set(counts.values())) != 1:
                listed = ", ".join(f"{topic} {count}" for topic, count in sorted(counts.items()))
                raise TopicsError(f"the topics of {group.name} must all have the same number of partitions: {listed}")
            found = next(iter(counts.values()))
            if group.partitions not in (None, found):
                raise _wrong_count(group, f"the topics of {group.name} have {found} partitions")
            largest = max(largest, found)
        return largest

    # Tasks

    def _add_task(self, group: TaskGroup, partition: int) -> None:
        settings = self.settings
        task_id = TaskId(settings.app_id, group.name, partition, group.topics, group.changelog, group.partitions)
        stats = self.stats.task(group.name, partition)
        channel = self._channels[group.name]

        def new_checkpoint() -> Checkpoint:
            return Checkpoint(task_id, self._broker, lambda: self._open_store(task_id), group.memory, channel, stats, settings)

        def is_dry(topic: str, position: int) -> bool:
            progress = self.source.progress(TopicPartition(topic, partition))
            return progress.end is not None and progress.position == position and position >= progress.end

        queues = PartitionGroup(
            group.topics,
            settings.batch_records_max,
            settings.batch_bytes_max,
            settings.merge_wait_ms_max / 1000,
            is_dry,
            time.monotonic,
        )
        task = Task(task_id, queues, new_checkpoint, stats, self)
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
            # A frozen process on this host still holds it. Its transactions are fenced, but its files are its own.
            spare = Path(f"{folder}-spare")
            log.warning("%s is in use by another process: restoring to %s", folder, spare)
            return open_store(spare, identity, cache_bytes)


def _assignment_fault(group: TaskGroup, partition: int, assigned: Collection[TopicPartition]) -> TopicsError | None:
    """Why this worker can't run a task of that partition number, if it can't."""
    task = f"{group.name}[{partition}]"
    if group.partitions is not None and partition >= group.partitions:
        return _wrong_count(group, f"{task} has been assigned")
    missing = [topic for topic in group.topics if TopicPartition(topic, partition) not in set(assigned)]
    if missing:
        return TopicsError(f"{task} is assigned without {', '.join(missing)}; see `rater topics diff`")
    return None


def _wrong_count(group: TaskGroup, found: str) -> TopicsError:
    return TopicsError(
        f"{found}, but {group.partitions} are expected (RATER_PARTITIONS). The number is fixed once there is data: with "
        "another number, a key's new records would go to a different partition than its state"
    )
