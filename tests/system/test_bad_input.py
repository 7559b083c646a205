"""Bad input of every kind in the middle of good traffic, on a real Kafka: the outputs are those of `rater simulate`."""

import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from rater.domain.dead_letters import LEFT_OUT_BYTES_HEADER, OFFSET_HEADER, PARTITION_HEADER, reason_of
from rater.embedded import EmbeddedKafka
from rater.kafka.clients import read_all
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics
from rater.simulation import simulate
from tests.poison import Poison
from tests.system.harness import Worker, assert_same, read_outputs, until_done
from tests.system.random_log import RandomLog

SEED = 20_261_124
STEP_MS = 5
LARGE_BYTES = 10_000_000


class NotUtf8(str):
    """A header name that is not UTF-8, as producers written in C may send it. A reader sees two U+FFFD."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        del encoding, errors
        return b"\xff\xfe"


@pytest.fixture
def worker(kafka: EmbeddedKafka, topics: Topics, tmp_path: Path) -> Iterator[Worker]:
    prefix = topics.cdr.removesuffix("telephony.cdr.v1")
    # Small batches, so that bad records are at the beginnings and ends of batches too.
    worker = Worker(kafka.bootstrap, topics, prefix, tmp_path, RATER_BATCH_RECORDS_MAX="100")
    yield worker
    worker.close()


async def test_poison_among_good_traffic_is_accounted_for_as_simulate_says(
    kafka: EmbeddedKafka, topics: Topics, worker: Worker
) -> None:
    catalog, traffic = poisoned_log(topics)
    await publish(kafka.bootstrap, topics, catalog)
    await publish(kafka.bootstrap, topics, traffic)
    worker.start()
    await until_done(kafka.bootstrap, topics, worker)
    expected = list(simulate(topics, [*catalog, *traffic]))
    found = await read_outputs(kafka.bootstrap, topics)
    assert worker.stop() == 0

    dead_expected, dead_found = dead(topics, expected), dead(topics, found)
    by_topic = Counter(reason_of(letter.headers).topic for letter in dead_found)
    assert min(by_topic[topic] for topic in (topics.cdr, topics.command, topics.plan, topics.rate)) > 30
    assert Counter(map(contents, dead_found)) == Counter(map(contents, dead_expected))
    await check_dead_letters_are_what_came(kafka.bootstrap, topics, dead_found)
    assert_same(topics, alive(topics, expected), alive(topics, found))

    audit = await asyncio.to_thread(audited, kafka.bootstrap, topics)
    assert audit.returncode == 0, audit.stderr
    assert "everything agrees" in audit.stdout
    assert f"{by_topic[topics.plan] + by_topic[topics.rate]} rows of the catalog are faulty" in audit.stderr


def audited(bootstrap: str, topics: Topics) -> subprocess.CompletedProcess[str]:
    prefix = topics.cdr.removesuffix("telephony.cdr.v1")
    command = [sys.executable, "-m", "rater", "audit", "--bootstrap", bootstrap, "--prefix", prefix]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def poisoned_log(topics: Topics) -> tuple[list[LogRecord], list[LogRecord]]:
    """Catalog and traffic, both with bad records. The traffic's timestamps increase, except for those that are bad."""
    draw = random.Random(SEED)
    good = RandomLog(topics, SEED, cdrs=1200, organizations=8)
    start_ms = good.traffic[0].timestamp
    poison = Poison(topics, SEED, start_ms, times_ms=(-2,))
    setting = list(poison.stage())
    catalog = [record for record in setting if record.topic != topics.command] + good.catalog
    traffic = [record for record in setting if record.topic == topics.command]
    for record in good.traffic:
        traffic.append(record)
        if draw.random() < 0.6:
            traffic.append(poison.traffic())
    for record in large(topics, draw):
        traffic.insert(draw.randrange(len(traffic)), record)
    traffic.append(LogRecord(topics.cdr, 0, b"acme", b"{", [("ok", b"1"), (NotUtf8("\ufffd\ufffd"), b"2")]))
    for number, record in enumerate(traffic):
        if record.timestamp >= 0:
            record.timestamp = start_ms + number * STEP_MS
    return [*poison.catalog(), *catalog], traffic


def large(topics: Topics, draw: random.Random) -> Iterator[LogRecord]:
    """Records as large as the topics accept, and larger ones that only fit once compressed."""
    values = (draw.randbytes(LARGE_BYTES), b'{"x":"' + b"x" * LARGE_BYTES + b'"}', b"\0" * 3 * LARGE_BYTES)
    for topic in (topics.cdr, topics.command):
        yield from (LogRecord(topic, 0, draw.choice((b"acme", None)), value) for value in values)


async def publish(bootstrap: str, topics: Topics, records: Sequence[LogRecord]) -> None:
    """Publish as any producer would. A record without a key goes to partition 0."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, enable_idempotence=True, compression_type="gzip", max_request_size=4 * LARGE_BYTES
    )
    await producer.start()
    for record in records:
        partitions = topics[record.topic].partitions
        partition = 0 if record.key is None else (murmur2(record.key) & 0x7FFFFFFF) % partitions
        if any(isinstance(name, NotUtf8) for name, _ in record.headers):
            await producer.flush()
            await send_in_batch(bootstrap, record, partition)
            continue
        await producer.send(
            record.topic,
            record.value,
            key=record.key,
            partition=partition,
            timestamp_ms=record.timestamp,
            headers=list(record.headers),
        )
    await producer.flush()
    await producer.stop()


async def send_in_batch(bootstrap: str, record: LogRecord, partition: int) -> None:
    """Send the record with aiokafka's builder in pure Python: only that one calls `encode` of the header name."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 100_000)
    builder.append(0, record.timestamp, record.key, record.value, list(record.headers))
    batch = producer.create_batch()
    batch._builder, batch._relative_offset = builder, 1
    batch.close()
    await (await producer.send_batch(batch, record.topic, partition=partition))
    await producer.stop()


async def check_dead_letters_are_what_came(bootstrap: str, topics: Topics, letters: Sequence[LogRecord]) -> None:
    """Each names the place of a record; it bears that one's key, value and headers, or says that they were too large."""
    sources, _ = await read_all(bootstrap, [topics.cdr, topics.command, topics.plan, topics.rate])
    by_place = {(record.topic, record.partition, record.offset): record for record in sources}
    left_out = 0
    for letter in letters:
        reason = reason_of(letter.headers)
        record = by_place.pop((reason.topic, reason.partition, reason.offset))
        if LEFT_OUT_BYTES_HEADER in dict(letter.headers):
            left_out += 1
            assert (letter.key, letter.value) == (None, None)
            assert len(record.value or b"") > LARGE_BYTES
        else:
            assert (letter.key, letter.value) == (record.key, record.value)
            assert tuple(letter.headers[: len(record.headers)]) == tuple(record.headers)
    assert left_out


def dead(topics: Topics, records: Sequence[LogRecord]) -> list[LogRecord]:
    return [record for record in records if record.topic == topics.dead_letter]


def alive(topics: Topics, records: Sequence[LogRecord]) -> list[LogRecord]:
    return [record for record in records if record.topic != topics.dead_letter]


def contents(letter: LogRecord) -> tuple[Any, ...]:
    """A log has no partitions, and offsets of its own."""
    own = {PARTITION_HEADER, OFFSET_HEADER}
    return letter.key, letter.value, letter.timestamp, tuple(header for header in letter.headers if header[0] not in own)
