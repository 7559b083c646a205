"""A worker process on a simulated machine: the real engine with a simulated broker, consumer and disk.

Every call to the broker is delayed. Before and after each call the process may be killed or stopped for a while, and the call
or its answer may be lost. Between two calls the engine does nothing that another process could see, so these are all its crash
points.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

from rater.bootstrap import engine_settings
from rater.engine.broker import TopicPartition
from rater.engine.consumer import Polled, Progress
from rater.engine.engine import Engine
from rater.engine.errors import SkippedError
from rater.engine.failure import Failure
from rater.engine.groups import TaskGroup, TaskId
from rater.engine.settings import EngineSettings
from rater.engine.store import MemoryStore
from rater.settings import Settings
from tests.engine.inline_agent import InlineAgent
from tests.engine.simulated.broker import Broker, Stored
from tests.engine.simulated.loop import VirtualLoop

T = TypeVar("T")

BATCH_RECORDS_MAX = 5
_POLL_S = 0.05
_DELAY_S = 0.01


class Disk:
    """A machine's stores, as lists of writes, so that a crash can lose the last ones."""

    def __init__(self) -> None:
        self.writes: dict[str, list[tuple[dict[bytes, bytes | None], int]]] = {}

    def lose_last(self, count: int) -> None:
        """Undo the last writes of each store: they never reached the disk."""
        for writes in self.writes.values():
            del writes[max(0, len(writes) - count) :]

    def wipe(self) -> None:
        """Lose everything, as with a new disk."""
        self.writes.clear()


class _Store(MemoryStore):
    """A store on a `Disk`. A dead process can't write to it."""

    def __init__(self, process: "Process", name: str) -> None:
        super().__init__()
        self._process = process
        self._writes = process.disk.writes.setdefault(name, [])
        for rows, position in self._writes:
            super().write(rows, position)

    def write(self, rows: Mapping[bytes, bytes | None], position: int) -> None:
        if self._process.alive:
            self._writes.append((dict(rows), position))
            super().write(rows, position)

    def clear(self) -> None:
        if self._process.alive:
            self._writes.clear()
            super().clear()


class Faults(NamedTuple):
    """What goes wrong in a process: `trouble` is the probability that a call is lost, `die_at_step` the step that kills it."""

    draw: random.Random
    trouble: float
    die_at_step: int | None


class Process:
    """A worker from start to end."""

    def __init__(
        self, name: str, loop: VirtualLoop, broker: Broker, disk: Disk, group: TaskGroup, settings: Settings, faults: Faults
    ) -> None:
        self.name = name
        self.loop = loop
        self.broker = broker
        self.disk = disk
        self.alive = True
        self.member = False
        self.draw = faults.draw
        self.trouble = faults.trouble
        self.steps = 0
        self.timeout_s = settings.broker_timeout_ms / 1000
        self._die_at_step = faults.die_at_step
        self._awake = asyncio.Event()
        self._awake.set()
        self.consumer = _Consumer(self)
        host: Any = _Host(engine_settings(settings), self.consumer)
        self.engine = Engine(host, (), lambda: int(loop.time() * 1000))
        self.engine.add_group(group, InlineAgent())
        engine: Any = self.engine
        engine._broker = _Kafka(self, len(group.topics))
        engine._open_store = self._open_store

    def kill(self) -> None:
        """End it as with SIGKILL."""
        self.alive = False
        self.loop.kill(self)

    def stop(self) -> None:
        """Stop it as with SIGSTOP, at its next step."""
        self._awake.clear()

    def resume(self) -> None:
        """Let it continue as with SIGCONT."""
        self._awake.set()

    @property
    def stopped(self) -> bool:
        """Whether it has been stopped."""
        return not self._awake.is_set()

    async def call(self, effect: Callable[[], T]) -> T:
        """Call the broker. Raises TimeoutError or ConnectionError if the request or the answer is lost."""
        await self.step()
        lost = self.draw.random() < self.trouble
        if lost and self.draw.random() < 0.5:
            await self._lose()
        result = effect()
        await self.step()
        if lost:
            await self._lose()
        return result

    async def _lose(self) -> None:
        """Raise TimeoutError or ConnectionError after a while."""
        await asyncio.sleep(self.draw.random() * self.timeout_s)
        raise self.draw.choice((TimeoutError, ConnectionError))

    async def step(self) -> None:
        """A point at which the process may be killed or stopped."""
        self.steps += 1
        if self.steps == self._die_at_step:
            self.kill()
        if not self.alive:
            raise asyncio.CancelledError
        await asyncio.sleep(self.draw.random() * _DELAY_S)
        await self._awake.wait()
        if not self.alive:
            raise asyncio.CancelledError

    def _open_store(self, task: TaskId) -> _Store:
        return _Store(self, f"{task.group}-{task.partition}")


class _Host:
    """The app around the engine."""

    def __init__(self, settings: EngineSettings, consumer: "_Consumer") -> None:
        self.settings = settings
        self.consumer = consumer
        self.failure = Failure()
        self.agents = self

    async def start_agents(self, actors: int) -> None:
        """Does nothing: `InlineAgent` needs no start."""

    async def stop(self) -> None:
        """Does nothing: there is nothing to close."""


class _Kafka:
    """Implements `rater.engine.broker.Broker`."""

    def __init__(self, process: Process, topics: int) -> None:
        self._process = process
        self._topics = topics

    async def start(self) -> None:
        await self._process.step()

    async def stop(self) -> None:
        """Does nothing: there is nothing to close."""

    async def partition_counts(self, topics: Collection[str]) -> dict[str, int]:
        return dict.fromkeys(topics, 1)

    async def open_producer(self, transactional_id: str) -> "_TaskProducer":
        process = self._process
        epoch = await process.call(lambda: process.broker.init_producer(transactional_id))
        return _TaskProducer(process, transactional_id, epoch)

    async def committed(self, group_id: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        offsets = self._process.broker.offsets
        return await self._process.call(lambda: {tp: offsets[group_id, tp] for tp in partitions if (group_id, tp) in offsets})

    async def bounds(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        held = self._process.broker.partitions
        return await self._process.call(lambda: {tp: (0, held[tp].stable()) for tp in partitions})

    async def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: end for tp, (_, end) in (await self.bounds(partitions)).items()}

    @asynccontextmanager
    async def changelog(self, partition: TopicPartition) -> AsyncIterator["_ChangelogReader"]:
        yield _ChangelogReader(self._process, partition)


class _ChangelogReader:
    """Implements `ChangelogReader`."""

    def __init__(self, process: Process, tp: TopicPartition) -> None:
        self._process = process
        self._tp = tp

    async def bounds(self) -> tuple[int, int]:
        held = self._process.broker.partitions[self._tp]
        return await self._process.call(lambda: (0, held.stable()))

    async def read(self, start: int, end: int) -> AsyncIterator[tuple[Sequence[Any], int]]:
        held = self._process.broker.partitions[self._tp]
        while start < end:
            records = (await self._process.call(partial(held.committed, start)))[:BATCH_RECORDS_MAX]
            start = records[-1].offset + 1 if len(records) == BATCH_RECORDS_MAX else max(end, start)
            yield records, start


class _Batch:
    """Implements `RecordBatch`. It is small, so that a topic needs several."""

    def __init__(self) -> None:
        self.records: list[tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]] = []

    def add(self, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> object | None:
        if len(self.records) == BATCH_RECORDS_MAX:
            return None
        self.records.append((timestamp_ms, key, value, tuple(headers)))
        return self

    def record_count(self) -> int:
        return len(self.records)


class _TaskProducer:
    """Implements `TaskProducer`. Like aiokafka's, it sends in the background, in the order of the calls."""

    def __init__(self, process: Process, transactional_id: str, epoch: int) -> None:
        self._process = process
        self._id = transactional_id
        self._epoch = epoch
        self._queue: asyncio.Queue[tuple[_Batch, TopicPartition, asyncio.Future[Any]]] = asyncio.Queue()
        self._sender = process.loop.start_as(process, self._send())

    async def begin(self) -> None:
        """Does nothing: a transaction begins at the broker with its first record."""

    def create_batch(self) -> _Batch:
        return _Batch()

    async def send_batch(self, batch: Any, topic: str, partition: int) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((batch, TopicPartition(topic, partition), future))
        return future

    async def send_offsets(self, offsets: Mapping[TopicPartition, int], group_id: str) -> None:
        if offsets:
            broker = self._process.broker
            await self._process.call(lambda: broker.add_offsets(self._id, self._epoch, group_id, dict(offsets)))

    async def commit(self) -> None:
        if self._process.draw.random() < self._process.trouble:
            await self._late_commit()
        await self._process.call(lambda: self._process.broker.end_transaction(self._id, self._epoch, commit=True))

    async def abort(self) -> None:
        await self._process.call(lambda: self._process.broker.end_transaction(self._id, self._epoch, commit=False))

    async def close(self) -> None:
        self._sender.cancel()

    async def _late_commit(self) -> None:
        """Let EndTxn take longer than the caller waits. It takes effect later, unless the producer is fenced before."""
        process = self._process
        await process.step()
        process.loop.call_later(process.draw.random() * 3 * process.timeout_s, self._commit_now)
        await asyncio.sleep(process.timeout_s)
        raise TimeoutError

    def _commit_now(self) -> None:
        try:
            self._process.broker.end_transaction(self._id, self._epoch, commit=True)
        except Exception:
            return

    async def _send(self) -> None:
        while True:
            batch, tp, future = await self._queue.get()
            try:
                first = await self._process.call(partial(self._append, batch, tp))
            except Exception as error:
                if not future.cancelled():
                    future.set_exception(error)
            else:
                if not future.cancelled():
                    future.set_result(SimpleNamespace(offset=first))

    def _append(self, batch: _Batch, tp: TopicPartition) -> int:
        return self._process.broker.append(self._id, self._epoch, tp, batch.records)


class _Consumer:
    """Implements `InputSource`. `assigned` are the partitions that this process believes to own."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.assigned: set[TopicPartition] = set()
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._seeks = 0

    async def subscribe(self, topics: Collection[str]) -> None:
        """Does nothing: `world` plays the group's coordinator."""

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        self._seeks += 1
        self.assigned = set(partitions)
        self._positions = {}
        self._ends = {}

    async def check_membership(self) -> None:
        """Does nothing: `world` tells a process that has been removed from the group."""

    async def heartbeat(self) -> bool:
        return await self._process.call(lambda: self._process.member)

    async def seek_to(self, positions: Mapping[TopicPartition, int]) -> bool:
        await self._process.step()
        if not self.assigned >= positions.keys():
            return False
        self._seeks += 1
        self._positions.update(positions)
        for tp in positions:
            self._ends.pop(tp, None)
        return True

    def progress(self, tp: TopicPartition) -> Progress:
        return Progress(self._positions.get(tp), self._ends.get(tp))

    async def poll(self, wanted: Mapping[TopicPartition, int], timeout_s: float, records_max: int) -> Polled:
        deadline_s = self._process.loop.time() + timeout_s
        seeks = self._seeks
        while True:
            found = {tp: self._fetch(tp, position, records_max) for tp, position in wanted.items() if tp in self._positions}
            if any(fetched.records for fetched in found.values()) or self._process.loop.time() >= deadline_s:
                break
            await asyncio.sleep(_POLL_S)
            await self._process.step()
            if seeks != self._seeks:  # a seek or a rebalance interrupts the poll
                return Polled({}, {})
        for tp, fetched in found.items():
            self._positions[tp], self._ends[tp] = fetched.position, fetched.end
        await self._process.step()  # the records are in flight: a seek or a rebalance may come before they arrive
        return Polled(
            {tp: fetched.records for tp, fetched in found.items()}, {tp: fetched.position for tp, fetched in found.items()}
        )

    def _fetch(self, tp: TopicPartition, position: int, records_max: int) -> "_Fetched":
        if position != self._positions[tp]:
            raise SkippedError(f"{tp}: {position} was asked for, fetching stands at {self._positions[tp]}")
        held = self._process.broker.partitions[tp]
        end = held.stable()
        records = held.committed(position)
        if len(records) <= records_max:
            return _Fetched(records, max(end, position), end)
        return _Fetched(records[:records_max], records[records_max - 1].offset + 1, end)


class _Fetched(NamedTuple):
    """Records, the position after them, and the last stable offset."""

    records: list[Stored]
    position: int
    end: int
