"""Restoring a task: its store from the changelog, and the positions where its input continues."""

import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from rater.engine.broker import TopicPartition
from rater.engine.errors import InputLostError, StateLostError
from rater.engine.groups import TaskId
from rater.engine.overlay import Meta
from rater.engine.restore import InputPositions, Restore
from rater.engine.stats import EngineStats
from rater.engine.store import MemoryStore

TASK = TaskId("app", "group", 0, ("calls",), "changelog")
STORE_AGE_MS_MAX = 1000
PORTION_RECORDS = 2


class Row(NamedTuple):
    key: bytes
    value: bytes | None


class FakeBroker:
    """A changelog partition with `rows` from offset `first` on, the bounds of the input topic, and the group's offset of it."""

    def __init__(
        self,
        rows: Sequence[Row] = (),
        first: int = 0,
        end: int | None = None,
        *,
        input_bounds: tuple[int, int] = (0, 100),
        committed: int | None = None,
    ) -> None:
        self.reads: list[tuple[int, int]] = []
        self._rows = rows
        self._first = first
        self._end = first + len(rows) if end is None else end
        self._input_bounds = input_bounds
        self._committed = {TASK.inputs[0]: committed} if committed is not None else {}

    @asynccontextmanager
    async def changelog(self, partition: TopicPartition) -> AsyncIterator["FakeBroker"]:
        assert partition == TopicPartition(TASK.changelog, TASK.partition)
        yield self

    async def bounds(self, partitions: Collection[TopicPartition] | None = None) -> Any:
        """Without `partitions`, the bounds of the changelog; with them, those of the input."""
        return (self._first, self._end) if partitions is None else dict.fromkeys(partitions, self._input_bounds)

    async def read(self, start: int, end: int) -> AsyncIterator[tuple[Sequence[Row], int]]:
        self.reads.append((start, end))
        while start < end:
            portion = self._rows[start - self._first : start - self._first + PORTION_RECORDS]
            start = start + len(portion) if portion else end
            yield portion, start

    async def committed(self, group_id: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        assert group_id == TASK.app_id
        return {tp: self._committed[tp] for tp in partitions if tp in self._committed}


class AgedStore(MemoryStore):
    """A store that was last written `age_ms` ago."""

    age_ms = STORE_AGE_MS_MAX + 1


def rows_of(store: MemoryStore) -> dict[bytes, bytes]:
    return dict(store.scan(b""))


async def restore(broker: Any, store: MemoryStore) -> tuple[int, int]:
    """Restore `store`. Returns how many records were restored, and how many offsets remain."""
    stats = EngineStats().task(TASK.group, TASK.partition)
    await Restore(TASK, broker, stats, STORE_AGE_MS_MAX).run(store)
    return stats.restored_records, stats.restore_remaining


def stored(position: int, store: MemoryStore | None = None) -> MemoryStore:
    """A store at `position`, with one row that is in no changelog."""
    made = store or MemoryStore()
    made.write({b"rstray": b"\x00x"}, position)
    return made


CHANGELOG = (Row(b"ra", b"\x001"), Row(b"rb", b"\x001"), Row(b"ra", b"\x002"), Row(b"rb", None), Row(b"rc", b"\x001"))
RESTORED = {b"ra": b"\x002", b"rc": b"\x001"}


async def test_a_new_store_gets_all_rows_of_the_changelog() -> None:
    store = MemoryStore()
    assert await restore(FakeBroker(CHANGELOG), store) == (5, 0)
    assert (rows_of(store), store.position) == (RESTORED, 5)


async def test_a_new_store_is_restored_from_the_changelogs_first_offset(caplog: pytest.LogCaptureFixture) -> None:
    broker, store = FakeBroker(CHANGELOG, first=7), MemoryStore()
    await restore(broker, store)
    assert broker.reads == [(7, 12)]
    assert (rows_of(store), store.position) == (RESTORED, 12)
    assert caplog.text == ""


async def test_a_store_behind_the_changelogs_end_is_brought_forward() -> None:
    broker, store = FakeBroker(CHANGELOG), stored(3)
    assert await restore(broker, store) == (2, 0)
    assert broker.reads == [(3, 5)]
    assert (rows_of(store), store.position) == ({b"rstray": b"\x00x", b"rc": b"\x001"}, 5)


async def test_a_store_at_the_changelogs_end_is_kept() -> None:
    store = stored(5)
    assert await restore(FakeBroker(CHANGELOG), store) == (0, 0)
    assert (rows_of(store), store.position) == ({b"rstray": b"\x00x"}, 5)


async def test_a_store_beyond_the_changelogs_end_is_rebuilt(caplog: pytest.LogCaptureFixture) -> None:
    store = stored(6)
    assert await restore(FakeBroker(CHANGELOG), store) == (5, 0)
    assert (rows_of(store), store.position) == (RESTORED, 5)
    assert "group[0]: rebuilding the local store: it is at 6, beyond the changelog's end 5" in caplog.text


async def test_a_store_before_the_changelogs_first_offset_is_rebuilt(caplog: pytest.LogCaptureFixture) -> None:
    store = stored(6)
    assert await restore(FakeBroker(CHANGELOG, first=7), store) == (5, 0)
    assert (rows_of(store), store.position) == (RESTORED, 12)
    assert "it is at 6, before the changelog's first offset 7" in caplog.text


async def test_a_store_at_the_changelogs_first_offset_is_brought_forward() -> None:
    broker, store = FakeBroker(CHANGELOG, first=7), stored(7)
    await restore(broker, store)
    assert broker.reads == [(7, 12)]
    assert (rows_of(store), store.position) == ({b"rstray": b"\x00x", **RESTORED}, 12)


async def test_a_store_that_was_last_written_too_long_ago_is_rebuilt(caplog: pytest.LogCaptureFixture) -> None:
    store = stored(3, AgedStore())
    assert await restore(FakeBroker(CHANGELOG), store) == (5, 0)
    assert (rows_of(store), store.position) == (RESTORED, 5)
    assert "it was last written 1001 ms ago" in caplog.text


async def test_an_old_store_that_lacks_nothing_is_kept() -> None:
    store = stored(5, AgedStore())
    assert await restore(FakeBroker(CHANGELOG), store) == (0, 0)
    assert rows_of(store) == {b"rstray": b"\x00x"}


async def test_a_changelog_without_records_moves_a_new_store_to_its_end() -> None:
    store = MemoryStore()
    assert await restore(FakeBroker(first=9, end=9), store) == (0, 0)
    assert (rows_of(store), store.position) == ({}, 9)


async def test_offsets_without_records_at_the_changelogs_end_are_passed() -> None:
    store = MemoryStore()
    assert await restore(FakeBroker(CHANGELOG, end=8), store) == (5, 0)
    assert (rows_of(store), store.position) == (RESTORED, 8)


async def find(broker: Any, held: int | None, *, accept_lost_input: bool = False) -> int:
    """The position of the topic `calls`. `held` is the state's; None: there is no state."""
    meta = None if held is None else Meta({"calls": held})
    positions = await InputPositions(TASK, broker, accept_lost_input=accept_lost_input).find(meta)
    assert positions.keys() == {"calls"}
    return positions["calls"]


async def test_without_a_state_the_input_starts_at_its_first_offset() -> None:
    assert await find(FakeBroker(input_bounds=(5, 100)), None) == 5


async def test_a_topic_that_is_new_to_the_state_starts_at_its_first_offset() -> None:
    broker: Any = FakeBroker(input_bounds=(5, 100))
    positions = await InputPositions(TASK, broker, accept_lost_input=False).find(Meta({"other": 40}))
    assert positions == {"calls": 5}


async def test_the_input_continues_where_state_and_group_agree(caplog: pytest.LogCaptureFixture) -> None:
    assert await find(FakeBroker(committed=40), 40) == 40
    assert caplog.text == ""


@pytest.mark.parametrize("committed", [39, None])
async def test_if_the_group_is_behind_the_input_continues_from_the_state(
    committed: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert await find(FakeBroker(committed=committed), 40) == 40
    assert f"the group's offset of calls is {committed}, the state's is 40: resuming from the state's" in caplog.text


async def test_a_state_that_has_processed_nothing_needs_no_committed_offset(caplog: pytest.LogCaptureFixture) -> None:
    assert await find(FakeBroker(input_bounds=(5, 100)), 5) == 5
    assert caplog.text == ""


@pytest.mark.parametrize("held", [40, None])
async def test_if_the_group_is_ahead_part_of_the_state_is_lost(held: int | None) -> None:
    with pytest.raises(StateLostError, match=f"committed calls up to 41, but the state in changelog only knows of {held}"):
        await find(FakeBroker(committed=41), held)


async def test_lost_state_is_fatal_even_if_lost_input_is_accepted() -> None:
    with pytest.raises(StateLostError):
        await find(FakeBroker(committed=41), 40, accept_lost_input=True)


@pytest.mark.parametrize("accepted", [False, True])
async def test_an_input_that_ends_before_the_state_was_truncated(accepted: bool) -> None:
    with pytest.raises(InputLostError, match="calls ends at 39, but was processed up to 40: it was truncated or recreated"):
        await find(FakeBroker(input_bounds=(0, 39), committed=40), 40, accept_lost_input=accepted)


async def test_an_input_that_ends_at_the_state_is_complete() -> None:
    assert await find(FakeBroker(input_bounds=(40, 40), committed=40), 40) == 40


async def test_records_that_retention_deleted_before_they_were_processed_are_lost_input() -> None:
    with pytest.raises(InputLostError, match="calls begins at 43, 3 offsets after the last one processed"):
        await find(FakeBroker(input_bounds=(43, 100), committed=40), 40)


async def test_if_lost_input_is_accepted_the_input_continues_after_it(caplog: pytest.LogCaptureFixture) -> None:
    assert await find(FakeBroker(input_bounds=(43, 100), committed=40), 40, accept_lost_input=True) == 43
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "calls begins at 43" in line.getMessage()
