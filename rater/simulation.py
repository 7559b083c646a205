"""The same core with no Kafka: a log of records in, the output records out (`rater simulate`, and the oracle of the tests).

The log is JSON lines `{"topic", "key"?, "timestamp", "headers"?, "value"}`, in order. A record's key may be left out where
the value names it. What is no JSON is given, and written, as `"value_base64"` instead of `"value"`.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct

from rater.domain.catalog import Catalog
from rater.domain.core import Core
from rater.domain.outputs import Names

CHUNK_RECORDS = 512  # few enough that what belongs to them stays in the processor's cache


class LogError(ValueError):
    """A line that is no record."""


class LogRecord(Struct):
    """A record, as Kafka would have it. `offset` counts the lines of the log."""

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
    """The fields a record's key is taken from where the log leaves it out."""

    org_id: str | None = None
    plan_id: str | None = None
    rate_id: str | None = None


class MemoryRows:
    """A core's rows in memory."""

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._remembered: dict[bytes, bytes] = {}
        self._days: dict[int, list[bytes]] = {}
        self._day_of: dict[bytes, int] = {}

    def get(self, key: bytes) -> bytes | None:
        """A row, or None."""
        row = self._remembered.get(key)
        return self._rows.get(key) if row is None else row

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Rows in the order of their keys."""
        return [self.get(key) for key in keys]

    def put(self, key: bytes, value: bytes) -> None:
        """Write a row."""
        self._rows[key] = value

    def delete(self, key: bytes) -> None:
        """Take a row away."""
        self._rows.pop(key, None)

    def append(self, day: int, key: bytes, value: bytes) -> None:
        """Write a row that `expire` takes away once it passes the day."""
        if key in self._remembered:  # written again, perhaps to another day: the later day counts
            self._day_of[key] = max(day, self._day_of.get(key, 0))
        self._remembered[key] = value
        self._days.setdefault(day, []).append(key)

    def expire(self, before_day: int) -> None:
        """Take away what was appended to earlier days."""
        for day in [day for day in self._days if day < before_day]:
            for key in self._days.pop(day):
                if self._day_of.get(key, 0) < before_day:
                    self._remembered.pop(key, None)
                    self._day_of.pop(key, None)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The rows under a prefix."""
        return iter([(key, row) for key, row in self._rows.items() if key.startswith(prefix)])


class Simulation:
    """A core on rows in memory. `rate` gives the outputs of some records, `finish` the states that are left."""

    def __init__(self, names: Names) -> None:
        self._outputs: list[LogRecord] = []
        self.rows = MemoryRows()
        self.core = Core(names, Catalog(), self.rows, self._take, accounts_max=2**62)

    def rate(self, records: Sequence[LogRecord]) -> list[LogRecord]:
        """Handle records in order; gives what comes out, in order."""
        handled = self.core.batch(records)
        assert handled == len(records), (handled, len(records))
        return self._given()

    def finish(self) -> list[LogRecord]:
        """End the log: the latest state of every account whose state is not out yet."""
        self.core.flush()
        return self._given()

    def _take(self, topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Any = ()) -> None:
        self._outputs.append(LogRecord(topic, timestamp_ms, key, value, headers))

    def _given(self) -> list[LogRecord]:
        given = self._outputs.copy()
        self._outputs.clear()  # in place: the core keeps no other way to hand out records
        return given


def simulate(names: Names, records: Iterable[LogRecord]) -> Iterator[LogRecord]:
    """Rate a whole log."""
    simulation = Simulation(names)
    source = iter(records)
    while chunk := list(islice(source, CHUNK_RECORDS)):
        yield from simulation.rate(chunk)
    yield from simulation.finish()


def read_log(lines: Iterable[bytes]) -> Iterator[LogRecord]:
    """Read a log's lines; blank ones are passed over. Raises `LogError` with the number of the line."""
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


class LogWriter:
    """Writes records as lines of a log."""

    def __init__(self) -> None:
        self._heads: dict[tuple[str, bytes | None], bytes] = {}
        self._encode = msgspec.json.Encoder().encode

    def line(self, record: LogRecord) -> bytes:
        """One record as a line, its end included."""
        identity = (record.topic, record.key)
        head = self._heads.get(identity)
        if head is None:
            if len(self._heads) > 200_000:
                self._heads.clear()
            key = None if record.key is None else record.key.decode(errors="replace")
            head = self._encode({"topic": record.topic, "key": key})[:-1] + b',"timestamp":'
            self._heads[identity] = head
        if not record.headers:  # the core's own messages: JSON on one line
            return b'%b%d,"value":%b}\n' % (head, record.timestamp, record.value or b"null")
        given: Sequence[tuple[str, Any]] = record.headers  # Kafka has headers with a name alone
        headers = [(name, None if value is None else value.decode(errors="replace")) for name, value in given]
        body = _as_it_came(record.value)
        return b'%b%d,"headers":%b,%b}\n' % (head, record.timestamp, self._encode(_as_object(headers)), body)


def _key_of(value: bytes | None) -> bytes | None:
    """The key a record without one would have been published with."""
    if value is None:
        return None
    try:
        owner = msgspec.json.decode(value, type=_Owner)
        named = owner.org_id or owner.plan_id or owner.rate_id
        return None if named is None else named.encode()
    except (ValueError, RecursionError):
        return None


def _as_object(headers: list[tuple[str, str | None]]) -> dict[str, str | None] | list[tuple[str, str | None]]:
    """Headers as an object where each name stands once, else as pairs."""
    named = dict(headers)
    return named if len(named) == len(headers) else headers


def _as_it_came(value: bytes | None) -> bytes:
    """A dead letter's value: JSON if it is, else its bytes in base64."""
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
