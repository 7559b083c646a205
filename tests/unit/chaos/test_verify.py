"""The check after a chaos run finds every kind of wrong output."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

import msgspec
import pytest

from rater.engine.merge import merge
from rater.engine.overlay import META_KEY, Meta
from rater.kafka.log import LogRecord
from rater.kafka.partitioning import partition_of
from rater.kafka.topics import load_topics
from rater.simulation import simulate
from tests.chaos.verify import Evidence, processing_order, verify
from tests.system.random_log import RandomLog

PARTITIONS = 2
BATCH = 40
TOPICS = load_topics("", PARTITIONS)

Forge = Callable[[Sequence[LogRecord]], Sequence[LogRecord]]


def worked_off(batch: int) -> Evidence:
    """What a worker leaves in the topics if it takes up to `batch` records per topic at a time, regardless of timestamps."""
    log = RandomLog(TOPICS, 5, cdrs=400, organizations=6)
    inputs = placed(log.traffic)
    order: list[LogRecord] = []
    changelog: list[LogRecord] = []
    for partition in range(PARTITIONS):
        lanes = [[r for r in inputs if (r.topic, r.partition) == (t, partition)] for t in (TOPICS.command, TOPICS.cdr)]
        for start in range(0, max(map(len, lanes)), batch):
            parts = [lane[start : start + batch] for lane in lanes]
            order += merge(parts, [False, False], 2 * batch)[0]
            reached = {lane[0].topic: min(len(lane), start + batch) for lane in lanes}
            changelog.append(LogRecord(TOPICS.changelog, 0, META_KEY, msgspec.json.encode(Meta(reached)), partition=partition))
    outputs = list(simulate(TOPICS, [*log.catalog, *order]))
    return Evidence(log.catalog, inputs, changelog, outputs)


def placed(records: Sequence[LogRecord]) -> list[LogRecord]:
    """The records with the partition and offset Kafka would give them."""
    offsets = {(topic, p): count() for topic in (TOPICS.command, TOPICS.cdr) for p in range(PARTITIONS)}
    found = []
    for record in records:
        partition = partition_of((record.key or b"").decode(), PARTITIONS)
        found.append(msgspec.structs.replace(record, partition=partition, offset=next(offsets[record.topic, partition])))
    return found


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return worked_off(BATCH)


def test_correct_outputs_pass(evidence: Evidence) -> None:
    counts = verify(TOPICS, evidence)
    assert counts.cdrs == 400 == counts.rated + counts.dead_lettered + counts.duplicates
    assert min(counts.rated, counts.dead_lettered, counts.duplicates) > 0
    assert counts.transactions == len(evidence.changelog)


def test_the_processing_order_is_that_of_the_batches_not_of_the_timestamps(evidence: Evidence) -> None:
    order = processing_order(TOPICS, evidence.inputs, evidence.changelog)
    first = [record for record in order if record.partition == 0]
    assert [record.timestamp for record in first] != sorted(record.timestamp for record in first)
    by_clock = sorted(order, key=lambda record: (record.partition, record.timestamp))
    assert order != by_clock
    assert sorted(map(repr, order)) == sorted(map(repr, evidence.inputs))


def without(topic: str, position: int) -> Forge:
    def forge(outputs: Sequence[LogRecord]) -> Sequence[LogRecord]:
        places = [i for i, record in enumerate(outputs) if record.topic == topic]
        return [record for i, record in enumerate(outputs) if i != places[position]]

    return forge


def twice(topic: str) -> Forge:
    def forge(outputs: Sequence[LogRecord]) -> Sequence[LogRecord]:
        return [*outputs, next(record for record in outputs if record.topic == topic)]

    return forge


def swapped(topic: str) -> Forge:
    """Swap the first two records of one organization."""

    def forge(outputs: Sequence[LogRecord]) -> Sequence[LogRecord]:
        forged = list(outputs)
        first = next(i for i, record in enumerate(forged) if record.topic == topic)
        later = (i for i in range(first + 1, len(forged)) if (forged[i].topic, forged[i].key) == (topic, forged[first].key))
        second = next(later)
        forged[first], forged[second] = forged[second], forged[first]
        return forged

    return forge


@pytest.mark.parametrize(
    ("forge", "complaint"),
    [
        (without(TOPICS.rated, 7), "1 calls are missing"),
        (twice(TOPICS.rated), "rated more than once"),
        (swapped(TOPICS.rated), "in the wrong order"),
        (without(TOPICS.dead_letter, 3), "1 calls are missing"),
        (twice(TOPICS.dead_letter), "dead-lettered more than once"),
        (without(TOPICS.ledger, 5), "the books do not agree"),
        (twice(TOPICS.ledger), "the books do not agree"),
        (without(TOPICS.event, 4), "the books do not agree"),
        (twice(TOPICS.event), "the books do not agree"),
        (without(TOPICS.notification, 0), "record"),
    ],
)
def test_a_forged_output_is_found(evidence: Evidence, forge: Forge, complaint: str) -> None:
    with pytest.raises(AssertionError, match=f"(?i){complaint}"):
        verify(TOPICS, replace(evidence, outputs=forge(evidence.outputs)))


def test_input_that_no_transaction_reached_is_found(evidence: Evidence) -> None:
    with pytest.raises(AssertionError, match="no transaction reached"):
        processing_order(TOPICS, evidence.inputs, evidence.changelog[:-1])


def test_a_transaction_that_goes_back_is_found(evidence: Evidence) -> None:
    with pytest.raises(AssertionError, match="went back"):
        processing_order(TOPICS, evidence.inputs, [*evidence.changelog, evidence.changelog[0]])
