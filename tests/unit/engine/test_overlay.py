"""State: the overlay of a batch, segments of index rows, and the same rows restored from the changelog."""

from pathlib import Path

import pytest

from rater.engine import segments
from rater.engine.errors import StoreBusyError
from rater.engine.overlay import BatchState, Changes, Meta, apply_changelog, read_meta
from rater.engine.store import LocalStore, MemoryStore, RocksStore, StoreIdentity, open_store

IDENTITY = StoreIdentity("app", "group", "changelog", 3)
CACHE_BYTES = 1 << 20
POSITIONS = {"topic": 7}


def new_state(store: LocalStore) -> BatchState:
    return BatchState(store, read_meta(store) or Meta({}))


class Task:
    """A state on a store, with the changelog that its batches write."""

    def __init__(self, store: LocalStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.state = new_state(self.store)
        self.changelog: list[tuple[bytes, bytes | None]] = []

    def commit(self) -> Changes:
        changes = self.state.changes(POSITIONS)
        self.changelog += changes.changelog
        self.store.write(changes.rows, len(self.changelog))
        self.state.committed(changes)
        return changes

    def rebuilt(self, *, compacted: bool = False) -> MemoryStore:
        records = list(self.changelog)
        if compacted:
            last = {key: index for index, (key, _) in enumerate(records)}
            records = [(k, v) for index, (k, v) in enumerate(records) if last[k] == index and v is not None]
        store = MemoryStore()
        apply_changelog(store, records, len(self.changelog))
        return store


def rows(store: LocalStore) -> list[tuple[bytes, bytes]]:
    return list(store.scan(b""))


def test_a_batch_sees_its_own_writes_over_the_committed_rows() -> None:
    task = Task()
    task.state.put(b"a", b"1")
    task.state.put(b"b", b"1")
    task.commit()
    task.state.put(b"a", b"2")
    task.state.delete(b"b")
    task.state.append(5, b"c", b"3")
    assert [task.state.get(key) for key in (b"a", b"b", b"c", b"d")] == [b"2", None, b"3", None]
    assert task.state.get_many([b"d", b"c", b"b", b"a"]) == [None, b"3", None, b"2"]


def test_nothing_reaches_the_store_before_the_commit() -> None:
    task = Task()
    task.state.put(b"a", b"1")
    task.state.append(5, b"c", b"3")
    task.state.changes(POSITIONS)
    assert rows(task.store) == []
    assert new_state(task.store).get_many([b"a", b"c"]) == [None, None]


def test_scanning_merges_the_batchs_writes_in_key_order() -> None:
    task = Task()
    for key in (b"x1", b"x3", b"x5", b"y1"):
        task.state.put(key, b"old")
    task.commit()
    task.state.put(b"x2", b"new")
    task.state.put(b"x3", b"new")
    task.state.put(b"x9", b"new")
    task.state.delete(b"x5")
    assert list(task.state.scan(b"x")) == [(b"x1", b"old"), (b"x2", b"new"), (b"x3", b"new"), (b"x9", b"new")]


def test_many_appended_rows_cost_one_changelog_record_a_day() -> None:
    task = Task()
    for n in range(8000):
        task.state.append(10 + n % 2, b"id-%d" % n, b"1")
    changes = task.commit()
    assert len(changes.changelog) == 3  # two days and the meta row
    assert task.state.get(b"id-7999") == b"1"
    assert rows(task.rebuilt()) == rows(task.store)


def test_a_segment_is_no_larger_than_its_limit() -> None:
    task = Task()
    for n in range(40):
        task.state.append(1, b"%d" % n, b"x" * 40_000)
    changes = task.commit()
    sizes = [len(value or b"") for key, value in changes.changelog if key[:1] == b"s"]
    assert len(sizes) > 1
    assert max(sizes) <= segments.SEGMENT_BYTES_MAX
    assert rows(task.rebuilt()) == rows(task.store)


def test_segment_keys_sort_by_day_even_before_1970() -> None:
    days = [-3, -1, 0, 1, 20_000, 3_000_000]
    keys = [segments.segment_key(day, 9 - index) for index, day in enumerate(days)]
    assert sorted(keys) == keys
    assert [segments.segment_day(key) for key in keys] == days


def test_expired_rows_are_forgotten_and_their_segments_deleted() -> None:
    task = Task()
    for day in (1, 2, 3):
        task.state.append(day, b"id-%d" % day, b"1")
        task.commit()
    task.state.expire(3)
    changes = task.commit()
    assert sum(value is None for _, value in changes.changelog) == 2
    assert task.state.get_many([b"id-1", b"id-2", b"id-3"]) == [None, None, b"1"]
    assert rows(task.rebuilt()) == rows(task.store)
    assert rows(task.rebuilt(compacted=True)) == rows(task.store)


def test_expired_rows_are_removed_in_slices_over_several_batches() -> None:
    task = Task()
    for n in range(250):
        task.state.append(1, b"id-%d" % n, b"1")
        task.commit()
    task.state.expire(2)
    deleted = []
    while True:
        changes = task.commit()
        count = sum(value is None for _, value in changes.changelog)
        if not count:
            break
        deleted.append(count)
    assert len(deleted) > 1
    assert sum(deleted) == 250
    assert task.state.get_many([b"id-%d" % n for n in range(250)]) == [None] * 250
    assert rows(task.rebuilt()) == rows(task.store)


def test_expiry_continues_after_the_state_is_opened_again() -> None:
    task = Task()
    for n in range(150):
        task.state.append(1, b"id-%d" % n, b"1")
        task.commit()
    task.state.expire(2)
    task.commit()
    task.state = new_state(task.store)
    task.commit()
    assert [row for row in rows(task.store) if row[0] != b"m"] == []


def test_a_row_that_is_appended_again_expires_with_its_last_day() -> None:
    task = Task()
    task.state.append(1, b"id", b"old")
    task.commit()
    task.state.append(9, b"id", b"new")
    task.state.expire(5)
    task.commit()
    task.commit()
    assert task.state.get(b"id") == b"new"
    for compacted in (False, True):
        assert new_state(task.rebuilt(compacted=compacted)).get(b"id") == b"new"


def test_a_row_appended_to_an_expired_day_is_removed_by_a_later_batch() -> None:
    task = Task()
    task.state.expire(5)
    task.commit()
    task.state.append(1, b"late", b"1")
    task.commit()
    assert task.state.get(b"late") == b"1"
    task.commit()
    assert task.state.get(b"late") is None
    assert rows(task.rebuilt()) == rows(task.store)


def test_an_appended_row_can_not_be_deleted() -> None:
    task = Task()
    task.state.append(1, b"id", b"1")
    with pytest.raises(ValueError, match="expires"):
        task.state.delete(b"id")
    task.commit()
    with pytest.raises(ValueError, match="expires"):
        task.state.delete(b"id")


def test_the_meta_row_tells_where_the_input_stands() -> None:
    task = Task()
    assert read_meta(task.store) is None
    task.commit()
    assert read_meta(task.rebuilt()) == Meta(POSITIONS)


def test_a_store_opened_again_has_its_rows_and_its_position(tmp_path: Path) -> None:
    task = Task(open_store(tmp_path / "s", IDENTITY, CACHE_BYTES))
    task.state.put(b"a", b"1")
    task.state.append(2, b"b", b"2")
    task.commit()
    before = rows(task.store)
    task.store.close()
    store = open_store(tmp_path / "s", IDENTITY, CACHE_BYTES)
    assert rows(store) == before
    assert store.position == len(task.changelog)
    assert new_state(store).get_many([b"a", b"b", b"c"]) == [b"1", b"2", None]
    store.close()


def test_a_foreign_store_is_replaced_by_an_empty_one(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s", IDENTITY, CACHE_BYTES)
    store.write({b"ra": b"\x00x"}, 5)
    store.close()
    other = open_store(tmp_path / "s", StoreIdentity("app", "group", "changelog", 4), CACHE_BYTES)
    assert (other.position, other.get(b"ra")) == (0, None)
    other.close()


def test_a_broken_store_is_replaced_by_an_empty_one(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s", IDENTITY, CACHE_BYTES)
    store.write({b"ra": b"\x00x"}, 5)
    store.close()
    for file in (tmp_path / "s").glob("MANIFEST*"):
        file.write_bytes(b"rubbish")
    other = open_store(tmp_path / "s", IDENTITY, CACHE_BYTES)
    assert (other.position, other.get(b"ra")) == (0, None)
    other.close()


def test_a_store_in_use_is_left_alone(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "s", IDENTITY, CACHE_BYTES)
    store.write({b"ra": b"\x00x"}, 5)
    with pytest.raises(StoreBusyError):
        open_store(tmp_path / "s", IDENTITY, CACHE_BYTES)
    assert store.get(b"ra") == b"\x00x"
    store.close()


def test_clearing_a_store_empties_it(tmp_path: Path) -> None:
    for store in (MemoryStore(), open_store(tmp_path / "s", IDENTITY, CACHE_BYTES)):
        store.write({b"ra": b"\x00x"}, 5)
        store.clear()
        assert (store.position, store.get(b"ra")) == (0, None)
        store.write({b"rb": b"\x00y"}, 1)
        assert store.get(b"rb") == b"\x00y"
        store.close()
