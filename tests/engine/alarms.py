"""A worker with due work: every record sets an alarm at its own timestamp, and every alarm goes off once.

As a program it is a worker process: `python alarms.py`. Its settings come from the environment (`RATER_…`).
"""

import heapq
import logging
import sys
from collections.abc import AsyncIterable, Callable, Sequence

from rater.bootstrap import engine_settings
from rater.engine.api import Record, Sink, State
from rater.engine.app import EngineApp, wall_clock_ms
from rater.engine.batches import Batch, Tick
from rater.engine.groups import TaskGroup
from rater.engine.run import run_worker
from rater.settings import Settings

ALARMS_MAX = 40  # per tick, so that many alarms due at once take several ticks


class Alarms:
    """One row per alarm, keyed by due time, and a heap of them in memory. The value of a record is its alarm's id."""

    def __init__(self, prefix: str, partition: int, state: State, sink: Sink) -> None:
        self._state = state
        self._sink = sink
        self._rated = f"{prefix}rated"
        self._due = [(int.from_bytes(row[1:9], "big"), row[9:]) for row, _ in state.scan(b"d")]
        self.partition = partition
        heapq.heapify(self._due)

    async def process(self, records: Sequence[Record]) -> None:
        for record in records:
            alarm = (record.timestamp, record.value or b"")
            self._state.put(_row(*alarm), b"")
            heapq.heappush(self._due, alarm)

    def next_due_ms(self) -> int | None:
        return self._due[0][0] if self._due else None

    async def tick(self, now_ms: int) -> None:
        gone_off = 0
        while self._due and self._due[0][0] <= now_ms and gone_off < ALARMS_MAX:
            due_ms, id_ = heapq.heappop(self._due)
            self._state.delete(_row(due_ms, id_))
            self._sink.emit(self._rated, id_, b"%d" % due_ms, now_ms)
            gone_off += 1


def _row(due_ms: int, id_: bytes) -> bytes:
    return b"d" + due_ms.to_bytes(8, "big") + id_


def alarms_app(settings: Settings, clock_ms: Callable[[], int] = wall_clock_ms) -> EngineApp:
    prefix = settings.topic_prefix
    group = TaskGroup(
        name="alarms",
        topics=(f"{prefix}calls",),
        changelog=f"{prefix}changelog",
        outputs=(f"{prefix}rated",),
        memory=lambda partition, state, sink: Alarms(prefix, partition, state, sink),
    )
    app = EngineApp(engine_settings(settings), clock_ms=clock_ms)

    @app.agent(app.batches(group), name="alarms")
    async def alarms(stream: AsyncIterable[Batch]) -> None:
        """Sets alarms and sends those that are due."""
        async for batch in stream:
            async with batch as transaction:
                if isinstance(batch, Tick):
                    await transaction.memory.tick(batch.now_ms)
                else:
                    await transaction.memory.process(transaction.records)

    return app


if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("aiokafka").setLevel("WARNING")
    sys.exit(run_worker(lambda: [alarms_app(Settings())]))
