"""Finds the dead-lettered calls that can be rated after all, and puts them back on the call topic.

A dead letter is retryable if an organization, a user or a rate was missing: once it exists, the same bytes can be rated
(rule 26). Dead letters with the same bytes are one call, however often it was put back and failed again. A call that has been
rated since is recognised as a duplicate, so putting back too many does no harm.
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
class RetryableCall:
    """A dead-lettered call that may be put back. `partition` and `offset`: where it was read from; `at_ms`: since the epoch, of
    its latest dead letter; `key`, `value` and `headers`: the call's own bytes."""

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
class ReplayCandidates:
    """What the dead-letter topic holds: each retryable call once, with its latest reason, and the number of other letters."""

    calls: list[RetryableCall] = field(default_factory=list)
    not_retryable: int = 0


async def read_candidates(brokers: Brokers, topics: Topics, org_id: str | None, codes: Sequence[str]) -> ReplayCandidates:
    """Read the whole dead-letter topic. `org_id` (None: all) and `codes` (empty: all) select among the retryable calls.

    Raises TopicAdminError if the topic is missing, KafkaError if Kafka fails.
    """
    candidates = ReplayCandidates()
    latest: dict[tuple[bytes, bytes], RetryableCall] = {}
    async with reader(brokers, [topics.dead_letter]) as consumer:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=_POLL_MS)).items():
                for record in records:
                    if record.offset >= ends[tp]:
                        continue
                    call = _retryable_call(record, topics.cdr)
                    if call is None:
                        candidates.not_retryable += 1
                    else:
                        latest[call.key, call.value] = call
    candidates.calls = [call for call in latest.values() if org_id in (None, call.org_id) and (not codes or call.code in codes)]
    return candidates


async def put_back(brokers: Brokers, topics: Topics, calls: Sequence[RetryableCall]) -> int:
    """Publish the calls' own bytes again, with a new timestamp. Returns their number once all are acknowledged.

    Raises KafkaError; some calls may be published by then.
    """
    async with producer(brokers) as out:
        sends = [await out.send(topics.cdr, call.value, key=call.key, headers=list(call.headers)) for call in calls]
        await out.flush()
        for send in sends:
            await send
    return len(sends)


def _retryable_call(record: Any, cdr_topic: str) -> RetryableCall | None:
    """The call in a dead letter; None if the rater didn't mark it retryable or didn't read it from the call topic."""
    reason = dead_letters.reason_of(record.headers)
    if not reason.retryable or reason.topic != cdr_topic:
        return None
    payload = record.value[5:] if record.value[:1] == b"\0" else record.value
    return RetryableCall(
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
