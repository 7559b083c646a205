"""How many wait, and since when the first of them does."""

import heapq

from rater.engine.api import Metric


class OldestFirst:
    """Names with the moment each has waited since, ms since the epoch."""

    def __init__(self) -> None:
        self._since_ms: dict[bytes, int] = {}
        self._oldest: list[tuple[int, bytes]] = []  # may hold what waits no more: `_since_ms` says what does

    def add(self, name: bytes, since_ms: int) -> None:
        """It waits; added again, it has waited all along."""
        if self._since_ms.get(name) != since_ms:
            self._since_ms[name] = since_ms
            heapq.heappush(self._oldest, (since_ms, name))

    def remove(self, name: bytes) -> None:
        """It waits no more."""
        self._since_ms.pop(name, None)

    def gauges(self, what: str) -> dict[Metric, float]:
        """`what`: how many; `what`_oldest_timestamp_seconds: since when the first of them waits, if any does."""
        gauges: dict[Metric, float] = {(what,): len(self._since_ms)}
        while self._oldest and self._since_ms.get(self._oldest[0][1]) != self._oldest[0][0]:
            heapq.heappop(self._oldest)
        if self._oldest:
            gauges[f"{what}_oldest_timestamp_seconds",] = self._oldest[0][0] / 1000
        return gauges
