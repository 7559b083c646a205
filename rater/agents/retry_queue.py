"""Work that is tried until its outcome is known: what the recharge and the notification agent share.

A piece of work waits as a row of the agent's state, from the transaction that moves the input past it to the transaction that
publishes its outcome. It is tried when it is due, with growing gaps, over restarts too. A process may die between the outside
world's answer and the commit; the next one then tries again, under the same name.

State
    w + name   the work      put; deleted when the outcome is known
    r + name   its result    appended: work that comes again within `REMEMBERED_DAYS` is recognized
"""

import heapq
import random
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec

from rater.domain import moments
from rater.engine.api import Metric, State

#: Longer than the input topics of the agents are kept, so no input can be read again that is not remembered.
REMEMBERED_DAYS = 40

_WAITING = b"w"
_RESULT = b"r"

_encode_row = msgspec.msgpack.Encoder().encode


class Waiting(Protocol):
    """A piece of work as its row holds it: `tries` have been made, the next one is due at `due_ms` (ms since the epoch)."""

    due_ms: int
    tries: int


W = TypeVar("W", bound=Waiting)


class RetryQueue(Generic[W]):
    """The work of one partition that waits.

    `decode` reads a row. `since_ms` says since when a piece of work has waited. The gap after a try starts at `first_gap_ms`
    and doubles up to `gap_ms_max`; each is shortened by up to half at random, so that work put off together does not come back
    together.
    """

    def __init__(
        self, state: State, decode: Callable[[bytes], W], since_ms: Callable[[W], int], first_gap_ms: int, gap_ms_max: int
    ) -> None:
        self._state = state
        self._decode = decode
        self._since_ms = since_ms
        self._first_gap_ms = first_gap_ms
        self._gap_ms_max = gap_ms_max
        self._due: list[tuple[int, bytes]] = []
        self._waiting_since_ms: dict[bytes, int] = {}
        self._oldest: list[tuple[int, bytes]] = []  # may hold work that no longer waits: `_waiting_since_ms` says what does
        for key, row in state.scan(_WAITING):
            waiting = decode(row)
            self._note_age(key[1:], waiting)
            heapq.heappush(self._due, (waiting.due_ms, key[1:]))

    def result(self, name: bytes) -> bytes | None:
        """The remembered result; None if there is none."""
        return self._state.get(_RESULT + name)

    def is_waiting(self, name: bytes) -> bool:
        """Whether the work waits for a try."""
        return self._state.get(_WAITING + name) is not None

    def wait(self, name: bytes, waiting: W) -> None:
        """Have the work tried at its `due_ms`."""
        self._state.put(_WAITING + name, _encode_row(waiting))
        self._note_age(name, waiting)
        heapq.heappush(self._due, (waiting.due_ms, name))

    def next_due_ms(self) -> int | None:
        """When the next try is due, in ms since the epoch; None: nothing waits."""
        return self._due[0][0] if self._due else None

    def take_due(self, now_ms: int, count_max: int) -> list[tuple[bytes, W]]:
        """Take up to `count_max` pieces of work that are due. Each must then be put off or settled."""
        taken: list[tuple[bytes, W]] = []
        while self._due and len(taken) < count_max and self._due[0][0] <= now_ms:
            name = heapq.heappop(self._due)[1]
            row = self._state.get(_WAITING + name)
            assert row is not None, name
            taken.append((name, self._decode(row)))
        return taken

    def put_off(self, name: bytes, waiting: W, now_ms: int) -> int:
        """Try again later. Returns the gap in ms."""
        gap_ms = min(self._first_gap_ms << min(waiting.tries, 20), self._gap_ms_max)
        gap_ms = round(gap_ms * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        waiting.due_ms = now_ms + gap_ms
        waiting.tries += 1
        self.wait(name, waiting)
        return gap_ms

    def settle(self, name: bytes, result: bytes, now_ms: int) -> None:
        """The outcome is known: the work no longer waits, and its result is remembered."""
        del self._waiting_since_ms[name]
        self._state.delete(_WAITING + name)
        self._state.append(moments.day_of(now_ms * 1000), _RESULT + name, result)

    def forget(self, now_ms: int) -> None:
        """Allow results older than `REMEMBERED_DAYS` to be forgotten."""
        self._state.expire(moments.day_of(now_ms * 1000) - REMEMBERED_DAYS)

    def gauges(self, what: str) -> dict[Metric, float]:
        """`what`: how much waits. `what`_oldest_timestamp_seconds: since when the oldest waits, if any does."""
        gauges: dict[Metric, float] = {(what,): len(self._waiting_since_ms)}
        while self._oldest and self._waiting_since_ms.get(self._oldest[0][1]) != self._oldest[0][0]:
            heapq.heappop(self._oldest)
        if self._oldest:
            gauges[f"{what}_oldest_timestamp_seconds",] = self._oldest[0][0] / 1000
        return gauges

    def _note_age(self, name: bytes, waiting: W) -> None:
        since_ms = self._since_ms(waiting)
        if self._waiting_since_ms.get(name) != since_ms:
            self._waiting_since_ms[name] = since_ms
            heapq.heappush(self._oldest, (since_ms, name))
