"""A fake Faust agent for tests without an app: it processes every batch at once, each in its own asyncio task."""

import asyncio
from typing import Any

from rater.engine.batches import Batch, Tick


class InlineAgent:
    """Implements `Batches`. The memory must have `process(records)`, and `tick(now_ms)` if it has due work."""

    def __init__(self) -> None:
        self._handling: set[asyncio.Task[None]] = set()

    async def put(self, value: Any) -> None:
        handling = asyncio.create_task(self._handle(value))
        self._handling.add(handling)
        handling.add_done_callback(self._handling.discard)

    async def _handle(self, batch: Batch) -> None:
        async with batch as transaction:
            if isinstance(batch, Tick):
                await transaction.memory.tick(batch.now_ms)
            else:
                await transaction.memory.process(transaction.records)
