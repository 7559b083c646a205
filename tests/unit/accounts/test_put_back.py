"""Retryable calls are found among the dead letters and put back unchanged. The rating core writes the dead letters here."""

from typing import Any

import msgspec
import pytest

from rater.accounts import ReplayCandidates, put_back, read_candidates
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics
from rater.simulation import simulate
from tests.fake_kafka import FakeKafka

NOW_MS = 1_790_000_000_000
NO_RATE = {"callee": "+442079460000"}
NO_USER = {"user_id": "bob"}


def cdr(cdr_id: str, **fields: Any) -> bytes:
    call: dict[str, Any] = {"cdr_id": cdr_id, "org_id": "contoso", "user_id": "ann", "call_type": "user_out"}
    call |= {"callee": "+14255550100", "answered_at": "2026-09-20T12:00:00Z", "duration_ms": 60_000}
    return msgspec.json.encode(call | fields)


def dead_letters(topics: Topics, *cdrs: bytes) -> list[LogRecord]:
    """The dead letters of calls, given an organization with one user and no rates."""
    put: dict[str, Any] = {"type": "organization.put", "name": "C", "country": "US", "currency": "USD", "offer": "commercial"}
    user: dict[str, Any] = {"type": "user.put", "user_id": "ann", "usage_country": "US"}
    user["licences"] = {"communications_credits": True}
    log = []
    for number, fields in enumerate((put, user)):
        command = {"command_id": str(number), "org_id": "contoso", "issued_at": "2026-09-01T00:00:00Z"} | fields
        log.append(LogRecord(topics.command, NOW_MS, b"contoso", msgspec.json.encode(command)))
    for offset, value in enumerate(cdrs):
        org_id = msgspec.json.decode(value.removeprefix(b"\0\0\0\0\1"))["org_id"]
        log.append(LogRecord(topics.cdr, NOW_MS, org_id.encode(), value, [("trunk", b"7")], offset, 3))
    return [record for record in simulate(topics, log) if record.topic == topics.dead_letter]


def write(kafka: FakeKafka, letters: list[LogRecord], timestamp_ms: int = NOW_MS) -> None:
    for letter in letters:
        assert letter.key is not None
        kafka.put(letter.topic, letter.key.decode(), letter.value, letter.headers, timestamp_ms=timestamp_ms)


async def candidates(topics: Topics, org_id: str | None = None, *codes: str) -> ReplayCandidates:
    return await read_candidates("broker", topics, org_id, codes)


def names(found: ReplayCandidates) -> list[str]:
    return sorted(call.cdr_id for call in found.calls)


async def test_a_retryable_call_is_found_with_its_reason_and_origin(kafka: FakeKafka, topics: Topics) -> None:
    write(kafka, dead_letters(topics, cdr("a", **NO_USER)))
    (call,) = (await candidates(topics)).calls
    assert (call.org_id, call.cdr_id, call.code, call.at_ms) == ("contoso", "a", "unknown_user", NOW_MS)
    assert (call.partition, call.offset) == (3, 0)
    assert "bob" in call.message


async def test_letters_that_are_not_retryable_are_only_counted(kafka: FakeKafka, topics: Topics) -> None:
    write(kafka, dead_letters(topics, cdr("a", callee="nobody"), cdr("b", **NO_RATE)))
    found = await candidates(topics)
    assert (names(found), found.not_retryable) == (["b"], 1)


async def test_a_retryable_record_of_another_topic_is_not_put_back(kafka: FakeKafka, topics: Topics) -> None:
    command = {"command_id": "1", "type": "funds.expire", "org_id": "nobody", "issued_at": "2026-09-01T00:00:00Z"}
    record = LogRecord(topics.command, NOW_MS, b"nobody", msgspec.json.encode(command | {"as_of": "2026-09-01T00:00:00Z"}))
    letters = [letter for letter in simulate(topics, [record]) if letter.topic == topics.dead_letter]
    write(kafka, letters)
    found = await candidates(topics)
    assert (names(found), found.not_retryable) == ([], len(letters))


async def test_a_call_that_failed_again_is_one_call_with_the_latest_reason(kafka: FakeKafka, topics: Topics) -> None:
    call = cdr("a", org_id="contoso", **NO_USER, **NO_RATE)
    write(kafka, dead_letters(topics, call))
    again = cdr("a", org_id="contoso", **NO_USER, **NO_RATE)
    later = dead_letters(topics, cdr("b", **NO_RATE))[0]
    write(kafka, [LogRecord(later.topic, 0, b"contoso", again, later.headers)], NOW_MS + 1)
    (found,) = (await candidates(topics)).calls
    assert (found.cdr_id, found.code, found.at_ms) == ("a", "no_rate", NOW_MS + 1)


async def test_different_calls_with_the_same_id_are_two_calls(kafka: FakeKafka, topics: Topics) -> None:
    write(kafka, dead_letters(topics, cdr("a", **NO_USER), cdr("a", duration_ms=1, **NO_USER)))
    assert names(await candidates(topics)) == ["a", "a"]


async def test_calls_are_selected_by_organization_and_code(kafka: FakeKafka, topics: Topics) -> None:
    write(kafka, dead_letters(topics, cdr("a", **NO_RATE), cdr("b", **NO_USER), cdr("c", org_id="other")))
    assert names(await candidates(topics)) == ["a", "b", "c"]
    assert names(await candidates(topics, "contoso")) == ["a", "b"]
    assert names(await candidates(topics, None, "no_rate", "unknown_organization")) == ["a", "c"]
    assert names(await candidates(topics, "other", "no_rate")) == []


async def test_a_call_in_schema_registry_framing_keeps_its_bytes(kafka: FakeKafka, topics: Topics) -> None:
    framed = b"\0\0\0\0\1" + cdr("a", **NO_USER)
    write(kafka, dead_letters(topics, framed))
    (call,) = (await candidates(topics)).calls
    assert (call.cdr_id, call.value) == ("a", framed)


async def test_calls_are_put_back_with_their_own_key_bytes_and_headers(kafka: FakeKafka, topics: Topics) -> None:
    write(kafka, dead_letters(topics, cdr("a", **NO_USER), cdr("b", **NO_RATE)))
    found = await candidates(topics)
    assert await put_back("broker", topics, found.calls) == 2
    back = {record.value: record for record in kafka.published(topics.cdr)}
    assert set(back) == {cdr("a", **NO_USER), cdr("b", **NO_RATE)}
    for record in back.values():
        assert (record.key, record.headers) == (b"contoso", (("trunk", b"7"),))


async def test_a_failure_of_kafka_is_raised(kafka: FakeKafka, topics: Topics) -> None:
    write(kafka, dead_letters(topics, cdr("a", **NO_USER)))
    found = await candidates(topics)

    def fail(_: object) -> None:
        raise ConnectionError("no broker")

    kafka.on_publish = fail
    with pytest.raises(ConnectionError):
        await put_back("broker", topics, found.calls)
