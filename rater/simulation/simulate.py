"""The same core without Kafka, on rows in memory: a log of records in, the output records out."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from rater.domain.catalog import Catalog
from rater.domain.core import Core
from rater.domain.outputs import TopicNames
from rater.kafka.log import LogRecord

CHUNK_RECORDS = 512  # few enough for their data to stay in the CPU's cache


class MemoryRows:
    """Rows in memory."""

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
        """Remove a row."""
        self._rows.pop(key, None)

    def append(self, day: int, key: bytes, value: bytes) -> None:
        """Write a row that `expire` removes once it has passed the day."""
        if key in self._remembered:  # written again, perhaps for another day: the later day counts
            self._day_of[key] = max(day, self._day_of.get(key, 0))
        self._remembered[key] = value
        self._days.setdefault(day, []).append(key)

    def expire(self, before_day: int) -> None:
        """Remove the rows appended to earlier days."""
        for day in [day for day in self._days if day < before_day]:
            for key in self._days.pop(day):
                if self._day_of.get(key, 0) < before_day:
                    self._remembered.pop(key, None)
                    self._day_of.pop(key, None)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The rows under a prefix."""
        return iter([(key, row) for key, row in self._rows.items() if key.startswith(prefix)])


class Simulation:
    """A core on rows in memory. Give it records with `rate`, and end with `finish`."""

    def __init__(self, names: TopicNames) -> None:
        self._outputs: list[LogRecord] = []
        self.rows = MemoryRows()
        self.core = Core(names, Catalog(), self.rows, self._take, accounts_max=2**62)

    def rate(self, records: Sequence[LogRecord]) -> list[LogRecord]:
        """Handle records in order; returns the output records in order."""
        handled = self.core.batch(records)
        assert handled == len(records), (handled, len(records))
        return self._given()

    def finish(self) -> list[LogRecord]:
        """End the log; returns the states that are not out yet."""
        self.core.flush()
        return self._given()

    def _take(self, topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Any = ()) -> None:
        self._outputs.append(LogRecord(topic, timestamp_ms, key, value, headers))

    def _given(self) -> list[LogRecord]:
        given = self._outputs.copy()
        self._outputs.clear()  # in place: the core's `emit` is bound to this list
        return given


def simulate(names: TopicNames, records: Iterable[LogRecord]) -> Iterator[LogRecord]:
    """Rate a whole log; yields the output records in order."""
    simulation = Simulation(names)
    source = iter(records)
    while chunk := list(islice(source, CHUNK_RECORDS)):
        yield from simulation.rate(chunk)
    yield from simulation.finish()
