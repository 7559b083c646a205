"""The checkpoint: a batch of input, its outputs, its state changes and its offsets are one Kafka transaction.

What is guaranteed, and by which step:

- *One writer.* `open` begins with InitProducerId under the task's own transactional id: whoever held it
  before is fenced, and what it left open is ended. Only then are end offsets, state and committed offsets
  read.
- *The state says where the input stands.* Its meta row holds the next offset of every input topic and is
  written by every transaction. The group's committed offsets are written too, but only checked: if they are
  ahead of the state, part of the state is gone and nothing more may be committed (StateLostError). If they
  are behind or gone, the state is right.
- *All or nothing.* `run` puts outputs, changelog and offsets in one transaction and commits it only when
  each single send has been acknowledged. An error before the commit aborts it.
- *Known or asked.* A commit without an answer may have happened or not (CommitUnknownError). The next
  `open` settles it: its InitProducerId ends the transaction either way, and state and offsets are read
  again.
- *Due work alike.* `tick` is a batch without records: the same transaction, the same way to fail.
- *The local store is never ahead.* It takes a batch's rows after the commit, with their changelog position,
  in one write.

After any error out of `run` the checkpoint is of no more use: processor, overlay and producer may hold what
was not committed. Close it and open a new one.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from mode.utils.logging import get_logger

from rater.engine.api import MeasuredProcessor, Processor, ProcessorFactory, Record, TimedProcessor
from rater.engine.broker import Kafka, TaskProducer, TopicPartition
from rater.engine.errors import (
    CommitUnknownError,
    EngineError,
    InputLostError,
    ProcessorFailedError,
    SkippedError,
    StateLostError,
    TopicsError,
)
from rater.engine.output import Outbox
from rater.engine.overlay import BatchState, Changes, Meta, apply_changelog, read_meta
from rater.engine.stats import STAGES, BatchHistograms, BatchObserver, TaskStats
from rater.engine.store import LocalStore

__all__ = ["Checkpoint", "TaskId"]

log = get_logger(__name__)

_ABORT_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class TaskId:
    """A task: one partition number of a group of co-partitioned topics."""

    app_id: str
    group: str
    partition: int
    topics: tuple[str, ...]
    changelog: str
    partitions: int | None = None

    @property
    def transactional_id(self) -> str:
        return f"{self.app_id}-{self.group}-{self.partition}"

    @property
    def inputs(self) -> list[TopicPartition]:
        return [TopicPartition(topic, self.partition) for topic in self.topics]

    def __str__(self) -> str:
        return f"{self.group}[{self.partition}]"


class Checkpoint:
    """One opening of a task. `open`, then `run` batch by batch, then `close`; see the module for what
    holds."""

    def __init__(
        self,
        task: TaskId,
        kafka: Kafka,
        open_store: Callable[[], LocalStore],
        make_processor: ProcessorFactory,
        stats: TaskStats,
        histograms: BatchHistograms,
        store_age_ms_max: int,
        accept_lost_input: bool,
        send_timeout_s: float,
        on_batch: BatchObserver | None = None,
    ) -> None:
        self._task = task
        self._kafka = kafka
        self._open_store = open_store
        self._make_processor = make_processor
        self._stats = stats
        self._histograms = histograms
        self._store_age_ms_max = store_age_ms_max
        self._accept_lost_input = accept_lost_input
        self._send_timeout_s = send_timeout_s
        self._on_batch = on_batch
        self._producer: TaskProducer | None = None
        self._store: LocalStore | None = None
        self._processor: Processor
        self._timed: TimedProcessor | None = None
        self._measured: MeasuredProcessor | None = None
        self._state: BatchState
        self._outbox: Outbox
        self.positions: dict[str, int] = {}

    async def open(self) -> dict[str, int]:
        """Take the task over and restore its state. Returns where to read on: topic → next offset."""
        task = self._task
        self._producer = await self._kafka.open_producer(task.transactional_id)
        self._store = self._open_store()
        await self._restore(self._store)
        meta = read_meta(self._store)
        self.positions = await self._input_positions(meta)
        self._state = BatchState(self._store, self._with_partitions(meta or Meta({})))
        self._outbox = Outbox(self._producer, task.partition)
        self._processor = self._make_processor(task.partition, self._state, self._outbox)
        self._timed = self._processor if isinstance(self._processor, TimedProcessor) else None
        self._measured = self._processor if isinstance(self._processor, MeasuredProcessor) else None
        self._measure()
        return self.positions

    async def run(self, records: Sequence[Record], moved: Mapping[str, int]) -> None:
        """Process one batch and commit it with everything that follows from it.

        `moved` (topic → next offset) is where the input stands after the batch. Without records it only
        takes the positions past what holds none: transaction markers, aborted records.
        """
        positions = {**self.positions, **moved}
        of_topics = self._check_batch(records, positions)
        began_ns = time.time_ns()
        try:
            stages_s = await self._transact(self._processor.process(records) if records else None, positions)
        except Exception as error:
            if records and self._on_batch is not None:
                self._on_batch(self._task.partition, records, began_ns, (), error)
            raise
        if records and self._on_batch is not None:
            self._on_batch(self._task.partition, records, began_ns, stages_s, None)
        if records:
            self._stats.input_records.update(of_topics)
            self._histograms.observe(len(records), time.time() - records[0].timestamp / 1000, stages_s)
        self._stats.batches += 1
        if log.isEnabledFor(logging.DEBUG):
            took = ", ".join(f"{stage} {took_s * 1000:.1f}" for stage, took_s in zip(STAGES, stages_s, strict=True))
            log.debug("%s: %d records up to %s; ms: %s", self._task, len(records), positions, took)

    def next_due_ms(self) -> int | None:
        """When the processor has work without records, ms since the epoch."""
        return None if self._timed is None else self._timed.next_due_ms()

    async def tick(self, now_ms: int) -> None:
        """Have the processor do what is due by `now_ms`, and commit it. The input stays where it is."""
        assert self._timed is not None
        stages_s = await self._transact(self._timed.tick(now_ms), self.positions)
        self._histograms.observe(0, None, stages_s)
        self._stats.ticks += 1

    async def close(self) -> None:
        """Let go of everything; an open transaction is left to the next InitProducerId. Never raises."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.close()
        store, self._store = self._store, None
        if store is not None:
            store.close()

    async def _transact(self, work: Awaitable[None] | None, positions: dict[str, int]) -> Sequence[float]:
        """One transaction: what `work` emits and changes, and `positions` as the input's new ones.

        Returns the seconds that each of `stats.STAGES` took.
        """
        assert self._producer is not None
        assert self._store is not None
        started_s = time.monotonic()
        if work is not None:
            try:
                await work
            except EngineError:
                raise  # it says itself whether opening anew is the cure
            except Exception as error:
                raise ProcessorFailedError(f"{self._task}: the processor raised {error!r}") from error
        processed_s = time.monotonic()
        changes = self._state.changes(positions)
        outputs = self._outbox.records
        await self._producer.begin()
        try:
            sent_to = await self._send(changes, self._offsets(positions))
        except Exception:
            self._stats.aborts += 1
            await self._abort()
            raise
        sent_s = time.monotonic()
        await self._commit()
        committed_s = time.monotonic()
        self._store.write(changes.rows, self._store.position if sent_to is None else sent_to)
        self._state.committed(changes)
        self.positions = positions
        self._stats.outputs += outputs
        self._measure()
        stored_s = time.monotonic()
        return processed_s - started_s, sent_s - processed_s, committed_s - sent_s, stored_s - committed_s

    def _measure(self) -> None:
        """Take the processor's figures over; only ever of what is committed."""
        assert self._store is not None
        self._stats.store_bytes = self._store.size_bytes
        if self._measured is not None:
            for figure, count in self._measured.take_counts().items():
                self._stats.counts[figure] += count
            self._stats.gauges = self._measured.gauges()

    async def _restore(self, store: LocalStore) -> None:
        """Bring the store to the changelog's end, judged by position."""
        changelog = TopicPartition(self._task.changelog, self._task.partition)
        async with self._kafka.changelog(changelog) as reader:
            first, end = await reader.bounds()
            self._check_store(store, first, end)
            start = max(first, store.position)
            self._stats.restore_remaining = end - start
            async for records, position in reader.read(start, end):
                apply_changelog(store, ((r.key, r.value) for r in records), position)
                self._stats.restored_records += len(records)
                self._stats.restore_remaining = end - position
                await asyncio.sleep(0)  # restoring must not starve the tasks that run
        if store.position < end:
            apply_changelog(store, (), end)

    def _check_store(self, store: LocalStore, first: int, end: int) -> None:
        """Empty a store that can't be brought forward from where it is."""
        if store.position > end:
            reason = f"it stands at {store.position}, beyond the changelog's end {end}"
        elif 0 < store.position < first:
            reason = f"it stands at {store.position}, before the changelog's first offset {first}"
        elif store.position < end and store.age_ms > self._store_age_ms_max:
            reason = f"it was left behind {store.age_ms} ms ago, deletions since may be compacted away"
        else:
            return
        log.warning("%s: rebuilding the local store: %s", self._task, reason)
        store.clear()

    def _with_partitions(self, meta: Meta) -> Meta:
        """A state belongs to a number of partitions: with another, its keys' records would be in another partition."""
        now = self._task.partitions
        if now is not None and meta.partitions not in (None, now):
            raise TopicsError(
                f"{self._task}: the state was made with {meta.partitions} partitions, and there are {now}: their number "
                "can't be changed once there is data"
            )
        return msgspec.structs.replace(meta, partitions=now)

    async def _input_positions(self, meta: Meta | None) -> dict[str, int]:
        """Where the state says the input stands, held against the committed offsets and against what is
        there."""
        inputs = self._task.inputs
        committed = await self._kafka.committed(self._task.app_id, inputs)
        bounds = await self._kafka.bounds(inputs)
        positions: dict[str, int] = {}
        for tp in inputs:
            first, end = bounds[tp]
            held = None if meta is None else meta.positions.get(tp.topic)
            group_offset = committed.get(tp)
            if group_offset is not None and group_offset > (held or 0):
                raise StateLostError(
                    f"{self._task}: group {self._task.app_id} has committed {tp.topic} up to {group_offset}, the state "
                    f"in {self._task.changelog} only knows of {held}: part of the state is gone"
                )
            if held is None:
                positions[tp.topic] = first
                continue
            if group_offset != held and (group_offset is not None or held > first):
                log.warning(
                    "%s: the group's offset of %s is %s, the state's %s: resuming from the state's",
                    self._task, tp.topic, group_offset, held,
                )  # fmt: skip
            positions[tp.topic] = self._check_input(tp.topic, held, first, end)
        return positions

    def _check_input(self, topic: str, held: int, first: int, end: int) -> int:
        if held > end:
            raise InputLostError(
                f"{self._task}: {topic} ends at {end}, but was processed up to {held}: it was cut or made anew"
            )
        if held >= first:
            return held
        lost = f"{self._task}: {topic} begins at {first}, {first - held} offsets after the last one processed"
        if not self._accept_lost_input:
            raise InputLostError(f"{lost}; accept_lost_input lets the worker go on without them")
        log.error("%s: going on without them, as accept_lost_input says", lost)
        return first

    def _check_batch(self, records: Sequence[Record], positions: Mapping[str, int]) -> dict[str, int]:
        """No commit may pass a record that isn't in the batch, nor take one twice. Returns how many are of each topic."""
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
        """Put everything into the open transaction; returns when all of it has been acknowledged.

        The offsets go while the records are on their way, but not before them: the broker may still be ending the last
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
