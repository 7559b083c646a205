"""What has been fetched for one task and not been processed: one lane a topic, and how batches are cut from
them.

A lane is *dry* when it holds nothing and the broker is known to hold nothing more for it. While a lane is
empty but not dry, its next record could belong before the others' (see `merge`), so the batch stops there.
That wait is bounded: after `merge_wait_s` of it the lane no longer holds the others back, until it has
records again or is dry.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rater.engine.api import Record
from rater.engine.merge import merge

__all__ = ["Batch", "InputBuffer"]

_DRY_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in processing order, and topic → next offset after them."""

    records: Sequence[Record]
    positions: Mapping[str, int]


@dataclass(slots=True)
class _Lane:
    topic: str
    position: int
    records: Sequence[Record] = ()
    bytes_held: int = 0
    held_since_s: float | None = None
    given_up: bool = False


@dataclass
class InputBuffer:
    """Lanes of one task in rank order. `is_dry(topic, position)` says whether the broker has nothing from
    there on."""

    topics: tuple[str, ...]
    records_max: int
    bytes_max: int
    merge_wait_s: float
    is_dry: Callable[[str, int], bool]
    clock: Callable[[], float]
    merge_waits_given_up: int = 0
    _lanes: dict[str, _Lane] = field(default_factory=dict)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self, positions: Mapping[str, int]) -> None:
        """Empty, to be filled from `positions` (topic → offset) on."""
        self._lanes = {topic: _Lane(topic, positions[topic]) for topic in self.topics}

    def wanted(self) -> dict[str, int]:
        """Topics that have room, with the position they are fetched from."""
        return {
            lane.topic: lane.position
            for lane in self._lanes.values()
            if len(lane.records) < self.records_max and lane.bytes_held < self.bytes_max
        }

    def add(self, topic: str, records: Sequence[Record], position: int) -> None:
        """What was fetched of `topic`, and the position after it."""
        lane = self._lanes[topic]
        lane.position = position
        if records:
            lane.records = [*lane.records, *records] if lane.records else records
            lane.bytes_held += _bytes(records)
            lane.held_since_s, lane.given_up = None, False
            self._arrived.set()

    def take(self) -> Batch | None:
        """The next batch; None when there is none yet."""
        lanes = list(self._lanes.values())
        may_have_more = [not self._is_dry(lane) for lane in lanes]
        held_back = [lane for lane, more in zip(lanes, may_have_more, strict=True) if more and not lane.records]
        any_records = any(lane.records for lane in lanes)
        for lane in held_back if any_records else ():
            may_have_more[lanes.index(lane)] = not self._waited_enough(lane)
        records: Sequence[Record]
        records, taken = merge([lane.records for lane in lanes], may_have_more, self.records_max)
        if not records:
            return None
        if sum(lane.bytes_held for lane in lanes) > self.bytes_max:
            records, taken = self._cut(records, lanes)
        for lane, count in zip(lanes, taken, strict=True):
            self._drop(lane, count)
        return Batch(records, {lane.topic: self._next_offset(lane) for lane in lanes})

    def positions(self) -> dict[str, int]:
        """Where the input stands when everything fetched has been processed; only of use when nothing is
        held."""
        return {lane.topic: self._next_offset(lane) for lane in self._lanes.values()}

    def is_drained(self) -> bool:
        """Whether nothing is held and the broker is known to hold nothing more."""
        return all(not lane.records and self.is_dry(lane.topic, lane.position) for lane in self._lanes.values())

    def first(self, topic: str) -> Record | None:
        """The first record of `topic` that was fetched and not taken."""
        lane = self._lanes.get(topic)
        return lane.records[0] if lane is not None and lane.records else None

    async def wait(self, timeout_s: float) -> None:
        """Return when something may have changed: records have come, or it is time to look at a lane
        again."""
        self._arrived.clear()
        if any(lane.records for lane in self._lanes.values()):
            timeout_s = _DRY_POLL_S
        try:
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        self._arrived.set()

    def _is_dry(self, lane: _Lane) -> bool:
        dry = self.is_dry(lane.topic, lane.position)
        if dry:
            lane.held_since_s, lane.given_up = None, False
        return dry

    def _waited_enough(self, lane: _Lane) -> bool:
        now_s = self.clock()
        if lane.held_since_s is None:
            lane.held_since_s = now_s
        waited = now_s - lane.held_since_s >= self.merge_wait_s
        if waited and not lane.given_up:
            lane.given_up = True
            self.merge_waits_given_up += 1
        return waited

    def _cut(self, records: Sequence[Record], lanes: Sequence[_Lane]) -> tuple[Sequence[Record], list[int]]:
        """As many of `records` as fit in a batch, one at least."""
        total = 0
        count = 0
        for record in records:
            total += len(record.value or b"")
            if count and total > self.bytes_max:
                break
            count += 1
        cut = records[:count]
        return cut, [sum(record.topic == lane.topic for record in cut) for lane in lanes]

    def _drop(self, lane: _Lane, count: int) -> None:
        if count == len(lane.records):
            lane.records, lane.bytes_held = (), 0
        elif count:
            lane.records = lane.records[count:]
            lane.bytes_held = _bytes(lane.records)

    def _next_offset(self, lane: _Lane) -> int:
        return lane.records[0].offset if lane.records else lane.position


def _bytes(records: Sequence[Record]) -> int:
    return sum(len(record.value) for record in records if record.value is not None)
