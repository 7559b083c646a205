"""The same core in unmodified Faust: one event at a time, rows in a Faust table, outputs sent one by one.

`python -m tests.bench.stock_faust worker`, with BOOTSTRAP, PREFIX and COUNT in the environment; prints one line of JSON.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import faust

from rater.domain.catalog import Catalog
from rater.domain.core import Core
from rater.kafka.log import LogRecord
from rater.kafka.topics import load_topics
from tests.bench import traffic

topics = load_topics(os.environ.get("PREFIX", ""))
app = faust.App(
    "stock-" + os.environ.get("PREFIX", "x").rstrip("."),
    broker="kafka://" + os.environ.get("BOOTSTRAP", "127.0.0.1:9092"),
    store="memory://",
    topic_partitions=4,
    web_enabled=False,
    consumer_auto_offset_reset="earliest",
    topic_replication_factor=1,
    datadir=os.environ.get("DATA_DIR", "."),
)
cdrs = app.topic(topics.cdr, value_serializer="raw", key_serializer="raw")
table = app.Table("rows", partitions=4, key_type=bytes, value_type=bytes)
outputs = {
    name: app.topic(name, value_serializer="raw", key_serializer="raw")
    for name in (topics.rated, topics.ledger, topics.event, topics.state, topics.notification, topics.dead_letter)
}


class TableRows:
    """The core's rows in a Faust table."""

    def get(self, key: bytes) -> bytes | None:
        return table.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [table.get(key) for key in keys]

    def put(self, key: bytes, value: bytes) -> None:
        table[key] = value

    def delete(self, key: bytes) -> None:
        table.pop(key, None)

    def append(self, day: int, key: bytes, value: bytes) -> None:
        table[key] = value

    def expire(self, before_day: int) -> None:
        """Nothing is old yet."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter([(key, row) for key, row in table.items() if key.startswith(prefix)])


@app.agent(cdrs)
async def rate(stream: Any) -> None:
    count = int(os.environ["COUNT"])
    pending: list[tuple[Any, ...]] = []
    catalog = Catalog()

    def emit(topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Any = ()) -> None:
        pending.append((topic, key, value, timestamp_ms, headers))

    core = None
    done = 0
    start_s = start_cpu_s = 0.0
    async for event in stream.events():
        if core is None:
            core = Core(topics, catalog, TableRows(), emit)
            core.batch([*traffic.catalog(topics), *traffic.accounts(topics, int(os.environ["ORGANIZATIONS"]))])
            core.flush()
            pending.clear()
            start_s, start_cpu_s = time.perf_counter(), time.process_time()
        message = event.message
        record = LogRecord(
            topics.cdr, int(message.timestamp * 1000), message.key, message.value, (), message.offset, message.tp.partition
        )
        core.batch([record])
        core.flush()
        for topic, key, value, timestamp_ms, _ in pending:
            await outputs[topic].send(key=key, value=value, timestamp=timestamp_ms / 1000)
        pending.clear()
        done += 1
        if done == count:
            wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
            result = json.dumps({"count": count, "wall_s": wall_s, "cpu_s": cpu_s}) + "\n"
            os.write(1, result.encode())  # Faust redirects standard output to its log
            os._exit(0)


if __name__ == "__main__":
    app.main()
