"""aiokafka's reading of fetched records, made to get past header names that are no UTF-8.

A broker takes any bytes as a header's name, and producers in C send them. aiokafka raises when it meets one, again and again
at the same record: the partition would stand still for good. Here such a name is read as Java's clients read it, with U+FFFD
for what is no UTF-8. Only a fetch that has one is read anew, in Python; any other is read as before, at the same speed.
"""

from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy

__all__ = ["read_any_header_name"]


def read_any_header_name() -> None:
    """Have every consumer of this process do so from now on."""
    fetcher.MemoryRecords = KeptRecords
    fetcher.PartitionRecords = TolerantPartitionRecords


class KeptRecords(MemoryRecords):  # type: ignore[misc]
    """Remembers the bytes, to be read anew."""

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
            self._records_iterator = None  # as aiokafka does, against a cycle
            raise
        except UnicodeDecodeError:
            # `next_fetch_offset` stands at the record it was raised for, at the latest.
            self._records = TolerantRecords(self._records.data, self.next_fetch_offset)
            self._records_iterator = self._unpack_records()
            return next(self)


class TolerantRecords(_MemoryRecordsPy):  # type: ignore[misc]
    """Batches from the one that holds `offset` on: those before it have been read."""

    def __init__(self, data: bytes, offset: int) -> None:
        super().__init__(data)
        while self._next_slice is not None and TolerantBatch(self._next_slice).next_offset <= offset:
            self._cache_next()

    def next_batch(self, *_: Any) -> Any:
        found = self._next_slice
        self._cache_next()
        return None if found is None else TolerantBatch(found)


class TolerantBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """A batch in the format that has headers."""

    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = TolerantBytes(self._buffer)


class TolerantBytes(bytearray):
    """Decodes any of its slices."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return TolerantBytes(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, errors)
