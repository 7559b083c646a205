"""Shows what each organization may use now, as a switch would keep it in memory: read whole from the compacted state topic.

    python samples/read_entitlement.py --bootstrap 127.0.0.1:9092

Prints a line for each organization once everything has been read, then a line whenever something changes. It needs only
`aiokafka` and nothing of the rater: copy it and adapt it.
"""

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer

TOPIC = "credits.account.state.v1"


class Entitlement(NamedTuple):
    """What an organization's state record allows."""

    status: str
    toll_free_inbound: bool
    credit_calls: bool


class Entitlements:
    """All organizations in memory, so that a look-up at call set-up never waits for Kafka."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.by_org: dict[str, Entitlement] = {}
        self._consumer = consumer

    async def read_whole(self) -> None:
        """Read all that is in the topic now. Don't answer calls before this returns."""
        ends = await self._consumer.end_offsets(list(self._consumer.assignment()))
        while any([await self._consumer.position(tp) < end for tp, end in ends.items()]):
            await self._poll()

    async def changes(self) -> AsyncIterator[str]:
        """Yield the id of each organization whose entitlement changes, as it happens."""
        while True:
            for org_id in await self._poll():
                yield org_id

    async def _poll(self) -> list[str]:
        changed = []
        for records in (await self._consumer.getmany(timeout_ms=500)).values():
            for record in records:
                org_id = record.key.decode()
                before = self.by_org.pop(org_id, None)
                if record.value is not None:  # no value: the organization was removed
                    self.by_org[org_id] = read_state(record.value)
                if self.by_org.get(org_id) != before:
                    changed.append(org_id)
        return changed


def read_state(value: bytes) -> Entitlement:
    """Read a state record. Ignores fields it doesn't need, including those of later versions."""
    state = json.loads(value)
    services = state["services"]
    return Entitlement(state["status"], services["toll_free_inbound"], services["credit_calls"])


@contextlib.asynccontextmanager
async def reading(bootstrap: str, topic: str = TOPIC) -> AsyncIterator[Entitlements]:
    """Read all partitions from the beginning. Without a consumer group: each switch needs everything, at every start."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    await consumer.start()
    try:
        yield Entitlements(consumer)
    finally:
        await consumer.stop()


async def main() -> None:
    """Print what is allowed, then each change, until interrupted."""
    parser = argparse.ArgumentParser(description="Show what each organization may use now.")
    parser.add_argument("--bootstrap", default="127.0.0.1:9092", help="Kafka brokers, as host:port, separated by commas.")
    parser.add_argument("--topic", default=TOPIC, help="Topic, including its prefix if it has one.")
    arguments = parser.parse_args()
    async with reading(arguments.bootstrap, arguments.topic) as entitlements:
        await entitlements.read_whole()
        for org_id in sorted(entitlements.by_org):
            show(org_id, entitlements.by_org[org_id])
        async for org_id in entitlements.changes():
            show(org_id, entitlements.by_org.get(org_id))


def show(org_id: str, allowed: Entitlement | None) -> None:
    """Print one line, unbuffered."""
    print(org_id, "gone" if allowed is None else " ".join(f"{k}={v}" for k, v in allowed._asdict().items()), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
