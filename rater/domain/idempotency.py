"""Which calls and commands were handled before, so that a repeat changes nothing (rule 26).

Each call and command leaves a row with a digest of its content. The same id with the same content is a repeat; with other
content it is a conflict. Rows are forgotten by days, long after any repeat may come.
"""

from collections.abc import Sequence
from typing import Final
from zlib import adler32, crc32

from rater.domain import moments
from rater.domain.encoding import Writer
from rater.domain.messages import Cdr
from rater.domain.moments import DAY_US, REMEMBER_DAYS
from rater.domain.rejection import Rejected
from rater.domain.rows import Handled, Rows, decode_handled

#: How long a command is remembered: a year and a month, which is longer than any topic keeps one.
COMMAND_DAYS: Final = 396
#: How much later than it may be a row is really forgotten: room for records whose timestamps lag behind.
FORGET_MARGIN_DAYS: Final = 7


def digest_of(content: bytes) -> int:
    """64 bits to recognize content by. The upper half alone tells apart contents that differ in one place only."""
    return crc32(content) << 32 | adler32(content)


def forget_call_us(now_us: int, close_us: int) -> int:
    """When a call rated now may be forgotten; `close_us`: when its month closes, after which it can't be rated anyway."""
    forget_us = now_us + (REMEMBER_DAYS + 1) * DAY_US
    return max(forget_us, close_us)


def forget_command_us(now_us: int) -> int:
    """When a command handled now may be forgotten."""
    return now_us + COMMAND_DAYS * DAY_US


class IdempotencyStore:
    """The calls and commands handled before, by row key.

    `prefetch` reads what a batch will ask for in one go. What the batch itself writes is found as well.
    """

    __slots__ = ("_batch", "_forgotten_day", "_rows", "_writer")

    def __init__(self, rows: Rows, writer: Writer) -> None:
        self._rows = rows
        self._writer = writer
        self._batch: dict[bytes, bytes | None] = {}  # rows this batch has read or written; None: there is no such row
        self._forgotten_day = 0

    def digest(self, message: Cdr) -> int:
        """The digest of a message, whatever the order of its fields was."""
        return digest_of(self._writer.row(message))

    def prefetch(self, keys: Sequence[bytes]) -> None:
        """Begin a batch: read the rows of these keys."""
        self._batch = dict(zip(keys, self._rows.get_many(keys), strict=True))

    def recall(self, key: bytes, now_us: int) -> Handled | None:
        """What is remembered under the key now, or None."""
        batch = self._batch
        row = batch[key] if key in batch else self._rows.get(key)
        if row is None:
            return None
        handled = decode_handled(row)
        return handled if handled.forget_us > now_us else None

    def is_repeat(self, key: bytes, digest: int, now_us: int, conflict: str) -> bool:
        """Whether the same was handled before.

        Raises `Rejected` (`conflicting_duplicate`, with the message `conflict`) if the key was used with other content.
        """
        handled = self.recall(key, now_us)
        if handled is None:
            return False
        if handled.digest != digest:
            raise Rejected("conflicting_duplicate", conflict)
        return True

    def remember(self, key: bytes, handled: Handled) -> None:
        """Write what is remembered under the key, until `handled.forget_us`."""
        row = self._writer.row(handled)
        self._batch[key] = row
        self._rows.append(moments.day_of(handled.forget_us) + 1, key, row)

    def forget(self, newest_us: int) -> None:
        """Forget what is old enough, seen from the newest record."""
        day = moments.day_of(newest_us) - FORGET_MARGIN_DAYS
        if day > self._forgotten_day:
            self._forgotten_day = day
            self._rows.expire(day)
