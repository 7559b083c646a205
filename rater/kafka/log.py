"""Logs of records as JSON lines, which `rater simulate` reads and writes, and the record type that tools share.

A line is `{"topic", "key"?, "timestamp", "headers"?, "value"}`. The key may be left out if the value contains it. A value that
is not JSON is read and written as `"value_base64"` instead of `"value"`.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct


class LogError(ValueError):
    """A line is not a record."""


class LogRecord(Struct):
    """A record as in Kafka. `timestamp`: ms since the epoch; `offset`: line number from 0 if read from a log."""

    topic: str
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    offset: int = 0
    partition: int = 0


class _Line(Struct):
    topic: str
    timestamp: int
    key: str | None = None
    headers: dict[str, str | None] | list[tuple[str, str | None]] | None = None
    value: msgspec.Raw = msgspec.Raw(b"null")
    value_base64: str | None = None


class _Owner(Struct):
    """The fields that give a record's key if the log leaves it out."""

    org_id: str | None = None
    plan_id: str | None = None
    rate_id: str | None = None


def read_log(lines: Iterable[bytes]) -> Iterator[LogRecord]:
    """Read a log's lines; skips blank ones. Raises LogError with the line's number."""
    decode = msgspec.json.Decoder(_Line).decode
    for number, text in enumerate(lines, 1):
        if text.isspace():
            continue
        try:
            line = decode(text)
            value: bytes | None = bytes(line.value)
            if line.value_base64 is not None:
                value = base64.b64decode(line.value_base64, validate=True)
            elif value == b"null":
                value = None
            key = _key_of(value) if line.key is None else line.key.encode()
        except (ValueError, binascii.Error, RecursionError) as error:
            raise LogError(f"line {number}: {error}") from None
        pairs = line.headers.items() if isinstance(line.headers, dict) else line.headers or ()
        headers: Any = [(name, None if text is None else text.encode()) for name, text in pairs] if pairs else ()
        yield LogRecord(line.topic, line.timestamp, key, value, headers, number - 1)


def as_log_record(record: Any) -> LogRecord:
    """Convert aiokafka's record."""
    return LogRecord(record.topic, record.timestamp, record.key, record.value, record.headers, record.offset, record.partition)


class LogWriter:
    """Formats records as lines of a log."""

    def __init__(self) -> None:
        self._heads: dict[tuple[str, bytes | None], bytes] = {}
        self._encode = msgspec.json.Encoder().encode

    def line(self, record: LogRecord) -> bytes:
        """One record as a line, with its newline."""
        identity = (record.topic, record.key)
        head = self._heads.get(identity)
        if head is None:
            if len(self._heads) > 200_000:
                self._heads.clear()
            key = None if record.key is None else record.key.decode(errors="replace")
            head = self._encode({"topic": record.topic, "key": key})[:-1] + b',"timestamp":'
            self._heads[identity] = head
        if not record.headers:  # the core wrote it: JSON on one line
            return b'%b%d,"value":%b}\n' % (head, record.timestamp, record.value or b"null")
        given: Sequence[tuple[str, Any]] = record.headers  # in Kafka, a header's value may be null
        headers = [(name, None if value is None else value.decode(errors="replace")) for name, value in given]
        body = _value_field(record.value)
        return b'%b%d,"headers":%b,%b}\n' % (head, record.timestamp, self._encode(_as_object(headers)), body)


def _key_of(value: bytes | None) -> bytes | None:
    """The key that belongs to a value, for a line without one."""
    if value is None:
        return None
    try:
        owner = msgspec.json.decode(value, type=_Owner)
        named = owner.org_id or owner.plan_id or owner.rate_id
        return None if named is None else named.encode()
    except (ValueError, RecursionError):
        return None


def _as_object(headers: list[tuple[str, str | None]]) -> dict[str, str | None] | list[tuple[str, str | None]]:
    """Headers as an object if their names are unique, else as pairs."""
    named = dict(headers)
    return named if len(named) == len(headers) else headers


def _value_field(value: bytes | None) -> bytes:
    """The value as it is if it is JSON on one line, else in base64."""
    if value is None:
        return b'"value":null'
    try:
        if b"\n" not in value and b"\r" not in value:
            value.decode()
            msgspec.json.decode(value)
            return b'"value":' + value
    except (ValueError, RecursionError):
        pass
    return b'"value_base64":"' + base64.b64encode(value) + b'"'
