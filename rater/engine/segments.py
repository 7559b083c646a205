"""Segments: many expiring index rows packed into one changelog record.

A segment holds rows of one day bucket that one batch has appended. Segment keys sort by day and are never used again, so
compaction keeps every segment until the sweep writes its tombstone. Rows are packed as a MessagePack map: packing and unpacking
run in C.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence

import msgspec

__all__ = [
    "SEGMENT_BYTES_MAX",
    "pack",
    "pack_keys",
    "segment_day",
    "segment_key",
    "split",
    "unpack",
    "unpack_keys",
]

SEGMENT_BYTES_MAX = 500_000

_KEY = struct.Struct(">cIQ")
_PREFIX = b"s"
_DAY_SHIFT = 2**31  # makes days before 1970 sort before the later ones
_ROW_OVERHEAD_BYTES = 8

_encode = msgspec.msgpack.Encoder().encode
_decode_rows = msgspec.msgpack.Decoder(dict[bytes, bytes]).decode
_decode_keys = msgspec.msgpack.Decoder(list[bytes]).decode


def segment_key(day: int, number: int) -> bytes:
    """The changelog and store key of a segment. `number` is the task's count of segments, so no key repeats."""
    return _KEY.pack(_PREFIX, day + _DAY_SHIFT, number)


def segment_day(key: bytes) -> int:
    """The day bucket of a segment key, in days since the epoch."""
    day: int = _KEY.unpack(key)[1]
    return day - _DAY_SHIFT


def pack(rows: Mapping[bytes, bytes]) -> bytes:
    """A segment's rows, as they are written to the changelog."""
    return _encode(rows)


def unpack(data: bytes) -> dict[bytes, bytes]:
    """The rows that `pack` has packed."""
    return _decode_rows(data)


def pack_keys(keys: Sequence[bytes]) -> bytes:
    """The keys of a segment's rows, as they are written to the store."""
    return _encode(keys)


def unpack_keys(data: bytes) -> list[bytes]:
    """The keys that `pack_keys` has packed."""
    return _decode_keys(data)


def split(rows: dict[bytes, bytes], bytes_max: int = SEGMENT_BYTES_MAX) -> Iterator[dict[bytes, bytes]]:
    """Split `rows` into parts of at most `bytes_max` each. A larger row becomes a part of its own."""
    size = sum(map(len, rows)) + sum(map(len, rows.values())) + _ROW_OVERHEAD_BYTES * len(rows)
    if size <= bytes_max:
        yield rows
        return
    part: dict[bytes, bytes] = {}
    size = 0
    for key, value in rows.items():
        row_size = len(key) + len(value) + _ROW_OVERHEAD_BYTES
        if part and size + row_size > bytes_max:
            yield part
            part, size = {}, 0
        part[key] = value
        size += row_size
    yield part
