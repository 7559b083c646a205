"""The doctor's findings: each has a permanent code, a severity, and what to do about it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

__all__ = ["DoctorFinding", "Severity", "counted", "fault", "listed", "note", "ok", "since", "warning"]

#: `ok`: checked and fine. `note`: worth knowing. `warning`: will do harm, or harms a part. `fault`: does harm now.
Severity = Literal["ok", "note", "warning", "fault"]

_LISTED_MAX = 3
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """`code`: `area.name`, whose meaning never changes. `todo`: what to do about it, mostly a command or a document."""

    code: str
    severity: Severity
    what: str
    todo: str | None = None

    @property
    def area(self) -> str:
        """The part of `code` before the dot."""
        return self.code.partition(".")[0]


def ok(code: str, what: str) -> DoctorFinding:
    """Checked and fine."""
    return DoctorFinding(code, "ok", what)


def note(code: str, what: str, todo: str | None = None) -> DoctorFinding:
    """Worth knowing."""
    return DoctorFinding(code, "note", what, todo)


def warning(code: str, what: str, todo: str) -> DoctorFinding:
    """Will do harm, or harms a part."""
    return DoctorFinding(code, "warning", what, todo)


def fault(code: str, what: str, todo: str) -> DoctorFinding:
    """Does harm now; `rater doctor` exits with 1."""
    return DoctorFinding(code, "fault", what, todo)


def counted(number: int, noun: str) -> str:
    """`1 rate`, `2 rates`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(things: Collection[str], most: int = _LISTED_MAX) -> str:
    """The first few, and how many more there are: `a, b, c and 2 more`."""
    shown = list(things)[:most]
    more = len(things) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def since(duration_ms: int) -> str:
    """A duration in its largest unit, rounded down: `3 d`, `5 min`."""
    seconds = max(0, duration_ms) // 1000
    for unit_s, name in _UNITS:
        if seconds >= unit_s:
            return f"{seconds // unit_s} {name}"
    return "0 s"
