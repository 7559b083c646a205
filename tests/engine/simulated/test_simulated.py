"""Thousands of simulated clusters: whatever happens to them, every record counts once. And each safeguard is needed.

`RATER_SEEDS=20000 pytest tests/engine/simulated` simulates more of them. A failure names its seed, and `live_through(seed)`
repeats it step by step.
"""

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rater.engine.broker import TopicPartition
from rater.engine.checkpoint import Checkpoint
from rater.engine.output import Sends
from rater.engine.restore import Restore
from rater.engine.task import Task
from tests.engine.simulated import process
from tests.engine.simulated.world import WrongError, live_through

SEEDS = int(os.environ.get("RATER_SEEDS", "1000"))
PARTS = 10
SEEDS_UNTIL_FOUND = 400

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Switches logging off: thousands of clusters log a lot, and all of it is expected."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_record_counts_once_whatever_befalls_the_workers(part: int) -> None:
    for seed in range(part, SEEDS, PARTS):
        live_through(seed)


def test_the_same_seed_is_the_same_life() -> None:
    assert live_through(7).trace == live_through(7).trace


def state_is_read_before_the_fence(patch: Patch) -> None:
    """A zombie's batch in flight is then committed after the state has been read."""

    class LateFence(process._TaskProducer):
        _fenced = False

        async def begin(self) -> None:
            if not self._fenced:
                broker = self._process.broker
                self._epoch = await self._process.call(lambda: broker.init_producer(self._id))
                self._fenced = True

    async def open_producer(kafka: process._Kafka, transactional_id: str) -> LateFence:
        return LateFence(kafka._process, transactional_id, -1)

    patch.setattr(process._Kafka, "open_producer", open_producer)


def sends_are_not_looked_at(patch: Patch) -> None:
    """As with aiokafka's flush, which returns normally even if a send has failed."""

    async def acknowledged(sends: Sends) -> None:
        for future in sends.futures.values():
            try:
                await future
            except OSError:
                continue

    patch.setattr(Sends, "acknowledged", acknowledged)


def an_unanswered_commit_counts_as_done(patch: Patch) -> None:
    async def commit(checkpoint: Checkpoint) -> None:
        assert checkpoint._producer is not None
        try:
            await checkpoint._producer.commit()
        except OSError:
            return

    patch.setattr(Checkpoint, "_commit", commit)


def the_store_takes_rows_before_the_commit(patch: Patch) -> None:
    send = Checkpoint._send

    async def write_and_send(checkpoint: Checkpoint, changes: Any, offsets: dict[TopicPartition, int]) -> int | None:
        assert checkpoint._store is not None
        checkpoint._store.write(changes.rows, checkpoint._store.position)
        return await send(checkpoint, changes, offsets)

    patch.setattr(Checkpoint, "_send", write_and_send)


def offsets_stay_out_of_the_transaction(patch: Patch) -> None:
    patch.setattr(Checkpoint, "_offsets", lambda checkpoint, positions: {})


def records_of_an_earlier_opening_are_taken(patch: Patch) -> None:
    """A poll that was in flight when its task was reopened returns records that have been read already."""
    patch.setattr(Task, "epoch", property(lambda task: 0, lambda task, value: None), raising=False)


def a_failed_batch_leaves_the_state_as_it_was_then(patch: Patch) -> None:
    """The task continues with uncommitted state in memory, instead of reopening from committed state."""
    run = Checkpoint.run

    async def run_on(checkpoint: Checkpoint, *batch: Any) -> None:
        try:
            await run(checkpoint, *batch)
        except OSError:
            return

    patch.setattr(Checkpoint, "run", run_on)


def the_rest_of_the_changelog_is_not_restored(patch: Patch) -> None:
    """A local store that is not empty is used as it is."""
    run = Restore.run

    async def believe(restore: Restore, store: Any) -> None:
        if store.position == 0:
            await run(restore, store)

    patch.setattr(Restore, "run", believe)


CURES_TAKEN_OUT = (
    state_is_read_before_the_fence,
    sends_are_not_looked_at,
    an_unanswered_commit_counts_as_done,
    the_store_takes_rows_before_the_commit,
    offsets_stay_out_of_the_transaction,
    records_of_an_earlier_opening_are_taken,
    a_failed_batch_leaves_the_state_as_it_was_then,
    the_rest_of_the_changelog_is_not_restored,
)


@pytest.mark.parametrize("take_out", CURES_TAKEN_OUT, ids=lambda cure: cure.__name__)
def test_a_cure_that_is_taken_out_is_missed(take_out: Callable[[Patch], None], monkeypatch: Patch) -> None:
    take_out(monkeypatch)
    assert any(goes_wrong(seed) for seed in range(SEEDS_UNTIL_FOUND))


def goes_wrong(seed: int) -> bool:
    try:
        live_through(seed)
    except WrongError:
        return True
    return False
