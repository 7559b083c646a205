"""A log of one run, for finding out why it failed."""

import time
from collections import Counter

__all__ = ["Journal"]


class Journal:
    """Lines with the seconds since the start. `counts`: how often each fault and each fencing happened."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self._lines: list[str] = []
        self.counts: Counter[str] = Counter()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def note(self, text: str) -> None:
        self._lines.append(f"{self.elapsed_s:6.1f} s  {text}")

    def __str__(self) -> str:
        return "\n".join(self._lines)
