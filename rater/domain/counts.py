"""Counts of what the core handled, for metrics (docs/metrics.md)."""

Metric = tuple[str, ...]  # the metric's name, then the values of its labels


class CallTotals:
    """Calls of one service, funding and currency; money in micros."""

    __slots__ = ("calls", "charged", "collected")

    def __init__(self) -> None:
        self.calls = 0
        self.charged = 0
        self.collected = 0


class Counts:
    """Counts until they are taken. Calls are added up apart, since several metrics come from each of them."""

    __slots__ = ("_calls", "_counts")

    def __init__(self) -> None:
        self._counts: dict[Metric, int] = {}
        self._calls: dict[tuple[str, str, str], CallTotals] = {}

    def add(self, metric: Metric, more: int = 1) -> None:
        """Count something."""
        self._counts[metric] = self._counts.get(metric, 0) + more

    def add_call(self, service: str, funded_by: str, currency: str, charged: int, collected: int) -> None:
        """Count a rated call; money in micros."""
        key = (service, funded_by, currency)
        totals = self._calls.get(key)
        if totals is None:
            totals = self._calls[key] = CallTotals()
        totals.calls += 1
        totals.charged += charged
        totals.collected += collected

    def take(self) -> dict[Metric, int]:
        """What was counted since the last `take`."""
        for (service, funded_by, currency), totals in self._calls.items():
            self.add(("calls", service, funded_by), totals.calls)
            self.add(("charged", currency), totals.charged)
            self.add(("collected", currency), totals.collected)
            unpaid = "unfunded" if funded_by == "unfunded" else "overdrawn"
            self.add((unpaid, currency), totals.charged - totals.collected)
        taken = self._counts
        self._counts = {}
        self._calls = {}
        return taken
