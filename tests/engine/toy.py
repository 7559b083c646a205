"""A worker with a toy agent, for the engine's tests and benchmarks: a sum per key, and two outputs and an index row per record.

As a program it is a worker process: `python toy.py`. Its settings come from the environment (`RATER_…`).
"""

import logging
import os
import sys
from collections.abc import AsyncIterable, Sequence
from typing import Any

import msgspec

from rater.bootstrap import engine_settings
from rater.engine.api import Record, Sink, State
from rater.engine.app import EngineApp
from rater.engine.batches import Batch, BatchChannel
from rater.engine.groups import TaskGroup
from rater.engine.run import run_worker
from rater.settings import Settings

MS_PER_DAY = 86_400_000


class Call(msgspec.Struct):
    id: str
    amount: int


class Account(msgspec.Struct):
    total: int = 0
    records: int = 0
    offset: int = -1


class Sums:
    """Adds up `amount` by key. A repeated id is ignored. A value that is not JSON makes it raise."""

    def __init__(self, prefix: str, partition: int, state: State, sink: Sink) -> None:
        self._state = state
        self._sink = sink
        self._accounts: dict[bytes, Account] = {}
        self._commands = f"{prefix}commands"
        self._rated = f"{prefix}rated"
        self._states = f"{prefix}states"
        self.partition = partition

    async def process(self, records: Sequence[Record]) -> None:
        decode = msgspec.json.Decoder(Call).decode
        encode = msgspec.json.Encoder().encode
        emit, append = self._sink.emit, self._state.append
        touched: dict[bytes, Account] = {}
        calls = [decode(record.value or b"") for record in records]
        ids = [b"d" + call.id.encode() for call in calls]
        seen = self._state.get_many(ids)
        batch_ids: set[bytes] = set()
        for record, call, call_id, known in zip(records, calls, ids, seen, strict=True):
            if known is not None or call_id in batch_ids:
                continue
            batch_ids.add(call_id)
            key = record.key or b""
            account = touched.get(key) or self._account(key)
            touched[key] = account
            account.total += call.amount
            account.records += 1
            account.offset = record.offset
            append(record.timestamp // MS_PER_DAY, call_id, b"1")
            rated = encode({"id": call.id, "total": account.total, "n": account.records, "pad": _PAD})
            emit(self._rated, key, rated, record.timestamp)
            if record.topic != self._commands:
                emit(self._states, key, rated[:250], record.timestamp)
        for key, account in touched.items():
            self._state.put(b"a" + key, encode(account))

    def _account(self, key: bytes) -> Account:
        account = self._accounts.get(key)
        if account is None:
            row = self._state.get(b"a" + key)
            account = Account() if row is None else msgspec.json.decode(row, type=Account)
            self._accounts[key] = account
        return account


_PAD = "x" * 330


def group(prefix: str) -> TaskGroup:
    return TaskGroup(
        name="sums",
        topics=(f"{prefix}commands", f"{prefix}calls"),
        changelog=f"{prefix}changelog",
        outputs=(f"{prefix}rated", f"{prefix}states"),
        memory=lambda partition, state, sink: Sums(prefix, partition, state, sink),
    )


def toy_app(settings: Settings) -> EngineApp:
    app = EngineApp(engine_settings(settings))
    define_sums(app, app.batches(group(settings.topic_prefix)))
    return app


def define_sums(app: Any, batches: BatchChannel) -> None:
    """Add the agent to the app."""

    @app.agent(batches, name="sums")  # type: ignore[untyped-decorator]
    async def sums(stream: AsyncIterable[Batch]) -> None:
        """Adds up amounts."""
        async for batch in stream:
            async with batch as transaction:
                await transaction.memory.process(transaction.records)


if __name__ == "__main__":
    logging.basicConfig(level=os.environ.get("LEVEL", "INFO"), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("aiokafka").setLevel("WARNING")
    sys.exit(run_worker(lambda: [toy_app(Settings())]))
