"""Three brokers that can be killed, restarted and stripped of their leaderships, one at a time.

Every topic has three replicas, at least two of them in sync. So one broker may be away, but never two: each fault begins only
when all replicas are in sync.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.admin import AlterPartitionReassignmentsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int8, Int16, Int32, Schema, String

from rater.embedded import EmbeddedKafka

__all__ = ["Brokers"]

BROKERS = 3
_HEAP_MB = 256
_START_TIMEOUT_S = 90.0
_IN_SYNC_TIMEOUT_S = 90.0
_REQUEST_TIMEOUT_MS = 20_000
_POLL_S = 0.2
_PREFERRED = 0
_ELECTION_NOT_NEEDED = 84


class Brokers:
    """An embedded cluster of three nodes. Its bootstrap address never changes."""

    def __init__(self, directory: Path) -> None:
        # The tests need shorter sessions than brokers allow by default.
        properties = {"group.min.session.timeout.ms": "1000", "auto.leader.rebalance.enable": "false"}
        self._kafka = EmbeddedKafka(
            directory, BROKERS, heap_mb=_HEAP_MB, properties=properties, start_timeout_s=_START_TIMEOUT_S
        )

    @property
    def bootstrap(self) -> str:
        return self._kafka.bootstrap

    async def start(self) -> None:
        await asyncio.to_thread(self._kafka.start)

    async def close(self) -> None:
        await asyncio.to_thread(self._kafka.stop)

    async def kill(self, number: int, for_s: float) -> None:
        """Send SIGKILL; restart after `for_s`."""
        await self._without(number, for_s, self._kafka.nodes[number].kill)

    async def bounce(self, number: int, for_s: float) -> None:
        """Stop it cleanly, which hands over its leaderships; restart after `for_s`."""
        await self._without(number, for_s, self._kafka.nodes[number].stop)

    async def move_leaders(self, seed: int) -> int:
        """Give every partition another leader, those of the coordinators included. Returns how many moved."""
        await self.until_in_sync()
        draw = random.Random(seed)
        async with self._admin() as admin:
            wanted: dict[str, list[tuple[int, list[int], dict[int, bytes]]]] = {}
            for topic in await admin.describe_topics():
                for partition in topic["partitions"]:
                    others = [replica for replica in partition["replicas"] if replica != partition["leader"]]
                    draw.shuffle(others)
                    moved: Any = (partition["partition"], [*others, partition["leader"]], {})
                    wanted.setdefault(topic["topic"], []).append(moved)
            # The first replica is the preferred leader: put another one first, then elect the preferred leaders.
            topics: Any = [(topic, partitions, {}) for topic, partitions in wanted.items()]
            reassigned: Any = await admin._send_request(AlterPartitionReassignmentsRequest(_REQUEST_TIMEOUT_MS, topics, {}))
            _check(reassigned.error_code)
            elect = [(topic, [number for number, _, _ in partitions]) for topic, partitions in wanted.items()]
            elected: Any = await admin._send_request(ElectLeadersRequest(_PREFERRED, elect, _REQUEST_TIMEOUT_MS))
            _check(elected.error_code)
            return sum(not code for _, partitions in elected.results for _, code, _ in partitions)

    async def until_in_sync(self) -> None:
        """Wait until all replicas of all partitions are in sync."""
        async with asyncio.timeout(_IN_SYNC_TIMEOUT_S):
            while not await self._in_sync():  # noqa: ASYNC110 - polling is the only way
                await asyncio.sleep(_POLL_S)

    async def _without(self, number: int, for_s: float, end: Callable[[], None]) -> None:
        await self.until_in_sync()
        node = self._kafka.nodes[number]
        await asyncio.to_thread(end)
        await asyncio.sleep(for_s)
        node.start()
        await asyncio.to_thread(node.wait_until_answering, _START_TIMEOUT_S)
        await self.until_in_sync()

    async def _in_sync(self) -> bool:
        try:
            async with self._admin() as admin:
                topics = await admin.describe_topics()
        except (KafkaError, OSError, TimeoutError):
            return False
        partitions = [partition for topic in topics for partition in topic["partitions"]]
        return all(
            partition["leader"] >= 0 and len(partition["isr"]) == len(partition["replicas"]) == BROKERS
            for partition in partitions
        )

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[Any]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=_REQUEST_TIMEOUT_MS)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()


class ElectLeadersResponse_v1(Response):  # type: ignore[misc]  # noqa: N801 - as aiokafka names versions
    API_KEY = 43
    API_VERSION = 1
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "results",
            Array(
                ("topic", String("utf-8")),
                ("partitions", Array(("partition_id", Int32), ("error_code", Int16), ("error_message", String("utf-8")))),
            ),
        ),
    )


class ElectLeadersRequest_v1(RequestStruct):  # type: ignore[misc]  # noqa: N801
    API_KEY = 43
    API_VERSION = 1
    RESPONSE_TYPE = ElectLeadersResponse_v1
    SCHEMA = Schema(
        ("election_type", Int8),
        ("topic_partitions", Array(("topic", String("utf-8")), ("partitions", Array(Int32)))),
        ("timeout_ms", Int32),
    )


class ElectLeadersRequest(Request[ElectLeadersRequest_v1]):  # type: ignore[misc]
    """Kafka's ElectLeaders, which aiokafka doesn't have."""

    API_KEY = 43

    def __init__(self, election_type: int, topics: list[tuple[str, list[int]]], timeout_ms: int) -> None:
        self._fields = (election_type, topics, timeout_ms)

    def build(self, request_struct_class: type[ElectLeadersRequest_v1]) -> ElectLeadersRequest_v1:
        return request_struct_class(*self._fields)


def _check(code: int) -> None:
    if code and code != _ELECTION_NOT_NEEDED:
        raise for_code(code)
