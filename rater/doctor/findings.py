"""What the doctor says: one finding each, with a code that stays, how bad it is, and what to do about it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

__all__ = ["DoctorFinding", "Severity", "counted", "fault", "listed", "note", "ok", "since", "warning"]

#: `ok`: looked at and in order. `note`: worth knowing. `warning`: will hurt, or hurts a part. `fault`: hurts now.
Severity = Literal["ok", "note", "warning", "fault"]

_LISTED_MAX = 3
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """`code` is `area.what` and never changes its meaning; `todo` is a command or a place to read."""

    code: str
    severity: Severity
    what: str
    todo: str | None = None

    @property
    def area(self) -> str:
        return self.code.partition(".")[0]


def ok(code: str, what: str) -> DoctorFinding:
    return DoctorFinding(code, "ok", what)


def note(code: str, what: str, todo: str | None = None) -> DoctorFinding:
    return DoctorFinding(code, "note", what, todo)


def warning(code: str, what: str, todo: str) -> DoctorFinding:
    return DoctorFinding(code, "warning", what, todo)


def fault(code: str, what: str, todo: str) -> DoctorFinding:
    return DoctorFinding(code, "fault", what, todo)


def counted(number: int, noun: str) -> str:
    """`1 rate`, `2 rates`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(things: Collection[str], most: int = _LISTED_MAX) -> str:
    """The first of them, and how many more there are."""
    shown = list(things)[:most]
    more = len(things) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def since(duration_ms: int) -> str:
    """A duration as people say it: `3 d`, `5 min`; rounded down."""
    seconds = max(0, duration_ms) // 1000
    for unit_s, name in _UNITS:
        if seconds >= unit_s:
            return f"{seconds // unit_s} {name}"
    return "0 s"
