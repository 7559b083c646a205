"""Checks the outputs: each CDR must be accounted for once, and all outputs must be what `simulate` gives for the same input.

The changelog tells in which order the input was processed: every transaction has the input offsets it reached, so the records
between two transactions are one batch, and within a batch the engine's merge gives the order. `simulate` over that log must
give exactly the records a `read_committed` reader finds.

The CDRs are counted without the core: by offsets and ids.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from rater.audit import Books, audit
from rater.domain.dead_letters import reason_of
from rater.engine.merge import merge
from rater.engine.overlay import META_KEY, Meta
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics
from rater.simulation import simulate
from tests.system.harness import assert_same

__all__ = ["CdrCounts", "Evidence", "processing_order", "verify"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything a `read_committed` reader finds in the topics at the end, each partition in its order."""

    catalog: Sequence[LogRecord]
    inputs: Sequence[LogRecord]
    changelog: Sequence[LogRecord]
    outputs: Sequence[LogRecord]


@dataclass(frozen=True, slots=True)
class CdrCounts:
    """How the CDRs ended, and how many commands and transactions there were."""

    cdrs: int
    rated: int
    dead_lettered: int
    duplicates: int
    commands: int
    transactions: int


def verify(topics: Topics, evidence: Evidence) -> CdrCounts:
    """Check everything. Raises AssertionError, which says what is wrong."""
    counts = account_for(topics, evidence)
    findings = audit(Books.of(topics, evidence.outputs))
    assert not findings, "the books do not agree: " + "; ".join(map(str, findings[:10]))
    log = processing_order(topics, evidence.inputs, evidence.changelog)
    assert_same(topics, list(simulate(topics, [*evidence.catalog, *log])), evidence.outputs)
    return counts


def account_for(topics: Topics, evidence: Evidence) -> CdrCounts:
    """Check that every CDR was rated once, in order, or was dead-lettered once, or duplicates one that was rated."""
    cdrs = [record for record in evidence.inputs if record.topic == topics.cdr]
    letters = Counter(_origin(record) for record in evidence.outputs if record.topic == topics.dead_letter)
    assert max(letters.values(), default=1) == 1, f"dead-lettered more than once: {letters.most_common(3)}"
    unknown = letters.keys() - {_position(record) for record in evidence.inputs}
    assert not unknown, f"dead letters of records that don't exist: {sorted(unknown)[:10]}"
    dead = {position for position in letters if position[0] == topics.cdr}
    wanted: dict[bytes | None, dict[str, None]] = defaultdict(dict)  # organization → ids in the order they first came
    repeats = 0
    for record in cdrs:
        if _position(record) not in dead:
            cdr_id = _cdr_id(record)
            repeats += cdr_id in wanted[record.key]
            wanted[record.key].setdefault(cdr_id)
    found: dict[bytes | None, list[str]] = defaultdict(list)
    for record in evidence.outputs:
        if record.topic == topics.rated:
            found[record.key].append(_cdr_id(record))
    for org in wanted.keys() | found.keys():
        _check_calls(org, list(wanted[org]), found[org])
    rated = sum(map(len, found.values()))
    assert rated + len(dead) + repeats == len(cdrs)
    transactions = sum(record.key == META_KEY for record in evidence.changelog)
    return CdrCounts(len(cdrs), rated, len(dead), repeats, len(evidence.inputs) - len(cdrs), transactions)


def processing_order(topics: Topics, inputs: Iterable[LogRecord], changelog: Iterable[LogRecord]) -> list[LogRecord]:
    """The input in the order it was processed, partition after partition. Each organization is in one partition only."""
    ranks = (topics.command, topics.cdr)
    lanes: dict[tuple[int, str], list[LogRecord]] = defaultdict(list)
    for record in inputs:
        lanes[record.partition, record.topic].append(record)
    log: list[LogRecord] = []
    taken: dict[tuple[int, str], int] = defaultdict(int)
    for record in changelog:
        if record.key == META_KEY:
            reached = msgspec.json.decode(record.value or b"", type=Meta).positions
            log += _batch(record.partition, ranks, lanes, taken, reached)
    left = {where: len(lane) - taken[where] for where, lane in lanes.items() if taken[where] < len(lane)}
    assert not left, f"input that no transaction reached: {left}"
    return log


def _batch(
    partition: int,
    ranks: Sequence[str],
    lanes: Mapping[tuple[int, str], list[LogRecord]],
    taken: dict[tuple[int, str], int],
    reached: Mapping[str, int],
) -> list[LogRecord]:
    """The records one transaction processed: up to the offsets it reached, in the order of the engine's merge."""
    parts: list[list[LogRecord]] = []
    for topic in ranks:
        lane = lanes.get((partition, topic), [])
        start = end = taken[partition, topic]
        while end < len(lane) and lane[end].offset < reached[topic]:
            end += 1
        assert start == 0 or lane[start - 1].offset < reached[topic], f"{topic} went back to offset {reached[topic]}"
        taken[partition, topic] = end
        parts.append(lane[start:end])
    merged, _ = merge(parts, [False] * len(parts), sum(map(len, parts)))
    return merged


def _check_calls(org: bytes | None, wanted: list[str], found: list[str]) -> None:
    if wanted == found:
        return
    twice = [cdr_id for cdr_id, times in Counter(found).items() if times > 1]
    assert not twice, f"{org!r}: rated more than once: {twice[:10]}"
    missing, extra = set(wanted) - set(found), set(found) - set(wanted)
    assert not missing, f"{org!r}: {len(missing)} calls are missing: {sorted(missing)[:10]}"
    assert not extra, f"{org!r}: rated calls that were never made: {sorted(extra)[:10]}"
    raise AssertionError(f"{org!r}: the calls are in the wrong order")


def _position(record: LogRecord) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset


def _origin(dead_letter: LogRecord) -> tuple[str, int, int]:
    """Where the record stood that could not be rated."""
    reason = reason_of(dead_letter.headers)
    return reason.topic, reason.partition, reason.offset


def _cdr_id(record: LogRecord) -> str:
    """Its cdr_id. A record without one must be a dead letter; its position then shows up as missing."""
    try:
        return str(msgspec.json.decode(record.value or b"")["cdr_id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return str(_position(record))
