"""The life of a task: it opens, processes batch after batch, is reopened after a retryable error, and runs until it is stopped.

Each task runs in its own asyncio task and takes its next batch only after the last one has been committed. So it has one batch
in flight at most, and tasks overlap: while one waits for the broker, another computes.

Due work (`api.DueWork`) runs between two batches. It starts when the input has been read to its end, or after waiting
`_DUE_WAIT_S` for that. The worker's clock decides what is due; tests can set it.

An error has one of two results (see `errors`): the task is closed and opened again after a wait that grows each time, or the
worker ends.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from aiokafka.errors import ProducerFenced
from mode.utils.logging import get_logger

from rater.engine.api import Record
from rater.engine.checkpoint import Checkpoint
from rater.engine.errors import FatalError, FencedError, is_retryable
from rater.engine.groups import TaskId
from rater.engine.partition_group import InputSlice, PartitionGroup
from rater.engine.settings import EngineSettings
from rater.engine.stats import TaskStats

__all__ = ["Task", "TaskOwner"]

log = get_logger(__name__)

_IDLE_S = 0.5
_FIRST_RETRY_WAIT_S = 0.1
_CATCH_UP_POSITIONS_S = 60.0
_DUE_WAIT_S = 5.0
_DUE_POLL_S = 0.02


class TaskOwner(Protocol):
    """What a task needs of its engine."""

    settings: EngineSettings
    opening: asyncio.Semaphore

    @property
    def clock_ms(self) -> Callable[[], int]:
        """The clock for due work: now, in ms since the epoch."""

    async def seek(self, task: TaskId, positions: Mapping[str, int]) -> bool:
        """Fetch from `positions` on. False if the task is no longer assigned."""

    async def is_member(self) -> bool:
        """Whether the group's coordinator confirms this worker as a member now."""

    def has_room(self) -> None:
        """Tell the engine that the task can take more records."""

    def fail(self, error: BaseException) -> None:
        """End the worker."""


class Task:
    """One task of this worker. Call `start`, later `stop`. An error that must end the worker goes to the owner's `fail`."""

    def __init__(
        self,
        task_id: TaskId,
        queues: PartitionGroup,
        new_checkpoint: Callable[[], Checkpoint],
        stats: TaskStats,
        owner: TaskOwner,
    ) -> None:
        self.id = task_id
        self.queues = queues
        self.stats = stats
        self.epoch = 0
        self.positions: Mapping[str, int] = {}
        self.moved_at_s = self.committed_at_s = time.monotonic()
        self._new_checkpoint = new_checkpoint
        self._owner = owner
        self._due_since_s: float | None = None
        self._in_flight: Sequence[Record] = ()
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has been restored and can take records."""
        return self.stats.open

    def reached(self, topic: str) -> tuple[int | None, int | None]:
        """The first offset of `topic` that is not processed, and the timestamp (ms) of its record. None: not known."""
        first = next((record for record in self._in_flight if record.topic == topic), None) or self.queues.first(topic)
        if first is not None:
            return first.offset, first.timestamp
        fetched = self.queues.positions().get(topic) if self.is_open else None
        return (self.positions.get(topic) if fetched is None else fetched), None

    def start(self) -> None:
        """Start opening the task and processing its input."""
        self._running = asyncio.create_task(self._run(), name=f"task {self.id}")
        self._running.add_done_callback(self._check_end)

    async def stop(self, timeout_s: float) -> bool:
        """Commit the batch in flight, then close. After `timeout_s` the batch is given up instead, and the result is False."""
        assert self._running is not None
        self._stopping.set()
        self.queues.wake()
        done, _ = await asyncio.wait([self._running], timeout=timeout_s)
        if done:
            return True
        self._running.cancel()
        await asyncio.wait([self._running])
        return False

    def _check_end(self, running: "asyncio.Task[None]") -> None:
        """End the worker if the task has ended without `stop`: otherwise its partition would silently stand still."""
        if self._stopping.is_set():
            return
        error = asyncio.CancelledError() if running.cancelled() else running.exception()
        if error is not None:
            self._owner.fail(self._explain(error))

    async def _run(self) -> None:
        retry_wait_s = _FIRST_RETRY_WAIT_S
        while not self._stopping.is_set():
            batches_before = self.stats.batches
            checkpoint = self._new_checkpoint()
            try:
                await self._serve(checkpoint)
            except Exception as error:  # noqa: BLE001 - known to be harmless, or it ends the worker
                if self.stats.batches > batches_before:
                    retry_wait_s = _FIRST_RETRY_WAIT_S
                if not is_retryable(error):
                    self._owner.fail(self._explain(error))
                    return
                if not self._stopping.is_set():
                    log.warning("%s: opening again in %.1f s after %r", self.id, retry_wait_s, error)
            finally:
                self.stats.open = False
                self.stats.gauges = {}
                self._in_flight = ()
                self.epoch += 1
                await checkpoint.close()
            retry_wait_s = await self._wait_to_reopen(retry_wait_s)
            self.stats.reopens += 1

    async def _serve(self, checkpoint: Checkpoint) -> None:
        if not await self._open(checkpoint):
            await self._stopping.wait()  # no longer assigned: opening it again would fence its new owner
            return
        idle_since_s = time.monotonic()
        self._due_since_s = None
        while not self._stopping.is_set():
            if self._has_due_work(checkpoint):
                await checkpoint.tick(self._owner.clock_ms())
                self._due_since_s = None
                self.moved_at_s = self.committed_at_s = idle_since_s = time.monotonic()
            batch = self.queues.take()
            if batch is None and time.monotonic() - idle_since_s > _CATCH_UP_POSITIONS_S:
                idle_since_s = time.monotonic()
                batch = self._positions_only(checkpoint)
            if batch is None:
                await self.queues.wait(self._idle_s(checkpoint))
                continue
            self._owner.has_room()
            self._in_flight = batch.records
            await checkpoint.run(batch.records, batch.positions)
            self._in_flight = ()
            self.positions = checkpoint.positions
            self.moved_at_s = self.committed_at_s = idle_since_s = time.monotonic()

    async def _open(self, checkpoint: Checkpoint) -> bool:
        """False if the task has been stopped in the meantime or is no longer assigned."""
        opening = asyncio.create_task(self._open_in_turn(checkpoint))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return opening.done() and opening.result()
        finally:
            for waiter in (opening, stopping):
                waiter.cancel()
            await asyncio.wait({opening, stopping})

    async def _open_in_turn(self, checkpoint: Checkpoint) -> bool:
        async with self._owner.opening:
            positions = await checkpoint.open()
        self.queues.reset(positions)
        if not await self._owner.seek(self.id, positions):
            return False
        log.info("%s: open, reading from %s", self.id, positions)
        self.positions = positions
        self.moved_at_s = time.monotonic()
        self.stats.open = True
        self._owner.has_room()
        return True

    def _has_due_work(self, checkpoint: Checkpoint) -> bool:
        due_ms = checkpoint.next_due_ms()
        if due_ms is None or due_ms > self._owner.clock_ms():
            self._due_since_s = None
            return False
        now_s = time.monotonic()
        if self._due_since_s is None:
            self._due_since_s = now_s
        return self.queues.is_drained() or now_s - self._due_since_s >= _DUE_WAIT_S

    def _idle_s(self, checkpoint: Checkpoint) -> float:
        """How long to wait for records at most. Not longer than until the next due work."""
        due_ms = checkpoint.next_due_ms()
        if due_ms is None:
            return _IDLE_S
        wait_s = (due_ms - self._owner.clock_ms()) / 1000
        return min(_IDLE_S, max(_DUE_POLL_S, wait_s))

    def _positions_only(self, checkpoint: Checkpoint) -> InputSlice | None:
        """An empty batch if the input has moved past offsets without records, such as transaction markers; otherwise None.

        If these offsets were never committed, they would count as lag, and as lost records once retention has deleted them.
        """
        positions = self.queues.positions()
        return InputSlice((), positions) if positions != checkpoint.positions else None

    async def _wait_to_reopen(self, retry_wait_s: float) -> float:
        """Wait, then until the coordinator confirms this worker: opening fences, so only the partition's owner may do it.

        Returns the next wait in seconds.
        """
        while not self._stopping.is_set():
            await self._pause(retry_wait_s)
            retry_wait_s = min(2 * retry_wait_s, self._owner.settings.retry_wait_ms_max / 1000)
            if self._stopping.is_set() or await self._owner.is_member():
                break
        return retry_wait_s

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _explain(self, error: BaseException) -> FatalError:
        if isinstance(error, FatalError):
            return error
        if isinstance(error, ProducerFenced) or isinstance(error.__cause__, ProducerFenced):
            fenced = FencedError(f"{self.id}: another worker has taken over {self.id.transactional_id}")
            fenced.__cause__ = error
            return fenced
        unknown = FatalError(f"{self.id}: {error!r}")
        unknown.__cause__ = error
        return unknown
