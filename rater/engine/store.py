"""Local stores: the committed rows of one partition, as bytes, with their changelog position.

A store is a cache of the changelog. Rows are written only after their transaction has committed, together with the changelog
position and in one atomic write. So even after a crash a store holds a committed state. A store that belongs to another task or
is broken is deleted and rebuilt.

Rows here are encoded rows (see `overlay`); a value of None deletes a row.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec
from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, WriteBatch

from rater.engine.errors import StoreBusyError, StoreError

__all__ = ["LocalStore", "MemoryStore", "RocksStore", "StoreIdentity", "open_store"]

FORMAT = 1
_IDENTITY = b"\x00identity"
_POSITION = b"\x00position"
_WRITE_BUFFER_BYTES = 16 * 1024 * 1024
_OPEN_FILES_MAX = 256
_LOG_FILES_MAX = 2
_SIZES = ("rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables")
# RocksDB's messages when another process has locked the folder, and when the disk is at fault instead of the store's files.
_HELD = ("While lock file", "lock hold by current process")
_OUTER_FAULTS = ("No space left", "quota exceeded", "File too large", "Permission denied", "Read-only", "Too many open files")


class StoreIdentity(msgspec.Struct, frozen=True):
    """Which task the rows belong to. A store with another identity is foreign: its rows must not be used."""

    app_id: str
    group: str
    changelog: str
    partition: int
    format: int = FORMAT


class _Position(msgspec.Struct, frozen=True):
    offset: int
    written_ms: int


class LocalStore(Protocol):
    """What the engine needs of a store."""

    @property
    def position(self) -> int:
        """The next changelog offset to apply; 0 if the store is new."""

    @property
    def age_ms(self) -> int:
        """Milliseconds since the last write; 0 if the store is new."""

    @property
    def size_bytes(self) -> int:
        """Its size on disk, plus its rows in memory that are not on disk yet."""

    def get(self, key: bytes) -> bytes | None:
        """The row of `key`; None if there is none."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key starts with `prefix`, in key order."""

    def write(self, rows: Mapping[bytes, bytes | None], position: int) -> None:
        """Write `rows` and the new `position` atomically. Raises StoreError if that fails."""

    def clear(self) -> None:
        """Delete all rows and set the position to 0."""

    def close(self) -> None:
        """Release its files and its lock."""


class MemoryStore:
    """Rows in a dict: for tests, and for a state that may be restored from the whole changelog at every start."""

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._position = 0
        self.get = self._rows.get

    @property
    def position(self) -> int:
        return self._position

    @property
    def age_ms(self) -> int:
        return 0

    @property
    def size_bytes(self) -> int:
        return 0  # nothing besides the process's own memory

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(key for key in self._rows if key.startswith(prefix)):
            yield key, self._rows[key]

    def write(self, rows: Mapping[bytes, bytes | None], position: int) -> None:
        for key, value in rows.items():
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value
        self._position = position

    def clear(self) -> None:
        self._rows.clear()
        self._position = 0

    def close(self) -> None:
        """Does nothing: there are no files."""


class RocksStore:
    """Rows in RocksDB in `folder`. RocksDB locks the folder, so one process at a time can open it.

    Raises ValueError if the folder holds a store of another identity; use `open_store` to replace such a store.
    """

    def __init__(self, folder: Path, identity: StoreIdentity, cache_bytes: int) -> None:
        self._folder = folder
        self._identity = msgspec.json.encode(identity)
        self._options = _options(cache_bytes)
        self._open()

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._db = Rdict(str(self._folder), self._options)
        # Most look-ups are for keys that don't exist. The bloom filter answers a single one in 0.2 µs; in a list, each takes
        # 0.5 µs.
        self.get = self._db.get
        held = self._db.get(_IDENTITY)
        if held is None:
            self._db.put(_IDENTITY, self._identity)
        elif held != self._identity:
            self._db.close()
            raise ValueError(f"{self._folder} belongs to {held!r}, not to {self._identity!r}")
        position = self._db.get(_POSITION)
        self._position = None if position is None else msgspec.json.decode(position, type=_Position)

    @property
    def position(self) -> int:
        return 0 if self._position is None else self._position.offset

    @property
    def age_ms(self) -> int:
        return 0 if self._position is None else max(0, _now_ms() - self._position.written_ms)

    @property
    def size_bytes(self) -> int:
        return sum(self._db.property_int_value(name) or 0 for name in _SIZES)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._db.items(from_key=prefix):
            assert isinstance(key, bytes)
            if not key.startswith(prefix):
                return
            yield key, value

    def write(self, rows: Mapping[bytes, bytes | None], position: int) -> None:
        moved = _Position(position, _now_ms())
        batch = WriteBatch(raw_mode=True)
        put = batch.put
        for key, value in rows.items():
            if value is None:
                batch.delete(key)
            else:
                put(key, value)
        put(_POSITION, msgspec.json.encode(moved))
        try:
            self._db.write(batch)
        except Exception as error:  # rocksdict raises nothing narrower
            raise StoreError(_advice(f"the local store {self._folder} can't be written: {error}")) from error
        self._position = moved

    def clear(self) -> None:
        self.close()
        shutil.rmtree(self._folder)
        self._open()

    def close(self) -> None:
        self._db.close()


def open_store(folder: Path, identity: StoreIdentity, cache_bytes: int) -> RocksStore:
    """Open the store in `folder`, or create it. A foreign or broken store is replaced by an empty one.

    Raises StoreBusyError if another process has it open; its files must not be deleted. Raises StoreError if no store can be
    created.
    """
    try:
        try:
            return RocksStore(folder, identity, cache_bytes)
        except Exception as error:  # rocksdict raises nothing narrower
            if any(sign in str(error) for sign in _HELD):
                raise StoreBusyError(f"another process has the store {folder} open") from error
            if isinstance(error, OSError) or any(sign in str(error) for sign in _OUTER_FAULTS):
                raise
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
        return RocksStore(folder, identity, cache_bytes)
    except StoreBusyError:
        raise
    except Exception as error:
        raise StoreError(_advice(f"the local store {folder} can't be opened: {error}")) from error


def _advice(what: str) -> str:
    return f"{what}. Free disk space and check the permissions, or set RATER_DATA_DIR to another folder; no data is lost"


def _options(cache_bytes: int) -> Options:
    table = BlockBasedOptions()
    table.set_bloom_filter(10, block_based=False)
    table.set_block_cache(Cache(cache_bytes))
    # Indexes and filters stay in memory, at 1.5 bytes per row. In the block cache, one that is larger than a shard of the cache
    # would be read from disk for every look-up.
    table.set_cache_index_and_filter_blocks(False)
    options = Options(raw_mode=True)
    options.create_if_missing(create_if_missing=True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    # Most look-ups are for keys that don't exist: with this filter they need no search of the memtable.
    options.set_memtable_prefix_bloom_ratio(0.1)
    options.set_memtable_whole_key_filtering(whole_key_filter=True)
    options.set_max_open_files(_OPEN_FILES_MAX)
    options.set_keep_log_file_num(_LOG_FILES_MAX)
    return options


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
