"""Faust's consumer, used to read batches. It keeps Faust's group membership, assignor and thread, but not its acks and commits.

Faust runs aiokafka's consumer in a thread of its own, so heartbeats continue while a batch is processed. The engine calls
`poll`, `seek_to`, `heartbeat` and `check_membership`, which run in that thread. They don't use Faust's method queue, because
its promises are never resolved once the queue has stopped or crashed.

Differences from Faust, each made by overriding a method (docs/decisions/0012 lists all seams):
- `_create_worker_consumer`: read_committed without `processing_guarantee="exactly_once"`, a short fetch wait, no silent offset
  reset, and always Faust's co-partitioned assignor (an app without tables would get aiokafka's round robin).
- `commit`, `force_commit` and the livelock detector do nothing, and `perform_seek` raises: the checkpoint owns the offsets.
- Newly assigned partitions are paused until their task has been restored and seeks.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import aiokafka
from aiokafka.errors import KafkaError, OffsetOutOfRangeError, UnknownError
from faust.transport.consumer import ConsumerThread
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from rater.engine.aiokafka_broker import client_options
from rater.engine.broker import TopicPartition
from rater.engine.errors import FatalError, FencedError, InputLostError, SkippedError
from rater.engine.settings import EngineSettings
from rater.kafka.connection import let_go

__all__ = ["BatchConsumer", "BatchTransport", "Polled", "Progress"]

T = TypeVar("T")

_NEVER_MS = 24 * 3600 * 1000
_REQUEST_MARGIN_MS = 10_000
_LISTENER_MARGIN_S = 5.0
_LEAVE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Polled:
    """The result of one poll: records by partition, and for every requested partition the position after them."""

    records: Mapping[TopicPartition, Sequence[Any]]
    positions: Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition has been fetched. `end` is its last stable offset; None until it is fetched after the last seek."""

    position: int | None
    end: int | None


class ConsumerOwner(Protocol):
    """What the consumer needs of its app, in addition to what Faust's own consumer needs."""

    settings: EngineSettings

    @property
    def conf(self) -> Any: ...
    @property
    def assignor(self) -> Any: ...

    def fail(self, error: BaseException) -> None:
        """End the worker."""


class BatchRebalanceListener(driver.ConsumerRebalanceListener):
    """Runs in the consumer's thread. Nothing here may raise an error: aiokafka would only log it."""

    _thread: "BatchConsumerThread"

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> Any:
        self._thread.interrupt_poll()
        return self._revoke(set(revoked))

    async def _revoke(self, revoked: set[Any]) -> None:
        if not (revoked and self._thread.is_put_out()):
            await super().on_partitions_revoked(revoked)
        if revoked and self._thread.is_put_out():  # may have happened while the tasks were being closed
            await self._end_membership()

    async def _end_membership(self) -> None:
        """End a static member that the group has removed, instead of letting it join again.

        Either its session timed out, or another worker uses its id. aiokafka's heartbeats don't carry the id, so they can't
        tell which. If this worker joined again, it would remove the other worker, which would then remove this one, and so on.
        Raising CancelledError is the only way to keep aiokafka from sending JoinGroup after a rebalance.
        """
        instance_id = self._thread.app.settings.instance_id
        lost = FencedError(f"the group has removed {instance_id}: its session timed out, or another worker uses its id")
        self._thread.parent_loop.call_soon_threadsafe(self._thread.app.fail, lost)
        raise asyncio.CancelledError

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        assigned = set(assigned)
        self._thread.hold(assigned)
        await super().on_partitions_assigned(assigned)


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that runs aiokafka's consumer."""

    app: ConsumerOwner  # type: ignore[assignment]
    _poll: "asyncio.Task[Polled] | None" = None
    _polled: Mapping[TopicPartition, int] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sought_ms: dict[TopicPartition, int] = {}

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        settings = self.app.settings
        self._assignor = self.app.assignor
        return aiokafka.AIOKafkaConsumer(
            **client_options(settings),
            client_id=self.app.conf.broker_client_id,
            group_id=self.app.conf.id,
            group_instance_id=settings.instance_id,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_partition_fetch_bytes=settings.fetch_bytes_max,
            fetch_max_wait_ms=settings.fetch_wait_ms_max,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
            rebalance_timeout_ms=settings.rebalance_timeout_ms,
            # JoinGroup is answered when all members have joined, so the request must be allowed to take as long as a rebalance.
            request_timeout_ms=settings.rebalance_timeout_ms + _REQUEST_MARGIN_MS,
            # aiokafka would leave the group after a while without a poll, and a long restore doesn't poll. The watchdog
            # detects stalls instead.
            max_poll_interval_ms=_NEVER_MS,
        )

    def hold(self, partitions: Iterable[TopicPartition]) -> None:
        """Pause newly assigned partitions until `seek_to` resumes them. Call it in the consumer's thread.

        It also interrupts the poll in flight, whose positions are from before the assignment.
        """
        self.interrupt_poll()
        self._ensure_consumer().pause(*partitions)

    def is_put_out(self) -> bool:
        """Whether this is a static member that the group has removed. Call it in the consumer's thread."""
        return self.app.settings.instance_id is not None and not self._ensure_consumer()._coordinator.member_id

    def interrupt_poll(self) -> Mapping[TopicPartition, int]:
        """Make the poll in flight, if there is one, return without records, because its partitions or positions have changed.

        Returns the positions that the poll expected; further calls for the same poll return nothing. The caller needs them
        because the poll may already have moved a position: aiokafka skips transaction markers while it waits for records.
        """
        if self._poll is None or not self._poll.cancel():
            return {}
        asked_for, self._polled = self._polled, {}
        return asked_for

    async def poll(self, wanted: Mapping[TopicPartition, int], timeout_s: float, records_max: int) -> Polled:
        """Records of `wanted` (partition → expected position). Call it in the consumer's thread."""
        self._polled = wanted
        self._poll = asyncio.ensure_future(self._getmany(wanted, timeout_s, records_max))
        try:
            return await self._poll
        except asyncio.CancelledError:
            if self._poll.cancelled() and not _being_cancelled():
                return Polled({}, {})
            raise
        finally:
            self._poll = None

    async def check_membership(self) -> None:
        """Raise the error that ended the group membership, if any. Call it in the consumer's thread.

        aiokafka keeps that error for the next poll, but a worker without partitions doesn't poll. If another worker has taken
        the id of a static member, the broker answers with a code that aiokafka doesn't know (82, fenced instance id).
        """
        coordinator = self._ensure_consumer()._coordinator
        if coordinator._coordination_task.cancelled():  # by BatchRebalanceListener, which has reported the error
            return
        with self._recognizing_a_fence():
            coordinator.check_errors()

    @contextmanager
    def _recognizing_a_fence(self) -> Iterator[None]:
        """Raise FencedError if aiokafka raises what it makes of code 82."""
        try:
            yield
        except KafkaError as error:
            if self.app.settings.instance_id is not None and UnknownError.__name__ in str(error):
                raise FencedError(f"the group refuses {self.app.settings.instance_id}: another worker uses its id") from error
            raise

    async def on_thread_stop(self) -> None:
        # aiokafka's `stop` leaves the group first. Anything it can't stop after that ends with the process.
        await let_go(super().on_thread_stop(), _LEAVE_TIMEOUT_S)

    async def _getmany(self, wanted: Mapping[TopicPartition, int], timeout_s: float, records_max: int) -> Polled:
        await self.check_membership()
        consumer = self._ensure_consumer()
        held = [tp for tp in wanted if self._state(tp) is not None]
        for tp in held:
            position = self._state(tp).position
            if position != wanted[tp]:
                raise SkippedError(f"{tp}: the consumer is at offset {position}, but should be at {wanted[tp]}")
        if not held:  # without partitions as arguments, aiokafka would return records of all
            await asyncio.sleep(timeout_s)
            return Polled({}, {})
        with self._recognizing_a_fence():  # the membership may end while a poll waits
            records = await consumer.getmany(*held, timeout_ms=int(timeout_s * 1000), max_records=records_max)
        return Polled(records, {tp: self._state(tp).position for tp in held if self._state(tp) is not None})

    async def seek_to(self, positions: Mapping[TopicPartition, int]) -> bool:
        """Fetch from `positions` on. False if one is no longer assigned. Call it in the consumer's thread."""
        if any(self._state(tp, positioned=False) is None for tp in positions):
            return False
        before = self.interrupt_poll()
        moved = {tp: position for tp, position in before.items() if self._state(tp) and self._state(tp).position != position}
        consumer = self._ensure_consumer()
        for tp, position in {**moved, **positions}.items():
            self._sought_ms[tp] = time.time_ns() // 1_000_000
            consumer.seek(tp, position)
        consumer.resume(*positions)
        return True

    async def heartbeat(self) -> bool:
        """Whether the coordinator confirms this member. Call it in the consumer's thread."""
        coordinator = self._ensure_consumer()._coordinator
        return coordinator.coordinator_id is not None and bool(await coordinator._do_heartbeat())

    def progress(self, tp: TopicPartition) -> Progress:
        """How far `tp` has been fetched. Call it from any thread: it only reads attributes of aiokafka's own state."""
        state = self._state(tp)
        if state is None:
            return Progress(None, None)
        fetched_ms = state.timestamp
        if fetched_ms is None or fetched_ms <= self._sought_ms.get(tp, 0):
            return Progress(state.position, None)
        return Progress(state.position, state.lso)

    def _state(self, tp: TopicPartition, *, positioned: bool = True) -> Any:
        """aiokafka's state of a partition; None if it isn't assigned or has no position yet."""
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or not assignment.active or tp not in assignment.tps:
            return None
        state = assignment.state_value(tp)
        return state if state is not None and (state.has_valid_position or not positioned) else None


class BatchConsumer(driver.Consumer):
    """The consumer, as the worker's event loop sees it."""

    RebalanceListener = BatchRebalanceListener
    app: ConsumerOwner  # type: ignore[assignment]
    _thread: BatchConsumerThread

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def poll(self, wanted: Mapping[TopicPartition, int], timeout_s: float, records_max: int) -> Polled:
        """Records of `wanted` (partition → expected position). Returns after `timeout_s` at the latest, even without records.

        Raises SkippedError if a position isn't the expected one, InputLostError if the broker no longer has records there, and
        the error that ended the group membership, if any.
        """
        try:
            return await self._in_thread(lambda: self._thread.poll(wanted, timeout_s, records_max))
        except OffsetOutOfRangeError as error:
            raise InputLostError(f"the broker no longer has the records to be read next: {error}") from error

    async def seek_to(self, positions: Mapping[TopicPartition, int]) -> bool:
        """Fetch from `positions` on. False if one of them is no longer assigned."""
        return await self._in_thread(lambda: self._thread.seek_to(positions))

    async def check_membership(self) -> None:
        """Raise the error that ended the group membership, if any."""
        await self._in_thread(self._thread.check_membership)

    async def heartbeat(self) -> bool:
        """Whether the group's coordinator confirms this member now."""
        return await self._in_thread(self._thread.heartbeat)

    def progress(self, tp: TopicPartition) -> Progress:
        """How far `tp` has been fetched."""
        return self._thread.progress(tp)

    async def threadsafe_partitions_revoked(self, receiver_loop: asyncio.AbstractEventLoop, revoked: set[TP]) -> None:
        """Have the worker's loop close the tasks; return when it has. Faust calls it in the consumer's thread."""
        del receiver_loop
        await self._in_worker_loop(lambda: self.on_partitions_revoked(revoked))

    async def threadsafe_partitions_assigned(
        self, receiver_loop: asyncio.AbstractEventLoop, assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Have the worker's loop open the tasks. Faust calls it in the consumer's thread."""
        del receiver_loop
        await self._in_worker_loop(lambda: self.on_partitions_assigned(assigned, generation_id))

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Does nothing: offsets are committed in the checkpoint's transactions."""
        del topics, start_new_transaction
        return False

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Does nothing; see `commit`."""
        del topics, start_new_transaction
        return False

    async def perform_seek(self) -> None:
        """Raises FatalError: only the engine seeks."""
        raise FatalError("Faust must not seek: the checkpoint owns the positions")

    async def verify_all_partitions_active(self) -> None:
        """Does nothing: the watchdog detects stalls, from committed offsets instead of Faust's acks."""

    async def _in_thread(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        thread_loop = cast(ConsumerThread, self._thread).thread_loop
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), thread_loop))

    async def _in_worker_loop(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `call` in the worker's loop. Call it in the consumer's thread.

        The wait is bounded, so that the thread ends even if the worker's loop no longer runs.
        """
        timeout_s = self.app.settings.rebalance_timeout_ms / 1000 + _LISTENER_MARGIN_S
        done = asyncio.run_coroutine_threadsafe(call(), self.loop)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wrap_future(done)
        except TimeoutError:
            self.log.error("the worker did not handle a rebalance within %s s", timeout_s)


class BatchTransport(driver.Transport):
    """Faust's aiokafka transport with a `BatchConsumer`."""

    Consumer = BatchConsumer


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
