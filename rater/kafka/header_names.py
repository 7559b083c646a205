"""Makes aiokafka read records whose header names are not UTF-8.

A broker accepts any bytes as a header name, and producers in C send such names. aiokafka raises on one, at the same record
again and again, so the partition would never move on. This module reads such names as Java's clients do, with U+FFFD for bytes
that are not UTF-8. It re-reads only the fetches that contain one, in Python; all others stay as fast as before.
"""

from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy

__all__ = ["read_any_header_name"]


def read_any_header_name() -> None:
    """Patch aiokafka for all consumers of this process."""
    fetcher.MemoryRecords = KeptRecords
    fetcher.PartitionRecords = TolerantPartitionRecords


class KeptRecords(MemoryRecords):  # type: ignore[misc]
    """Records that keep their bytes, so that they can be read a second time."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class TolerantPartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one fetch of one partition."""

    _records: Any
    _records_iterator: Any

    def __next__(self) -> Any:
        try:
            return next(self._records_iterator)
        except StopIteration:
            self._records_iterator = None  # as aiokafka does, to break a reference cycle
            raise
        except UnicodeDecodeError:
            # `next_fetch_offset` is at or before the record that raised.
            self._records = TolerantRecords(self._records.data, self.next_fetch_offset)
            self._records_iterator = self._unpack_records()
            return next(self)


class TolerantRecords(_MemoryRecordsPy):  # type: ignore[misc]
    """Batches from the one with `offset` on; earlier ones have been read."""

    def __init__(self, data: bytes, offset: int) -> None:
        super().__init__(data)
        while self._next_slice is not None and TolerantBatch(self._next_slice).next_offset <= offset:
            self._cache_next()

    def next_batch(self, *_: Any) -> Any:
        found = self._next_slice
        self._cache_next()
        return None if found is None else TolerantBatch(found)


class TolerantBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """A batch in the record format that has headers."""

    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = TolerantBytes(self._buffer)


class TolerantBytes(bytearray):
    """Bytes whose slices decode without errors."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return TolerantBytes(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, errors)
