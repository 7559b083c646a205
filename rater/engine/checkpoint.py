"""The checkpoint: a batch of input, its outputs, its state changes and its offsets are one Kafka transaction.

What is guaranteed, and by which step:

- *One writer.* `open` begins with InitProducerId under the task's own transactional id. That fences the previous owner and ends
  what it left open. Only then are end offsets, state and committed offsets read.
- *The state says where the input stands.* Its meta row holds the next offset of every input topic, and every transaction writes
  it. The group's committed offsets are written too, but only checked: if they are ahead of the state, part of the state is gone
  and nothing more may be committed (StateLostError). If they are behind or missing, the state is right.
- *All or nothing.* `commit` puts outputs, changelog and offsets into one transaction, and commits it only when every single
  send has been acknowledged. An error before the commit aborts it.
- *Known or asked.* A commit without an answer may or may not have happened (CommitUnknownError). The next `open` settles it:
  its InitProducerId ends the transaction either way, and state and offsets are read again.
- *Due work alike.* A tick is a batch without records: the same transaction, the same ways to fail.
- *The local store is never ahead.* It takes a batch's rows after the commit, with their changelog position, in one write.

After any error out of `run` or `tick` the checkpoint is useless: memory, overlay and producer may hold what was not committed.
Close it and open a new one.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from mode.utils.logging import get_logger

from rater.engine.api import DueWork, Measured, MemoryFactory, Record
from rater.engine.batches import Batch, Batches, BatchTransaction, Tick
from rater.engine.broker import Broker, TaskProducer, TopicPartition
from rater.engine.errors import CommitUnknownError, EngineError, ProcessorFailedError, SkippedError, TopicsError
from rater.engine.groups import TaskId
from rater.engine.output import Outbox
from rater.engine.overlay import BatchState, Changes, Meta, read_meta
from rater.engine.restore import InputPositions, Restore
from rater.engine.settings import EngineSettings
from rater.engine.stats import STAGES, TaskStats
from rater.engine.store import LocalStore

__all__ = ["Checkpoint"]

log = get_logger(__name__)

_ABORT_TIMEOUT_S = 2.0


class Checkpoint:
    """One opening of a task: `open`, then `run` batch by batch and `tick` in between, then `close`."""

    def __init__(
        self,
        task: TaskId,
        broker: Broker,
        open_store: Callable[[], LocalStore],
        make_memory: MemoryFactory,
        batches: Batches,
        stats: TaskStats,
        settings: EngineSettings,
    ) -> None:
        self._task = task
        self._broker = broker
        self._open_store = open_store
        self._make_memory = make_memory
        self._batches = batches
        self._stats = stats
        self._settings = settings
        self._send_timeout_s = settings.broker_timeout_ms / 1000
        self._producer: TaskProducer | None = None
        self._store: LocalStore | None = None
        self._memory: Any = None
        self._due_work: DueWork | None = None
        self._measured: Measured | None = None
        self._state: BatchState
        self._outbox: Outbox
        self.positions: dict[str, int] = {}

    async def open(self) -> dict[str, int]:
        """Take the task over and restore its state. Returns topic → next offset to read."""
        task, settings = self._task, self._settings
        self._producer = await self._broker.open_producer(task.transactional_id)
        self._store = self._open_store()
        await Restore(task, self._broker, self._stats, settings.store_age_ms_max).run(self._store)
        meta = read_meta(self._store)
        self.positions = await InputPositions(task, self._broker, accept_lost_input=settings.accept_lost_input).find(meta)
        self._state = BatchState(self._store, self._with_partitions(meta or Meta({})))
        self._outbox = Outbox(self._producer, task.partition)
        self._memory = self._make_memory(task.partition, self._state, self._outbox)
        self._due_work = self._memory if isinstance(self._memory, DueWork) else None
        self._measured = self._memory if isinstance(self._memory, Measured) else None
        self._measure()
        return self.positions

    async def run(self, records: Sequence[Record], moved: Mapping[str, int]) -> None:
        """Have the agent process one batch, and commit it with everything that follows from it.

        `moved` (topic → next offset) is where the input stands after the batch. Without records, it only moves the positions
        past what holds no records: transaction markers, aborted records.
        """
        positions = {**self.positions, **moved}
        of_topics = self._check_batch(records, positions)
        began_ns = time.time_ns()
        batch = Batch(self._transaction(records)) if records else None
        try:
            stages_s = await self.commit(batch, positions)
        except Exception as error:
            if records:
                self._stats.observe_batch(self._task.partition, records, began_ns, (), error)
            raise
        if records:
            self._stats.observe_batch(self._task.partition, records, began_ns, stages_s, None)
            self._stats.input_records.update(of_topics)
            self._stats.engine.histograms.observe(len(records), time.time() - records[0].timestamp / 1000, stages_s)
        self._stats.batches += 1
        if log.isEnabledFor(logging.DEBUG):
            took = ", ".join(f"{stage} {took_s * 1000:.1f}" for stage, took_s in zip(STAGES, stages_s, strict=True))
            log.debug("%s: %d records up to %s; ms: %s", self._task, len(records), positions, took)

    def next_due_ms(self) -> int | None:
        """When there is work without records, in ms since the epoch."""
        return None if self._due_work is None else self._due_work.next_due_ms()

    async def tick(self, now_ms: int) -> None:
        """Have the agent do what is due by `now_ms`, and commit it. The input stays where it is."""
        stages_s = await self.commit(Tick(self._transaction(()), now_ms), self.positions)
        self._stats.engine.histograms.observe(0, None, stages_s)
        self._stats.ticks += 1

    async def close(self) -> None:
        """Let go of everything; an open transaction is left to the next InitProducerId. Never raises."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.close()
        store, self._store = self._store, None
        if store is not None:
            store.close()

    async def commit(self, batch: Batch | None, positions: dict[str, int]) -> Sequence[float]:
        """Process `batch` (None: there is nothing to process) and commit it, with `positions` as the input's new ones.

        1. The agent processes the batch: outputs and state changes pile up in memory.
        2. Begin the Kafka transaction.
        3. Send outputs, changelog and input offsets, and wait until each single send has been acknowledged.
        4. Commit the transaction. From here on the batch counts.
        5. The local store takes the rows, with the changelog position.
        6. Positions and metrics move on, and the agent is let go.

        An error in step 1 leaves nothing to undo; in steps 2 and 3 the transaction is aborted; in step 4 the outcome is
        unknown, and the next `open` settles it. Returns the seconds that each of `stats.STAGES` took.
        """
        assert self._producer is not None
        assert self._store is not None
        started_s = time.monotonic()
        try:
            if batch is not None:  # 1
                await self._process(batch)
            processed_s = time.monotonic()
            changes = self._state.changes(positions)
            outputs = self._outbox.records
            await self._producer.begin()  # 2
            try:
                sent_to = await self._send(changes, self._offsets(positions))  # 3
            except Exception:
                self._stats.aborts += 1
                await self._abort()
                raise
            sent_s = time.monotonic()
            await self._commit()  # 4
            committed_s = time.monotonic()
            self._store.write(changes.rows, self._store.position if sent_to is None else sent_to)  # 5
            self._state.committed(changes)  # 6
            self.positions = positions
            self._stats.outputs += outputs
            self._measure()
            stored_s = time.monotonic()
        finally:
            if batch is not None:
                batch.settle()
        return processed_s - started_s, sent_s - processed_s, committed_s - sent_s, stored_s - committed_s

    def _transaction(self, records: Sequence[Record]) -> BatchTransaction:
        return BatchTransaction(self._task.partition, self._state, self._outbox, self._memory, records)

    async def _process(self, batch: Batch) -> None:
        try:
            await batch.run(self._batches)
        except EngineError:
            raise  # it says itself whether reopening the task is the cure
        except Exception as error:
            raise ProcessorFailedError(f"{self._task}: the agent raised {error!r}") from error

    def _measure(self) -> None:
        """Take over what the memory has counted: only ever what is committed."""
        assert self._store is not None
        self._stats.store_bytes = self._store.size_bytes
        if self._measured is not None:
            for metric, count in self._measured.take_counts().items():
                self._stats.counts[metric] += count
            self._stats.gauges = self._measured.gauges()

    def _with_partitions(self, meta: Meta) -> Meta:
        """Check the number of partitions: with another one, records would go to a different partition than their state."""
        now = self._task.partitions
        if now is not None and meta.partitions not in (None, now):
            raise TopicsError(
                f"{self._task}: the state was made with {meta.partitions} partitions, and now there are {now}: the number of "
                "partitions can't be changed once there is data"
            )
        return msgspec.structs.replace(meta, partitions=now)

    def _check_batch(self, records: Sequence[Record], positions: Mapping[str, int]) -> dict[str, int]:
        """No commit may skip a record, nor process one twice. Returns how many records there are of each topic."""
        of_topics = {}
        for topic, start in self.positions.items():
            offsets = [record.offset for record in records if record.topic == topic]
            if not start <= positions[topic] or (offsets and not start <= offsets[0] <= offsets[-1] < positions[topic]):
                raise SkippedError(
                    f"{self._task}: {topic} was processed up to {start}, the batch has {offsets[:1]} to {offsets[-1:]}, "
                    f"the next offset would be {positions[topic]}"
                )
            of_topics[topic] = len(offsets)
        return of_topics

    def _offsets(self, positions: Mapping[str, int]) -> dict[TopicPartition, int]:
        return {
            TopicPartition(topic, self._task.partition): offset
            for topic, offset in positions.items()
            if offset != self.positions[topic]
        }

    async def _send(self, changes: Changes, offsets: Mapping[TopicPartition, int]) -> int | None:
        """Put everything into the open transaction; return when all of it has been acknowledged.

        The offsets go while the records are in flight, but not before them: the broker may still be ending the last
        transaction, and aiokafka asks again sooner for a partition than for a group.
        """
        assert self._producer is not None
        async with asyncio.timeout(self._send_timeout_s):
            sends = await self._outbox.queue(self._task.changelog, changes.changelog)
        offsets_sent = asyncio.create_task(self._producer.send_offsets(offsets, self._task.app_id))
        try:
            async with asyncio.timeout(self._send_timeout_s):
                sent_to = await sends.acknowledged()
            await offsets_sent
        finally:
            offsets_sent.cancel()
            await asyncio.wait([offsets_sent])
            if not offsets_sent.cancelled():
                offsets_sent.exception()  # the error that counts is the one being raised
        return sent_to

    async def _commit(self) -> None:
        assert self._producer is not None
        try:
            await self._producer.commit()
        except (TimeoutError, ConnectionError) as error:
            raise CommitUnknownError(f"{self._task}: no answer to the commit ({error!r})") from error

    async def _abort(self) -> None:
        """Abort if that is still possible; if not, the next InitProducerId does it."""
        assert self._producer is not None
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_ABORT_TIMEOUT_S):
                await self._producer.abort()
