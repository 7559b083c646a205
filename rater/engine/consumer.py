"""Faust's consumer, reading batches: its group membership, assignor and thread, but none of its acks and
commits.

Faust runs aiokafka's consumer in a thread of its own, so that heartbeats go on while a batch is computed.
`poll`, `seek` and `progress` are the ways in; they cross to that thread without Faust's method queue, whose
promises are never resolved once it has been stopped or has crashed.

Where this departs from Faust (each by overriding a method, see the decision record on Faust's seams):
- `_create_worker_consumer`: read_committed without `processing_guarantee="exactly_once"`, a short fetch
  wait, no silent offset reset, and always Faust's co-partitioned assignor (it falls back to aiokafka's
  round robin without tables).
- `commit`, `force_commit`, `perform_seek` and the livelock detector do nothing: offsets are the checkpoint's.
- Newly assigned partitions are paused until their task has been restored and seeks.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
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
    """What one poll found: records by partition, and the position after them of every partition asked for."""

    records: Mapping[TopicPartition, Sequence[Any]]
    positions: Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition has been fetched. `end` is its last stable offset; None until a fetch since the
    last seek."""

    position: int | None
    end: int | None


class ConsumerOwner(Protocol):
    """What the consumer needs of the app it belongs to, besides what Faust's own consumer does."""

    settings: EngineSettings

    @property
    def conf(self) -> Any: ...
    @property
    def assignor(self) -> Any: ...

    def fail(self, error: BaseException) -> None:
        """End the worker."""


class BatchRebalanceListener(driver.ConsumerRebalanceListener):
    """Runs in the consumer's thread. aiokafka logs and forgets what it raises, so nothing here may."""

    _thread: "BatchConsumerThread"

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> Any:
        self._thread.interrupt_poll()
        return self._revoke(set(revoked))

    async def _revoke(self, revoked: set[Any]) -> None:
        if not (revoked and self._thread.is_put_out()):
            await super().on_partitions_revoked(revoked)
        if revoked and self._thread.is_put_out():  # perhaps only while the tasks were being closed
            await self._end_membership()

    async def _end_membership(self) -> None:
        """End a static member that the group has put out, instead of letting it join again.

        Its session has run out or another worker has come under its id. aiokafka's heartbeats don't carry
        the id, so it can't tell, and joining again would put the other worker out, which would put this one
        out, and so on. Being cancelled is the only answer to a rebalance after which aiokafka doesn't send
        JoinGroup.
        """
        instance_id = self._thread.app.settings.instance_id
        lost = FencedError(f"the group has put {instance_id} out: its session ran out, or another worker has its id")
        self._thread.parent_loop.call_soon_threadsafe(self._thread.app.fail, lost)
        raise asyncio.CancelledError

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        assigned = set(assigned)
        self._thread.hold(assigned)
        await super().on_partitions_assigned(assigned)


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread around aiokafka's consumer."""

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
            # A JoinGroup is answered when all members have come, so its request must outlive the rebalance.
            request_timeout_ms=settings.rebalance_timeout_ms + _REQUEST_MARGIN_MS,
            # aiokafka leaves the group when nobody polls. A long restore doesn't poll; the watchdog looks
            # after stalls.
            max_poll_interval_ms=_NEVER_MS,
        )

    def hold(self, partitions: Iterable[TopicPartition]) -> None:
        """Fetch nothing of `partitions`, newly assigned, until they are sought. In the consumer's thread.

        A poll that was asked for before the assignment may still be under way: what it knows of positions holds no more.
        """
        self.interrupt_poll()
        self._ensure_consumer().pause(*partitions)

    def is_put_out(self) -> bool:
        """Whether this is a static member whose membership has been refused. In the consumer's thread."""
        return self.app.settings.instance_id is not None and not self._ensure_consumer()._coordinator.member_id

    def interrupt_poll(self) -> Mapping[TopicPartition, int]:
        """End the poll in flight, if any, empty-handed: what it would find is not its caller's any more.

        Returns what it was asked for, to whoever interrupts it first. aiokafka moves on over transaction markers and goes on
        waiting: an interrupted poll may have moved without a word.
        """
        if self._poll is None or not self._poll.cancel():
            return {}
        asked_for, self._polled = self._polled, {}
        return asked_for

    async def poll(self, wanted: Mapping[TopicPartition, int], timeout_s: float, records_max: int) -> Polled:
        """In the consumer's thread: records of `wanted` (partition → expected position)."""
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
        """In the consumer's thread: raise what has ended the membership.

        aiokafka keeps it for whoever polls next, and a worker without partitions doesn't poll. A static member that comes
        back after another one has come under its id is answered with a code that aiokafka doesn't know (82, fenced
        instance id).
        """
        coordinator = self._ensure_consumer()._coordinator
        if coordinator._coordination_task.cancelled():  # by BatchRebalanceListener, which has said why
            return
        try:
            coordinator.check_errors()
        except KafkaError as error:
            if self.app.settings.instance_id is not None and UnknownError.__name__ in str(error):
                raise FencedError(
                    f"the group does not let {self.app.settings.instance_id} in: another worker has its id"
                ) from error
            raise

    async def on_thread_stop(self) -> None:
        # aiokafka's `stop` leaves the group first; what it can't stop after that ends with the process.
        await let_go(super().on_thread_stop(), _LEAVE_TIMEOUT_S)

    async def _getmany(self, wanted: Mapping[TopicPartition, int], timeout_s: float, records_max: int) -> Polled:
        await self.check_membership()
        consumer = self._ensure_consumer()
        held = [tp for tp in wanted if self._state(tp) is not None]
        for tp in held:
            position = self._state(tp).position
            if position != wanted[tp]:
                raise SkippedError(f"{tp}: fetching stands at {position}, the last records ended at {wanted[tp]}")
        if not held:  # asked for no partition, aiokafka would return records of any
            await asyncio.sleep(timeout_s)
            return Polled({}, {})
        records = await consumer.getmany(*held, timeout_ms=int(timeout_s * 1000), max_records=records_max)
        return Polled(records, {tp: self._state(tp).position for tp in held if self._state(tp) is not None})

    async def seek_to(self, positions: Mapping[TopicPartition, int]) -> bool:
        """In the consumer's thread: fetch from `positions` on. False if one is not assigned any more."""
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
        """In the consumer's thread: whether the coordinator answers that this member belongs to the group."""
        coordinator = self._ensure_consumer()._coordinator
        return coordinator.coordinator_id is not None and bool(await coordinator._do_heartbeat())

    def progress(self, tp: TopicPartition) -> Progress:
        """From any thread: attributes of aiokafka's own bookkeeping are read, nothing is awaited."""
        state = self._state(tp)
        if state is None:
            return Progress(None, None)
        fetched_ms = state.timestamp
        if fetched_ms is None or fetched_ms <= self._sought_ms.get(tp, 0):
            return Progress(state.position, None)
        return Progress(state.position, state.lso)

    def _state(self, tp: TopicPartition, *, positioned: bool = True) -> Any:
        """aiokafka's state of an assigned partition; None if it isn't, or has no position yet."""
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or not assignment.active or tp not in assignment.tps:
            return None
        state = assignment.state_value(tp)
        return state if state is not None and (state.has_valid_position or not positioned) else None


class BatchConsumer(driver.Consumer):
    """The consumer in the worker's loop; see the module."""

    RebalanceListener = BatchRebalanceListener
    app: ConsumerOwner  # type: ignore[assignment]
    _thread: BatchConsumerThread

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def poll(self, wanted: Mapping[TopicPartition, int], timeout_s: float, records_max: int) -> Polled:
        """Records of `wanted` (partition → expected position), `timeout_s` after now at the latest.

        Raises SkippedError when a position isn't the expected one, InputLostError when the broker has
        nothing there any more, and whatever ends the group membership.
        """
        try:
            return await self._in_thread(lambda: self._thread.poll(wanted, timeout_s, records_max))
        except OffsetOutOfRangeError as error:
            raise InputLostError(f"the broker has no record there any more: {error}") from error

    async def seek_to(self, positions: Mapping[TopicPartition, int]) -> bool:
        """Fetch from `positions` on. False if one of them is not assigned any more."""
        return await self._in_thread(lambda: self._thread.seek_to(positions))

    async def check_membership(self) -> None:
        """Raise what has ended the membership, if anything has."""
        await self._in_thread(self._thread.check_membership)

    async def heartbeat(self) -> bool:
        """Whether the group's coordinator, asked now, counts this member in."""
        return await self._in_thread(self._thread.heartbeat)

    def progress(self, tp: TopicPartition) -> Progress:
        return self._thread.progress(tp)

    async def threadsafe_partitions_revoked(self, receiver_loop: asyncio.AbstractEventLoop, revoked: set[TP]) -> None:
        del receiver_loop
        await self._in_worker_loop(lambda: self.on_partitions_revoked(revoked))

    async def threadsafe_partitions_assigned(
        self, receiver_loop: asyncio.AbstractEventLoop, assigned: set[TP], generation_id: int = 0
    ) -> None:
        del receiver_loop
        await self._in_worker_loop(lambda: self.on_partitions_assigned(assigned, generation_id))

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        del topics, start_new_transaction
        return False

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        del topics, start_new_transaction
        return False

    async def perform_seek(self) -> None:
        raise FatalError("Faust must not seek: positions are the checkpoint's")

    async def verify_all_partitions_active(self) -> None:
        """The watchdog does this, from what has been committed instead of from Faust's acks."""

    async def _in_thread(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        thread_loop = cast(ConsumerThread, self._thread).thread_loop
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), thread_loop))

    async def _in_worker_loop(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """From the consumer's thread. Bounded: the thread must come to an end even if the worker's loop has
        gone."""
        timeout_s = self.app.settings.rebalance_timeout_ms / 1000 + _LISTENER_MARGIN_S
        done = asyncio.run_coroutine_threadsafe(call(), self.loop)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wrap_future(done)
        except TimeoutError:
            self.log.error("the worker did not answer to a rebalance within %s s", timeout_s)


class BatchTransport(driver.Transport):
    Consumer = BatchConsumer


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
