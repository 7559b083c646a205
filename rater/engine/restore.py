"""Restoring a task: its local store from the changelog, and the positions where its input continues.

The store is a cache. It is brought forward from its own position to the changelog's end, or emptied first if it can't be. The
state then says where the input stands; the group's committed offsets and the topics themselves only check that.
"""

import asyncio
from collections.abc import Mapping

from mode.utils.logging import get_logger

from rater.engine.broker import Broker, TopicPartition
from rater.engine.errors import InputLostError, StateLostError
from rater.engine.groups import TaskId
from rater.engine.overlay import Meta, apply_changelog
from rater.engine.stats import TaskStats
from rater.engine.store import LocalStore

__all__ = ["InputPositions", "Restore"]

log = get_logger(__name__)


class Restore:
    """Brings a store to the changelog's end, judged by position."""

    def __init__(self, task: TaskId, broker: Broker, stats: TaskStats, store_age_ms_max: int) -> None:
        self._task = task
        self._broker = broker
        self._stats = stats
        self._store_age_ms_max = store_age_ms_max

    async def run(self, store: LocalStore) -> None:
        """Call it after the task's transactional id has been fenced: before, an older owner may still write."""
        changelog = TopicPartition(self._task.changelog, self._task.partition)
        async with self._broker.changelog(changelog) as reader:
            first, end = await reader.bounds()
            self._empty_if_useless(store, first, end)
            start = max(first, store.position)
            self._stats.restore_remaining = end - start
            async for records, position in reader.read(start, end):
                apply_changelog(store, ((r.key, r.value) for r in records), position)
                self._stats.restored_records += len(records)
                self._stats.restore_remaining = end - position
                await asyncio.sleep(0)  # restoring must not starve the tasks that run
        if store.position < end:
            apply_changelog(store, (), end)

    def _empty_if_useless(self, store: LocalStore, first: int, end: int) -> None:
        """Empty a store that can't be brought forward from where it is."""
        if store.position > end:
            reason = f"it is at {store.position}, beyond the changelog's end {end}"
        elif 0 < store.position < first:
            reason = f"it is at {store.position}, before the changelog's first offset {first}"
        elif store.position < end and store.age_ms > self._store_age_ms_max:
            reason = f"it was last written {store.age_ms} ms ago; deletions since then may have been compacted away"
        else:
            return
        log.warning("%s: rebuilding the local store: %s", self._task, reason)
        store.clear()


class InputPositions:
    """Where a task's input continues: the state's positions, checked against the group's offsets and the topics."""

    def __init__(self, task: TaskId, broker: Broker, *, accept_lost_input: bool) -> None:
        self._task = task
        self._broker = broker
        self._accept_lost_input = accept_lost_input

    async def find(self, meta: Meta | None) -> dict[str, int]:
        """Topic → next offset. Raises StateLostError or InputLostError if part of the state or of the input is gone."""
        inputs = self._task.inputs
        committed = await self._broker.committed(self._task.app_id, inputs)
        bounds = await self._broker.bounds(inputs)
        held: Mapping[str, int] = {} if meta is None else meta.positions
        return {tp.topic: self._position(tp.topic, held.get(tp.topic), committed.get(tp), bounds[tp]) for tp in inputs}

    def _position(self, topic: str, held: int | None, committed: int | None, bounds: tuple[int, int]) -> int:
        """`held`: what the state says; `committed`: what the group says."""
        first, end = bounds
        if committed is not None and committed > (held or 0):
            raise StateLostError(
                f"{self._task}: group {self._task.app_id} has committed {topic} up to {committed}, but the state in "
                f"{self._task.changelog} only knows of {held}: part of the state is gone"
            )
        if held is None:
            return first
        if committed != held and (committed is not None or held > first):
            log.warning(
                "%s: the group's offset of %s is %s, the state's is %s: resuming from the state's",
                self._task, topic, committed, held,
            )  # fmt: skip
        if held > end:
            raise InputLostError(
                f"{self._task}: {topic} ends at {end}, but was processed up to {held}: it was truncated or recreated"
            )
        if held >= first:
            return held
        lost = f"{self._task}: {topic} begins at {first}, {first - held} offsets after the last one processed"
        if not self._accept_lost_input:
            raise InputLostError(f"{lost}; accept_lost_input lets the worker go on without them")
        log.error("%s: going on without them, as accept_lost_input says", lost)
        return first
