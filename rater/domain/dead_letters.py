"""Dead letters: how a record that can't be rated is passed on, and how its headers are read back.

This is the only module that knows the header names (docs/contract.md, "Topics"). A dead letter carries the record's own headers
first and the rater's after them, so `dict(headers)` finds the rater's even if a producer has forged one.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from rater.domain.outputs import Record
from rater.domain.rejection import Rejected

TOPIC_HEADER: Final = "__connect.errors.topic"
PARTITION_HEADER: Final = "__connect.errors.partition"
OFFSET_HEADER: Final = "__connect.errors.offset"
MESSAGE_HEADER: Final = "__connect.errors.exception.message"
CODE_HEADER: Final = "rater.error.code"
RETRYABLE_HEADER: Final = "rater.error.retryable"
#: Present only if the record was too large to pass on: its size. Its key, value and own headers are then left out.
LEFT_OUT_BYTES_HEADER: Final = "rater.error.left_out_bytes"

#: What the dead-letter topic takes even if nothing can be compressed. A compressed input record may be larger than this.
DEAD_LETTER_BYTES_MAX: Final = 11 * 1024 * 1024

_ADDED: Final = frozenset({TOPIC_HEADER, PARTITION_HEADER, OFFSET_HEADER, MESSAGE_HEADER, CODE_HEADER, RETRYABLE_HEADER})


class DeadLetter(NamedTuple):
    """The content of a dead letter."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Reason(NamedTuple):
    """Why a record was dead-lettered, and where it stood. `retryable`: the same bytes may be rated later (rule 26)."""

    topic: str
    partition: int
    offset: int
    code: str
    message: str
    retryable: bool


def dead_letter_of(record: Record, rejected: Rejected) -> DeadLetter:
    """The record as it came, with the reason added to its headers; without its content if it is too large."""
    key, value, own = record.key, record.value, record.headers
    size = len(key or b"") + len(value or b"") + sum(len(name) + len(text or b"") for name, text in own)
    if size > DEAD_LETTER_BYTES_MAX:
        key, value, own = None, None, [(LEFT_OUT_BYTES_HEADER, b"%d" % size)]
    headers = [
        *own,
        (TOPIC_HEADER, record.topic.encode()),
        (PARTITION_HEADER, b"%d" % record.partition),
        (OFFSET_HEADER, b"%d" % record.offset),
        (MESSAGE_HEADER, rejected.message.encode(errors="replace")),
        (CODE_HEADER, rejected.code.encode()),
        (RETRYABLE_HEADER, b"true" if rejected.retryable else b"false"),
    ]
    return DeadLetter(key, value, headers)


def reason_of(headers: Sequence[tuple[str, Any]]) -> Reason:
    """The reason in a dead letter's headers.

    Never raises, because anyone may write to a topic. If a header is missing or malformed, a text is "", a number -1, the
    code "unknown", and `retryable` False.
    """
    found = dict(headers)
    return Reason(
        _text(found.get(TOPIC_HEADER)),
        _number(found.get(PARTITION_HEADER)),
        _number(found.get(OFFSET_HEADER)),
        _text(found.get(CODE_HEADER)) or "unknown",
        _text(found.get(MESSAGE_HEADER)),
        found.get(RETRYABLE_HEADER) == b"true",
    )


def own_headers(headers: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """A dead letter's headers without those the rater added: what the record came with."""
    return [(name, value) for name, value in headers if name not in _ADDED]


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")


def _number(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() else -1
