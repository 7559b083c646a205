"""Consumers read records whose header names are not UTF-8."""

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from rater.kafka.header_names import KeptRecords, TolerantPartitionRecords, read_any_header_name

CHECK_CRCS = True
STOCK = fetcher.PartitionRecords.__mro__[-2]  # aiokafka's own class, patched or not


class NotUtf8(str):
    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        del encoding, errors
        return b"h\xff"


def batch(first_offset: int, *names: str, gzip: bool = False) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(2, int(gzip), 0, -1, -1, -1, 10_000)
    for delta, name in enumerate(names):
        builder.append(delta, 1000 + delta, b"k", b"v" * 50, [(name, b"x"), ("", None)])
    data = bytearray(builder.build())
    data[:8] = first_offset.to_bytes(8, "big")
    return bytes(data)


def records_of(data: bytes, offset: int, kind: Any = TolerantPartitionRecords) -> Any:
    return kind(TopicPartition("t", 0), KeptRecords(data), [], offset, None, None, CHECK_CRCS, fetcher.READ_COMMITTED)


@pytest.mark.parametrize("gzip", [False, True])
@pytest.mark.parametrize("start", range(7))
def test_every_record_is_read_once_and_in_order(gzip: bool, start: int) -> None:
    batches = {
        0: batch(0, "a", "b", gzip=gzip),
        2: batch(2, "c", NotUtf8(), "d", gzip=gzip),
        5: batch(5, NotUtf8(), "e", gzip=gzip),
    }
    first = max(offset for offset in batches if offset <= start)  # a broker sends the whole batch that holds the offset
    found = list(records_of(b"".join(data for offset, data in batches.items() if offset >= first), start))
    assert [record.offset for record in found] == list(range(start, 7))
    assert [record.headers[0][0] for record in found] == ["a", "b", "c", "h\ufffd", "d", "h\ufffd", "e"][start:]
    assert [record.timestamp for record in found] == [1000, 1001, 1000, 1001, 1002, 1000, 1001][start:]
    assert {(record.key, record.value, record.headers[1]) for record in found} == {(b"k", b"v" * 50, ("", None))}


def test_unpatched_aiokafka_stops_at_such_a_record() -> None:
    with pytest.raises(UnicodeDecodeError):
        list(records_of(batch(0, "a", NotUtf8()), 0, STOCK))


def test_consumers_read_such_records_once_aiokafka_is_patched() -> None:
    read_any_header_name()
    assert fetcher.PartitionRecords is TolerantPartitionRecords
