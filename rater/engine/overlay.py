"""One task's state as a batch sees it: the committed rows under an overlay of the batch's own writes.

Nothing reaches the store before the batch has committed. `changes` returns what the transaction must contain and what the store
must write afterwards. If the batch fails, this object is discarded with its overlay.

The rows, as key, value and meaning. They are the same in the changelog and in the store, except where noted:

    b"r" + key              0x00 + value          a row written by `put`
    b"r" + key              0x01 + day + value    a row written by `append` (only in the store)
    b"s" + day + number     a segment             in the changelog: its rows; in the store: their keys
    b"m"                    Meta                  the next input offsets, written by every batch

So the state itself says how far the input has been processed. The group's committed offsets only check it.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from rater.engine import segments
from rater.engine.store import LocalStore

__all__ = ["BatchState", "Changes", "Meta", "apply_changelog", "read_meta"]

META_KEY = b"m"
_ROW = b"r"
_SEGMENT = b"s"
_PUT = b"\x00"
_APPENDED = b"\x01"
_DAY = struct.Struct(">i")
_VALUE_OFFSET = 1 + _DAY.size
_MISSING = object()
_SWEEP_ROWS_MAX = 2000
_SWEEP_SEGMENTS_MAX = 100


class Meta(msgspec.Struct, frozen=True):
    """The row that every batch writes.

    `positions`: topic → next input offset. `segments`: how many segments have ever been written. `expired_before_day`: rows of
    earlier days (since the epoch) may be forgotten. `partitions`: the number of partitions of the topics, if it is fixed.
    """

    positions: dict[str, int]
    segments: int = 0
    expired_before_day: int | None = None
    partitions: int | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of one batch: `changelog` for its transaction, `rows` for the store after the commit. None deletes a row."""

    changelog: list[tuple[bytes, bytes | None]]
    rows: dict[bytes, bytes | None]
    meta: Meta


class BatchState:
    """Implements `api.State`. `changes` ends a batch; `committed` starts the next one."""

    def __init__(self, store: LocalStore, meta: Meta) -> None:
        self._store = store
        self._stored = store.get
        self._meta = meta
        self._writes: dict[bytes, bytes | None] = {}
        self._days: dict[bytes, int] = {}
        self._expired_before_day = meta.expired_before_day
        self._swept = False

    def get(self, key: bytes) -> bytes | None:
        """The row of `key`; None if there is none."""
        written = self._writes.get(key, _MISSING)
        if written is not _MISSING:
            return written  # type: ignore[return-value]
        row = self._stored(_ROW + key)
        return None if row is None else _value(row)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of `keys` in their order; None where there is no row."""
        writes, stored = self._writes, self._stored
        found: list[bytes | None] = []
        add = found.append
        for key in keys:
            if key in writes:
                add(writes[key])
            else:
                row = stored(_ROW + key)
                add(row if row is None else _value(row))
        return found

    def put(self, key: bytes, value: bytes) -> None:
        """Write a row. Raises ValueError if this batch has appended it."""
        if key in self._days:
            raise ValueError(f"{key!r} has been appended, so it can't be put as well")
        self._writes[key] = value

    def append(self, day: int, key: bytes, value: bytes) -> None:
        """Write a row that may expire with the bucket `day` (days since the epoch)."""
        self._writes[key] = value
        self._days[key] = day

    def delete(self, key: bytes) -> None:
        """Delete a row. Raises ValueError if it has been appended."""
        row = self._stored(_ROW + key)
        if key in self._days or (row is not None and row[:1] == _APPENDED):
            # Its segment would restore it when the state is rebuilt.
            raise ValueError(f"{key!r} has been appended: it expires and can't be deleted")
        self._writes[key] = None

    def expire(self, before_day: int) -> None:
        """Allow rows appended to days before `before_day` to be forgotten. An earlier day than before changes nothing."""
        if self._expired_before_day is None or before_day > self._expired_before_day:
            self._expired_before_day = before_day
            self._swept = False

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key starts with `prefix`, in key order."""
        written = {key: value for key, value in self._writes.items() if key.startswith(prefix)}
        stored = ((key[1:], _value(row)) for key, row in self._store.scan(_ROW + prefix))
        return _merge_rows(stored, written)

    def changes(self, positions: Mapping[str, int]) -> Changes:
        """The changes of this batch. `positions` (topic → next offset) are the input positions after it."""
        changelog: list[tuple[bytes, bytes | None]] = []
        rows: dict[bytes, bytes | None] = {}
        appended: dict[int, dict[bytes, bytes]] = {}
        days = self._days
        for key, value in self._writes.items():
            if key in days:
                assert value is not None
                appended.setdefault(days[key], {})[key] = value
            else:
                row = None if value is None else _PUT + value
                changelog.append((_ROW + key, row))
                rows[_ROW + key] = row
        number = self._meta.segments
        before = self._expired_before_day
        for day, day_rows in appended.items():
            tag = _tag(day)
            rows.update({_ROW + key: tag + value for key, value in day_rows.items()})
            for part in segments.split(day_rows):
                number += 1
                segment = segments.segment_key(day, number)
                changelog.append((segment, segments.pack(part)))
                rows[segment] = segments.pack_keys(list(part))
        for segment in self._sweep(rows):
            changelog.append((segment, None))
            rows[segment] = None
        if before is not None and any(day < before for day in appended):
            self._swept = False  # this batch appends rows that have expired already: a later sweep removes them
        meta = Meta(dict(positions), number, self._expired_before_day, self._meta.partitions)
        encoded = msgspec.json.encode(meta)
        changelog.append((META_KEY, encoded))
        rows[META_KEY] = encoded
        return Changes(changelog, rows, meta)

    def committed(self, changes: Changes) -> None:
        """The batch has been committed and its changes are in the store: start the next batch with an empty overlay."""
        self._meta = changes.meta
        self._writes.clear()
        self._days.clear()

    def _sweep(self, rows: dict[bytes, bytes | None]) -> Iterable[bytes]:
        """Stored segments that have expired, a bounded number per batch. Deletions of their rows are added to `rows`."""
        if self._expired_before_day is None or self._swept:
            return []
        swept: list[bytes] = []
        deleted = 0
        for segment, keys in self._store.scan(_SEGMENT):
            if segments.segment_day(segment) >= self._expired_before_day:
                self._swept = True
                return swept
            if deleted >= _SWEEP_ROWS_MAX or len(swept) >= _SWEEP_SEGMENTS_MAX:
                return swept
            swept.append(segment)
            for row_key in _rows_of(self._store, segment, keys):
                if row_key not in rows:
                    rows[row_key] = None
                    deleted += 1
        self._swept = True
        return swept


def apply_changelog(store: LocalStore, records: Iterable[tuple[bytes, bytes | None]], position: int) -> None:
    """Apply changelog `records` (key, value), in order, to `store`, and move it to `position` (the next offset)."""
    rows: dict[bytes, bytes | None] = {}
    for key, value in records:
        if key[:1] != _SEGMENT:
            rows[key] = value
        elif value is not None:
            part = segments.unpack(value)
            tag = _tag(segments.segment_day(key))
            for row_key, row_value in part.items():
                rows[_ROW + row_key] = tag + row_value
            rows[key] = segments.pack_keys(list(part))
        else:
            keys = rows.get(key) or store.get(key)
            if keys is not None:
                tag = _tag(segments.segment_day(key))
                for segment_row in segments.unpack_keys(keys):
                    row = rows[_ROW + segment_row] if _ROW + segment_row in rows else store.get(_ROW + segment_row)
                    if row is not None and row.startswith(tag):
                        rows[_ROW + segment_row] = None
            rows[key] = None
    store.write(rows, position)


def read_meta(store: LocalStore) -> Meta | None:
    """The meta row; None if no batch has been committed yet."""
    encoded = store.get(META_KEY)
    return None if encoded is None else msgspec.json.decode(encoded, type=Meta)


def _tag(day: int) -> bytes:
    return _APPENDED + _DAY.pack(day)


def _value(row: bytes) -> bytes:
    return row[_VALUE_OFFSET:] if row[0] else row[1:]


def _rows_of(store: LocalStore, segment: bytes, keys: bytes) -> Iterator[bytes]:
    """Store keys of the rows that still belong to `segment`'s day. Later appends have moved the others to another day."""
    tag = _tag(segments.segment_day(segment))
    for key in segments.unpack_keys(keys):
        row = store.get(_ROW + key)
        if row is not None and row.startswith(tag):
            yield _ROW + key


def _merge_rows(stored: Iterator[tuple[bytes, bytes]], written: dict[bytes, bytes | None]) -> Iterator[tuple[bytes, bytes]]:
    overlay = sorted(written.items())
    index = 0
    for key, value in stored:
        while index < len(overlay) and overlay[index][0] < key:
            overlay_key, overlay_value = overlay[index]
            index += 1
            if overlay_value is not None:
                yield overlay_key, overlay_value
        if key not in written:
            yield key, value
    for overlay_key, overlay_value in overlay[index:]:
        if overlay_value is not None:
            yield overlay_key, overlay_value
