"""Whether the outputs are what the input demands: each CDR accounted for once, and everything as `simulate` says.

Which order the input was processed in, the changelog tells: every transaction carries the input offsets it reached, so
the records between two of them are one batch, and within a batch the engine's merge says the order. Put so into one log,
`simulate` must give the very records a `read_committed` reader finds.

What is counted here is counted without the core: by offsets and ids.
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

__all__ = ["Evidence", "Tally", "processing_order", "verify"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is in the topics at the end, as a `read_committed` reader finds it, partition by partition in order."""

    catalog: Sequence[LogRecord]
    inputs: Sequence[LogRecord]
    changelog: Sequence[LogRecord]
    outputs: Sequence[LogRecord]


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the CDRs, and how many transactions that took."""

    cdrs: int
    rated: int
    dead_lettered: int
    duplicates: int
    commands: int
    transactions: int


def verify(topics: Topics, evidence: Evidence) -> Tally:
    """Raise AssertionError, saying what is wrong, unless all is as promised."""
    tally = account_for(topics, evidence)
    findings = audit(Books.of(topics, evidence.outputs))
    assert not findings, "the books do not agree: " + "; ".join(map(str, findings[:10]))
    log = processing_order(topics, evidence.inputs, evidence.changelog)
    assert_same(topics, list(simulate(topics, [*evidence.catalog, *log])), evidence.outputs)
    return tally


def account_for(topics: Topics, evidence: Evidence) -> Tally:
    """Every CDR is rated once, in its place, or is in the dead letters once, or repeats one that was rated."""
    cdrs = [record for record in evidence.inputs if record.topic == topics.cdr]
    letters = Counter(_origin(record) for record in evidence.outputs if record.topic == topics.dead_letter)
    assert max(letters.values(), default=1) == 1, f"dead-lettered more than once: {letters.most_common(3)}"
    unknown = letters.keys() - {_place(record) for record in evidence.inputs}
    assert not unknown, f"dead letters of records that never were: {sorted(unknown)[:10]}"
    dead = {place for place in letters if place[0] == topics.cdr}
    wanted: dict[bytes | None, dict[str, None]] = defaultdict(dict)  # organization → ids as they first came
    repeats = 0
    for record in cdrs:
        if _place(record) not in dead:
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
    return Tally(len(cdrs), rated, len(dead), repeats, len(evidence.inputs) - len(cdrs), transactions)


def processing_order(topics: Topics, inputs: Iterable[LogRecord], changelog: Iterable[LogRecord]) -> list[LogRecord]:
    """The input in the order it was processed, partition after partition: an organization is in one of them."""
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
    left = {place: len(lane) - taken[place] for place, lane in lanes.items() if taken[place] < len(lane)}
    assert not left, f"input that no transaction has reached: {left}"
    return log


def _batch(
    partition: int,
    ranks: Sequence[str],
    lanes: Mapping[tuple[int, str], list[LogRecord]],
    taken: dict[tuple[int, str], int],
    reached: Mapping[str, int],
) -> list[LogRecord]:
    """What one transaction has processed: up to the offsets it reached, merged as the engine does it."""
    parts: list[list[LogRecord]] = []
    for topic in ranks:
        lane = lanes.get((partition, topic), [])
        start = end = taken[partition, topic]
        while end < len(lane) and lane[end].offset < reached[topic]:
            end += 1
        assert start == 0 or lane[start - 1].offset < reached[topic], f"{topic} went back to {reached[topic]}"
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
    assert not extra, f"{org!r}: rated calls that nobody made: {sorted(extra)[:10]}"
    raise AssertionError(f"{org!r}: the calls are not in their order")


def _place(record: LogRecord) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset


def _origin(dead_letter: LogRecord) -> tuple[str, int, int]:
    """Where the record stood that could not be rated."""
    reason = reason_of(dead_letter.headers)
    return reason.topic, reason.partition, reason.offset


def _cdr_id(record: LogRecord) -> str:
    """Its id; of a record that has none, its place: it belongs among the dead letters and is missed there."""
    try:
        return str(msgspec.json.decode(record.value or b"")["cdr_id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return str(_place(record))
