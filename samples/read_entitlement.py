"""What an organization may use now, kept as a switch would keep it: from the compacted state topic, whole and up to date.

    python samples/read_entitlement.py --bootstrap 127.0.0.1:9092

prints a line an organization once everything has been read, then one whenever what is allowed changes. It needs `aiokafka`
alone and nothing of the rater: copy it and make it yours.
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
    """What the state record of an organization allows."""

    status: str
    toll_free_inbound: bool
    credit_calls: bool


class Entitlements:
    """All organizations in memory: a look-up at call set-up never waits for Kafka."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.by_org: dict[str, Entitlement] = {}
        self._consumer = consumer

    async def read_whole(self) -> None:
        """Return when everything that was in the topic has been read. Answer no call before that."""
        ends = await self._consumer.end_offsets(list(self._consumer.assignment()))
        while any([await self._consumer.position(tp) < end for tp, end in ends.items()]):
            await self._poll()

    async def changes(self) -> AsyncIterator[str]:
        """The id of each organization that is allowed something else than before, as it happens."""
        while True:
            for org_id in await self._poll():
                yield org_id

    async def _poll(self) -> list[str]:
        changed = []
        for records in (await self._consumer.getmany(timeout_ms=500)).values():
            for record in records:
                org_id = record.key.decode()
                before = self.by_org.pop(org_id, None)
                if record.value is not None:  # without a value the organization is gone
                    self.by_org[org_id] = read_state(record.value)
                if self.by_org.get(org_id) != before:
                    changed.append(org_id)
        return changed


def read_state(value: bytes) -> Entitlement:
    """A state record; fields that are not needed here are passed over, so are those of later versions."""
    state = json.loads(value)
    services = state["services"]
    return Entitlement(state["status"], services["toll_free_inbound"], services["credit_calls"])


@contextlib.asynccontextmanager
async def reading(bootstrap: str, topic: str = TOPIC) -> AsyncIterator[Entitlements]:
    """All partitions from their beginnings. No consumer group: every switch needs all of it, at every start anew."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    await consumer.start()
    try:
        yield Entitlements(consumer)
    finally:
        await consumer.stop()


async def main() -> None:
    """Print what is allowed, and follow it until interrupted."""
    parser = argparse.ArgumentParser(description="Show what each organization may use now.")
    parser.add_argument("--bootstrap", default="127.0.0.1:9092", help="Kafka brokers, host:port, comma separated.")
    parser.add_argument("--topic", default=TOPIC, help="With the prefix, where there is one.")
    arguments = parser.parse_args()
    async with reading(arguments.bootstrap, arguments.topic) as entitlements:
        await entitlements.read_whole()
        for org_id in sorted(entitlements.by_org):
            show(org_id, entitlements.by_org[org_id])
        async for org_id in entitlements.changes():
            show(org_id, entitlements.by_org.get(org_id))


def show(org_id: str, allowed: Entitlement | None) -> None:
    """One line, at once."""
    print(org_id, "gone" if allowed is None else " ".join(f"{k}={v}" for k, v in allowed._asdict().items()), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
