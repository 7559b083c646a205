"""Dead letters that may be rated after all, and how they are put back.

A letter is retryable where something else was missing (an organization, a user, a rate): once that is mended, the same call is
rated as new (rule 26). Letters of the same bytes are one call, however often it was put back and failed again. A call that was
rated meanwhile is known again and does nothing, so putting back too much does no harm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rater.domain import dead_letters
from rater.kafka.clients import producer, reader
from rater.kafka.connection import Brokers
from rater.kafka.topics import Topics

_POLL_MS = 200


@dataclass(frozen=True, slots=True)
class Letter:
    """A call that could not be rated: where it came from, why, and its own bytes."""

    org_id: str
    cdr_id: str
    code: str
    message: str
    partition: int
    offset: int
    at_ms: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


@dataclass(slots=True)
class Letters:
    """What the dead-letter topic holds: the retryable calls, each once with its latest reason, and how many letters stay."""

    retryable: list[Letter] = field(default_factory=list)
    not_retryable: int = 0


async def read_letters(brokers: Brokers, topics: Topics, org_id: str | None, codes: Sequence[str]) -> Letters:
    """Read the whole topic; `org_id` and `codes`, where given, choose among the retryable ones."""
    letters = Letters()
    latest: dict[tuple[bytes, bytes], Letter] = {}
    async with reader(brokers, [topics.dead_letter]) as consumer:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=_POLL_MS)).items():
                for record in records:
                    if record.offset >= ends[tp]:
                        continue
                    letter = _letter(record, topics.cdr)
                    if letter is None:
                        letters.not_retryable += 1
                    else:
                        latest[letter.key, letter.value] = letter
    letters.retryable = [
        letter for letter in latest.values() if org_id in (None, letter.org_id) and (not codes or letter.code in codes)
    ]
    return letters


async def put_back(brokers: Brokers, topics: Topics, letters: Sequence[Letter]) -> int:
    """Publish the calls as they came, as of now; gives how many, all acknowledged."""
    async with producer(brokers) as out:
        sends = [await out.send(topics.cdr, letter.value, key=letter.key, headers=list(letter.headers)) for letter in letters]
        await out.flush()
        for send in sends:
            await send
    return len(sends)


def _letter(record: Any, cdr_topic: str) -> Letter | None:
    """A retryable call's letter, or None: what the rater did not call retryable, or did not take from the call topic, stays."""
    reason = dead_letters.reason_of(record.headers)
    if not reason.retryable or reason.topic != cdr_topic:
        return None
    payload = record.value[5:] if record.value[:1] == b"\0" else record.value
    return Letter(
        record.key.decode(),
        msgspec.json.decode(payload)["cdr_id"],
        reason.code,
        reason.message,
        reason.partition,
        reason.offset,
        record.timestamp,
        record.key,
        record.value,
        tuple(dead_letters.own_headers(record.headers)),
    )
