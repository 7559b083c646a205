"""Batches as events of a Faust agent: how the engine hands work over, and how it learns what became of it.

    Task ──put──► BatchChannel ──► Stream ──► an actor of the agent
      ▲                                          │  async with batch as transaction: …
      └────────── ended, or the error ───────────┘  (leaving the block waits until the task has committed)

A batch is a cancel scope, as `asyncio.timeout` is. When the engine gives a batch up (shutdown, revoked partitions), it cancels
the actor inside the block; the block swallows that cancellation, so the agent lives on and takes its next batch.

Rules of Faust that this relies on (faust-streaming 0.15.3)
- A stream skips an event of an older consumer generation, or while flow control is suspended. The engine's app never changes
  the generation and resumes flow control once, before the agents start (`BatchChannel.put` asserts both).
- A channel without subscribers drops what is put. Agents are started before the first task is opened (asserted as well).
- A stream keeps its last event until the next one comes, so a batch lets go of its records when it ends.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol

from faust.agents.agent import Agent
from faust.channels import Channel
from faust.events import Event
from faust.sensors.base import Sensor
from faust.types.tuples import TP, Message
from mode.utils.logging import get_logger

from rater.engine.api import Record, Sink, State
from rater.engine.errors import FatalError

__all__ = ["Batch", "BatchAgent", "BatchChannel", "BatchSensor", "BatchTransaction", "Batches", "Tick"]

log = get_logger(__name__)


class BatchTransaction:
    """What an agent has inside `async with batch`: the records, the task's state and memory, and a way out for records.

    A tick has no records.
    """

    __slots__ = ("emit", "memory", "partition", "records", "state")

    def __init__(self, partition: int, state: State, sink: Sink, memory: Any, records: Sequence[Record] = ()) -> None:
        self.partition = partition
        self.state = state
        self.emit = sink.emit
        self.memory = memory
        self.records = records


class Batches(Protocol):
    """Where a task puts its batches: a channel that an agent reads."""

    async def put(self, value: Any) -> None:
        """Hand over a `Batch` or `Tick`."""


class Batch:
    """Records of one task to be processed in one transaction. Enter it once, with `async with`.

    `run` is the engine's side: it hands the batch over and returns once the agent has left the block. The agent stays at the
    end of the block until `settle` says that the transaction has been committed or has failed.
    """

    def __init__(self, transaction: BatchTransaction) -> None:
        loop = asyncio.get_running_loop()
        self._transaction: BatchTransaction | None = transaction
        self._ended: asyncio.Future[None] = loop.create_future()
        self._settled: asyncio.Future[None] = loop.create_future()
        self._actor: asyncio.Task[Any] | None = None
        self._given_up = False
        self.entered = False
        first = transaction.records[0] if transaction.records else None
        self.place = TP("" if first is None else first.topic, transaction.partition)
        self.offset = -1 if first is None else first.offset

    async def __aenter__(self) -> BatchTransaction:
        assert not self.entered, "a batch is entered once"
        assert self._transaction is not None
        self.entered = True
        self._actor = asyncio.current_task()
        assert self._actor is not None
        if self._given_up:  # before the agent took it: the block is cancelled at its first await
            self._actor.cancel()
        return self._transaction

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Report how the block ended. The engine hears of an exception; the agent doesn't, and goes on with its next batch."""
        del kind, trace
        actor, self._actor = self._actor, None
        assert actor is not None
        if self._given_up:
            if not isinstance(error, asyncio.CancelledError):  # the cancellation may still be on its way
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            self._release()
            _end(self._ended)
            return actor.uncancel() == 0  # otherwise the actor has been cancelled by another hand as well
        if error is None:
            _end(self._ended)
            await self._settled
            return False
        if isinstance(error, Exception):
            self._ended.set_exception(error)
            return True
        self._ended.set_exception(FatalError(f"the agent was ended inside a batch: {error!r}"))
        return False

    async def run(self, batches: Batches) -> None:
        """Hand the batch over; return when the agent has left the block. Raises what the block raised.

        If this call is cancelled, the block is cancelled too, and has been left by the time the CancelledError comes out.
        """
        await batches.put(self)
        try:
            await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self._given_up = True
            if self._actor is not None:
                self._actor.cancel()
                await asyncio.wait([self._ended])
            raise

    def settle(self) -> None:
        """The transaction has been committed, or has failed: let the agent go on."""
        _end(self._settled)
        if self._actor is None:
            self._release()
        if self._ended.done() and not self._ended.cancelled():
            self._ended.exception()  # it has come out of `run`

    def _release(self) -> None:
        """Let go of the records: stream and agent keep the batch until their next one comes."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.records = ()


class Tick(Batch):
    """Due work: a transaction without records. `now_ms` is the worker's clock, in ms since the epoch."""

    def __init__(self, transaction: BatchTransaction, now_ms: int) -> None:
        super().__init__(transaction)
        self.now_ms = now_ms


class BatchChannel(Channel[Any]):
    """The channel between the engine and one agent. Faust shows it under the names of the input topics."""

    def __init__(self, app: Any, *, topics: Sequence[str] = (), **options: Any) -> None:
        self.topics = tuple(topics)
        super().__init__(app, **options)

    def _clone_args(self) -> dict[str, Any]:
        return {**super()._clone_args(), "topics": self.topics}

    def get_topic_name(self) -> str:
        """As `faust agents` prints it."""
        return ", ".join(self.topics)

    async def put(self, value: Any) -> None:
        """Hand a batch to the agent. The queue is never full: a task has one batch in flight, and an actor of its own."""
        root = self._root or self
        assert root._subscribers, f"no agent reads {self.get_topic_name()}"
        assert self.app.flow_control.is_active(), "flow control is suspended: the agent would skip the batch"
        message = Message(
            topic=value.place.topic,
            partition=value.place.partition,
            offset=value.offset,
            timestamp=0.0,
            timestamp_type=0,
            headers=None,
            key=None,
            value=None,
            checksum=None,
            tp=value.place,
            generation_id=self.app.consumer_generation_id,
        )
        await super().put(Event(self.app, None, value, None, message))


class BatchAgent(Agent):
    """A Faust agent whose death is fatal: its batch would never be answered, and its partition would stand still."""

    async def _execute_actor(self, coro: Awaitable[None], aref: Any) -> None:
        await super()._execute_actor(self._watch(coro), aref)

    async def _watch(self, actor: Awaitable[None]) -> None:
        try:
            await actor
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the worker
            self._died(f"raised {error!r}", error)
        except asyncio.CancelledError as error:
            self._died("was cancelled", error)
            raise
        else:
            self._died("returned", None)

    def _died(self, how: str, error: BaseException | None) -> None:
        app: Any = self.app
        if app.is_ending:
            return
        fatal = FatalError(f"agent {self.name} {how}: an agent must live as long as the worker")
        fatal.__cause__ = error
        app.fail(fatal)


class BatchSensor(Sensor):
    """Sees every batch that leaves a stream; one that the agent never entered would leave its task waiting for ever."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(**options)
        self._app = app

    def on_stream_event_out(self, tp: TP, offset: int, stream: Any, event: Any, state: Any = None) -> None:
        """The agent asks for its next event."""
        batch = event.value
        if isinstance(batch, Batch) and not batch.entered:
            self._app.fail(FatalError(f"an agent took a batch of {tp} without entering it: use `async with batch`"))


def _end(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
