"""Instants and calendar months (rules 3, 11, 16).

An instant is an `int` of microseconds since the epoch, UTC. Nothing here reads a clock: "now" is the timestamp of a record.
"""

from bisect import bisect_right
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

SECOND_US: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND_US
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: The instants the rater accepts, the maximum excluded. Sums of dates within them can't overflow.
INSTANT_US_MIN: Final = 0
INSTANT_US_MAX: Final = 7_258_118_400 * SECOND_US  # 2200-01-01

#: How long a month stays open for late records (rule 11), and the least time a call is remembered (rule 26).
LATE_DAYS: Final = 40
REMEMBER_DAYS: Final = 35


class Month(NamedTuple):
    """A calendar month of a time zone: its name (`2025-10`), its start, its end (excluded), and when it closes (excluded)."""

    name: str
    start_us: int
    end_us: int
    close_us: int


class Calendar:
    """The months of one time zone. Those that were asked for are kept, since most calls are of the same few."""

    __slots__ = ("_months", "_starts", "zone")

    def __init__(self, time_zone: str) -> None:
        """`time_zone` is an IANA name. Raises `ValueError` if it is unknown."""
        self.zone = _zone(time_zone)
        self._starts: list[int] = []
        self._months: list[Month] = []

    def month_of(self, at_us: int) -> Month:
        """The calendar month that holds the instant (rule 11)."""
        i = bisect_right(self._starts, at_us) - 1
        if i >= 0:
            month = self._months[i]
            if at_us < month.end_us:
                return month
        local = to_datetime(at_us).astimezone(self.zone)
        month = self._make(local.year, local.month)
        if at_us >= month.end_us:  # the clock was put back over midnight of the first: the new month, once begun, goes on
            month = self._make(local.year + local.month // 12, local.month % 12 + 1)
        assert month.start_us <= at_us < month.end_us, (at_us, month)
        self._starts.insert(i + 1, month.start_us)
        self._months.insert(i + 1, month)
        return month

    def _make(self, year: int, month: int) -> Month:
        start = datetime(year, month, 1, tzinfo=self.zone)
        end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=self.zone)
        end_us = to_us(end)
        return Month(f"{year:04d}-{month:02d}", to_us(start), end_us, end_us + LATE_DAYS * DAY_US)


@lru_cache(maxsize=1024)
def calendar(time_zone: str) -> Calendar:
    """The calendar of a time zone, shared by all its organizations. Raises `ValueError` if the zone is unknown."""
    return Calendar(time_zone)


def to_us(moment: datetime) -> int:
    """An aware datetime as microseconds since the epoch, exactly."""
    since = moment - EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND_US + since.microseconds


def to_datetime(at_us: int) -> datetime:
    """Microseconds since the epoch as a datetime in UTC."""
    return EPOCH + timedelta(microseconds=at_us)


@lru_cache(maxsize=8192)
def to_text(at_us: int) -> str:
    """RFC 3339 in UTC, ending in Z, with a fraction only if it isn't zero (rule 3)."""
    fraction = "milliseconds" if at_us % 1000 == 0 else "microseconds"
    return to_datetime(at_us).replace(tzinfo=None).isoformat(timespec=fraction if at_us % SECOND_US else "seconds") + "Z"


def day_of(at_us: int) -> int:
    """Days since the epoch."""
    return at_us // DAY_US


def a_year_later(at_us: int) -> int:
    """Twelve calendar months on, in UTC; 29 February becomes 28 February (rule 16)."""
    moment = to_datetime(at_us)
    year = moment.year + 1
    return to_us(moment.replace(year=year, day=min(moment.day, monthrange(year, moment.month)[1])))


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except Exception as error:  # zoneinfo raises KeyError, ValueError or OSError, depending on the name
        raise ValueError(f"no such time zone: {name[:64]!r}") from error
