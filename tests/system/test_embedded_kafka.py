"""The embedded Kafka works like any Kafka: it starts, keeps its data, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from click.testing import CliRunner

from rater.cli import cli
from rater.embedded import EmbeddedKafka, EmbeddedKafkaError
from rater.embedded.runtime import fetch
from rater.kafka.topic_admin import apply, diff
from rater.kafka.topics import Topics, load_topics

END_TIMEOUT_S = 20.0


async def test_a_transaction_is_seen_whole_or_not_at_all(kafka: EmbeddedKafka, topics: Topics) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topics.cdr) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topics.cdr, b"taken back", partition=0)
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(topics.cdr, b"meant", partition=0)
    assert await first_value(kafka.bootstrap, topics.cdr) == b"meant"


async def test_a_dead_letter_takes_ten_megabytes(kafka: EmbeddedKafka, topics: Topics) -> None:
    value = b"x" * 10_485_760
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, max_request_size=2**24) as producer:
        await producer.send_and_wait(topics.dead_letter, value, partition=0)
    assert await first_value(kafka.bootstrap, topics.dead_letter) == value


async def test_applying_the_topics_twice_creates_them_once(kafka: EmbeddedKafka, topics: Topics) -> None:
    assert await diff(kafka.bootstrap, topics) == []
    assert await apply(kafka.bootstrap, topics) == []


async def test_a_difference_names_topic_and_setting(kafka: EmbeddedKafka, topics: Topics) -> None:
    prefix = topics.cdr.removesuffix("telephony.cdr.v1")
    found = await diff(kafka.bootstrap, load_topics(prefix, account_partitions=topics.account_partitions + 1))
    assert f"{topics.cdr}: partitions is 4, should be 5" in [str(difference) for difference in found]


def test_the_exit_code_shows_a_difference(kafka: EmbeddedKafka, make_topics: Callable[..., Topics]) -> None:
    topics = make_topics(account_partitions=1)
    where = ["--bootstrap", kafka.bootstrap, "--prefix", topics.cdr.removesuffix("telephony.cdr.v1")]
    same = CliRunner().invoke(cli, ["topics", "diff", *where, "--partitions", "1"])
    assert (same.exit_code, same.output) == (0, "no difference\n")
    other = CliRunner().invoke(cli, ["topics", "apply", *where])
    assert other.exit_code == 1
    assert f"{topics.cdr}: partitions is 1, should be 4" in other.output


def test_stopping_keeps_the_data_and_ends_the_processes(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path) as kafka:
        run_apply(kafka.bootstrap)
        java = psutil.Process(kafka.nodes[0].pid)
    assert not java.is_running()
    with EmbeddedKafka(tmp_path) as again:
        result = CliRunner().invoke(cli, ["topics", "diff", "--bootstrap", again.bootstrap])
        assert result.output == "no difference\n"


def test_a_node_that_was_killed_comes_back(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path) as kafka:
        node = kafka.nodes[0]
        node.kill()
        assert node.pid is None
        node.start()
        node.wait_until_answering()
        assert node.pid is not None


def test_a_setting_that_kafka_refuses_is_named(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path, properties={"log.segment.bytes": "1"})
    with pytest.raises(EmbeddedKafkaError, match=r"(?s)could not format .*log\.segment\.bytes"):
        kafka.start()
    assert kafka.nodes == []


def test_a_broker_that_fails_to_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path):
        pass
    meta = tmp_path / "node-1" / "data" / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=7"))
    kafka = EmbeddedKafka(tmp_path)
    with pytest.raises(EmbeddedKafkaError, match=r"(?s)ended with code 1 .*Stored node id 7"):
        kafka.start()
    assert kafka.nodes == []


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(EmbeddedKafkaError, match=f"port {port} of 127.0.0.1 is taken"):
            EmbeddedKafka(tmp_path, port=port).start()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_broker_outlives_its_parent(sign: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rater", "kafka", "--port", "0", "--data-dir", str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    host, port = parent.stdout.readline().strip().split(":")
    descendants = psutil.Process(parent.pid).children(recursive=True)
    assert any(process.name() == "java" for process in descendants)
    os.kill(parent.pid, sign)
    parent.communicate(timeout=END_TIMEOUT_S)
    assert parent.returncode == (-sign if sign == signal.SIGKILL else 0)
    _, alive = psutil.wait_procs(descendants, timeout=END_TIMEOUT_S)
    assert alive == []
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0


def test_the_runtime_is_found_again_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fetch()
    started = time.monotonic()
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert fetch() == found
    assert time.monotonic() - started < 5
    # With another cache and home folder no jars are known, so the network is needed.
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(EmbeddedKafkaError, match="Maven Central"):
        fetch(tmp_path)


async def first_value(bootstrap: str, topic: str) -> bytes | None:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    async with consumer:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.seek_to_beginning()
        value = (await consumer.getone()).value
        assert value is None or isinstance(value, bytes)
        return value


def run_apply(bootstrap: str) -> None:
    result = CliRunner().invoke(cli, ["topics", "apply", "--bootstrap", bootstrap])
    assert result.exit_code == 0, result.output


def refuse(*_arguments: object, **_options: object) -> None:
    raise OSError("no network in this test")
