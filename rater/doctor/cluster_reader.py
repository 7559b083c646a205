"""Reads the state of a Kafka cluster without changing anything.

Some ordinary requests do change something, so they are avoided: asking for a topic must not create it, consumers read without a
group, and the coordinator is requested only for groups known to exist, because Kafka creates its offsets topic when anyone asks
for a coordinator. Each request times out after a few seconds.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.admin import DescribeConfigsRequest, ListGroupsRequest
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from rater.doctor import protocol
from rater.doctor.cluster_views import BrokerView, ClusterView, GroupView, LastBatch, PartitionView, TopicView
from rater.kafka.connection import client_options, let_go
from rater.kafka.header_names import read_any_header_name
from rater.settings import Settings

__all__ = ["ClusterReader", "UnreachableError", "connected"]

CONNECT_S = 6.0
_ANSWER_MS = 4000
_OFFSETS_TOPIC = "__consumer_offsets"
_NOT_ALLOWED = 29
_POLL_MS = 200
_FETCH_BYTES = 64 * 1024
_READ_COMMITTED = 1

read_any_header_name()


class UnreachableError(Exception):
    """No broker answers at the configured address."""


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator["ClusterReader"]:
    """Connect for the duration of the block. Raises UnreachableError within seconds if no broker answers."""
    client = AIOKafkaClient(**client_options(settings.brokers), request_timeout_ms=_ANSWER_MS)
    with _recorded_errors() as errors:
        try:
            try:
                async with asyncio.timeout(CONNECT_S):
                    await client.bootstrap()
            except (KafkaError, OSError, TimeoutError, ValueError) as error:
                why = f" ({errors[-1]})" if errors else ""
                raise UnreachableError(f"no broker answers at {settings.bootstrap}{why}") from error
            yield ClusterReader(settings, client)
        finally:
            await let_go(client.close())


class ClusterReader:
    """Read-only requests to a cluster. All raise KafkaError or TimeoutError if there is no answer."""

    def __init__(self, settings: Settings, client: Any) -> None:
        self._settings = settings
        self._client = client
        self._answering: Any = None

    async def view(self, topics: Collection[str]) -> ClusterView:
        """The brokers, and these topics."""
        answer = await self._ask(protocol.metadata(list(topics)))
        return ClusterView(
            brokers={node_id: f"{host}:{port}" for node_id, host, port, _ in answer.brokers},
            controller=answer.controller_id,
            topics={
                name: TopicView(
                    error,
                    may,
                    tuple(
                        PartitionView(number, leader, tuple(replicas), tuple(in_sync))
                        for _, number, leader, _, replicas, in_sync, _ in sorted(partitions, key=lambda p: int(p[1]))
                    ),
                )
                for error, name, _, partitions, may in answer.topics
            },
            may=answer.authorized_operations,
        )

    async def node(self, node_id: int) -> BrokerView:
        """The versions a broker supports."""
        answer = await self._ask(protocol.api_versions(), node_id)
        supported, in_use = protocol.features_of(answer)
        apis = {key: (low, high) for key, low, high, _ in answer.api_versions}
        return BrokerView(apis, supported.get("metadata.version"), in_use.get("metadata.version"))

    async def topic_configs(self, topics: Collection[str]) -> dict[str, dict[str, str]]:
        """Topic → its settings. Topics whose settings this user may not see are omitted."""
        found = await self._configs(ConfigResourceType.TOPIC, list(topics), None) if topics else {}
        return {name: configs for name, (error, configs) in found.items() if error == 0}

    async def broker_configs(self, view: ClusterView) -> dict[str, str] | None:
        """The settings of the first broker that answers; None if this user may not see them."""
        last: Exception = TimeoutError("no broker answers")
        for node_id in view.brokers:
            try:
                error, configs = (await self._configs(ConfigResourceType.BROKER, [str(node_id)], node_id))[str(node_id)]
            except (KafkaError, TimeoutError, OSError) as failure:
                last = failure
            else:
                return None if error else configs
        raise last

    async def groups(self, view: ClusterView) -> set[str]:
        """The consumer groups that exist and that this user may see."""
        answers = await asyncio.gather(*(self._ask(ListGroupsRequest(), node_id) for node_id in view.brokers))
        return {group for answer in answers for group, _ in answer.groups}

    async def sees_all_groups(self) -> bool:
        """Whether `groups` returns all groups, as it does for users who may see the topic of their offsets."""
        return (await self.view([_OFFSETS_TOPIC])).topics[_OFFSETS_TOPIC].error != _NOT_ALLOWED

    async def group(self, group_id: str, partitions: Collection[TopicPartition]) -> GroupView:
        """The members of an existing group, and the offsets it has committed for these partitions."""
        coordinator = await self._ask(FindCoordinatorRequest(group_id, 0))
        _raise(coordinator.error_code)
        described = (await self._ask(protocol.describe_groups([group_id]), coordinator.coordinator_id)).groups[0]
        error, _, state, _, _, members, may = described
        _raise(error)
        by_topic: dict[str, list[int]] = {}
        for tp in partitions:
            by_topic.setdefault(tp.topic, []).append(tp.partition)
        fetched = await self._ask(OffsetFetchRequest(group_id, list(by_topic.items())), coordinator.coordinator_id)
        _raise(getattr(fetched, "error_code", 0))
        committed = {}
        for topic, offsets in fetched.topics:
            for number, offset, _, code in offsets:
                _raise(code)
                if offset >= 0:
                    committed[TopicPartition(topic, number)] = offset
        owned = [tp for member in members if member[5] for tp in _assignment(member[5])]
        static = sum(1 for member in members if member[1])
        return GroupView(state, len(members), static, frozenset(owned), committed, may)

    async def bounds(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Partition → its first offset and its last stable offset."""
        if not partitions:
            return {}
        async with self._consumer() as consumer:
            first = await consumer.beginning_offsets(list(partitions))
            last = await consumer.end_offsets(list(partitions))
        return {tp: (first[tp], last[tp]) for tp in partitions}

    async def offsets_since(self, partitions: Collection[TopicPartition], since_ms: int) -> dict[TopicPartition, int]:
        """Partition → the offset of its first record at `since_ms` or later. Partitions without one are omitted."""
        if not partitions:
            return {}
        async with self._consumer() as consumer:
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
        return {tp: held.offset for tp, held in found.items() if held is not None}

    async def read(self, spans: Mapping[TopicPartition, tuple[int, int]], take: Callable[[Any], None], within_s: float) -> bool:
        """Pass each partition's committed records between two offsets to `take`. Returns False if time ran out first."""

        def take_all(_: TopicPartition, records: list[Any]) -> bool:
            for record in records:
                take(record)
            return False

        return not await self._scan(spans, take_all, within_s)

    async def oldest(
        self, spans: Mapping[TopicPartition, tuple[int, int]], within_s: float
    ) -> dict[TopicPartition, int | None]:
        """The timestamp in ms of the first committed record between two offsets of each partition.

        None if it could not be read in time. Partitions with only transaction markers there are omitted.
        """
        found: dict[TopicPartition, int | None] = {}

        def take_first(tp: TopicPartition, records: list[Any]) -> bool:
            found[tp] = records[0].timestamp
            return True

        unread = await self._scan(spans, take_first, within_s, max_partition_fetch_bytes=_FETCH_BYTES)
        return found | dict.fromkeys(unread)

    async def last_batch(self, leader: int, partition: TopicPartition, end: int) -> LastBatch | None:
        """The batch before offset `end`; None if it is gone. `leader`: the broker to ask."""
        topics = [(partition.topic, [(partition.partition, end - 1, _FETCH_BYTES)])]
        answer = await self._ask(FetchRequest(_POLL_MS, 1, _FETCH_BYTES, _READ_COMMITTED, topics), leader)
        error, records = answer.topics[0][1][0][1], answer.topics[0][1][0][-1]
        _raise(error)
        last = None
        batches = MemoryRecords(records)
        while batches.has_next():
            batch = batches.next_batch()
            last = LastBatch(batch.max_timestamp, batch.is_control_batch)
        return last

    async def _scan(
        self,
        spans: Mapping[TopicPartition, tuple[int, int]],
        take: Callable[[TopicPartition, list[Any]], bool],
        within_s: float,
        **options: Any,
    ) -> set[TopicPartition]:
        """Read each partition from its first to before its second offset; returns those not finished within `within_s`.

        `take` gets the records as they come and returns True if it needs no more from that partition.
        """
        left = {tp: end for tp, (start, end) in spans.items() if start < end}
        if not left:
            return set()
        deadline_s = _loop_time_s() + within_s
        async with self._consumer(**options) as consumer:
            consumer.assign(list(left))
            for tp in left:
                consumer.seek(tp, spans[tp][0])
            while left and _loop_time_s() < deadline_s:
                for tp, records in (await consumer.getmany(*left, timeout_ms=_POLL_MS)).items():
                    wanted = [record for record in records if record.offset < left[tp]]
                    if wanted and take(tp, wanted):
                        del left[tp]
                        consumer.pause(tp)
                left = {tp: end for tp, end in left.items() if await consumer.position(tp) < end}
        return set(left)

    async def _configs(self, kind: int, names: list[str], node_id: int | None) -> dict[str, tuple[int, dict[str, str]]]:
        request = DescribeConfigsRequest([(kind, name, None) for name in names], include_synonyms=False)
        answer = await self._ask(request, node_id)
        return {name: (error, {entry[0]: entry[1] for entry in entries}) for error, _, _, name, entries in answer.resources}

    async def _ask(self, request: Any, node_id: int | None = None) -> Any:
        """Send a request to that broker, or to any that answers."""
        if node_id is not None:
            return await self._send(node_id, request)
        last: Exception = TimeoutError("no broker answers")
        for node in sorted(self._nodes(), key=lambda node: node != self._answering):
            try:
                answer = await self._send(node, request)
            except (KafkaError, TimeoutError, OSError) as failure:
                last = failure
            else:
                self._answering = node
                return answer
        raise last

    async def _send(self, node: Any, request: Any) -> Any:
        async with asyncio.timeout(_ANSWER_MS / 1000):
            return await self._client.send(node, request)

    def _nodes(self) -> list[Any]:
        """The known brokers. Before there is any topic that may be only the bootstrap broker."""
        return [broker.nodeId for broker in self._client.cluster.brokers()] or [self._client.get_random_node()]

    @asynccontextmanager
    async def _consumer(self, **options: Any) -> AsyncIterator[Any]:
        consumer = AIOKafkaConsumer(
            **client_options(self._settings.brokers),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            request_timeout_ms=_ANSWER_MS,
            **options,
        )
        try:
            async with asyncio.timeout(CONNECT_S):
                await consumer.start()
            yield consumer
        finally:
            await let_go(consumer.stop())


class _ErrorRecorder(logging.Handler):
    """Records why a connection failed: aiokafka logs the reason, but the exception it raises doesn't have it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.args[-1] if isinstance(record.args, tuple) and record.args else record.getMessage()
        self.errors.append(str(cause) or type(cause).__name__)


@contextmanager
def _recorded_errors() -> Iterator[list[str]]:
    """Until the end of the block, aiokafka's errors go into this list instead of the log: they become findings."""
    log, recorder = logging.getLogger("aiokafka"), _ErrorRecorder()
    before = log.propagate
    log.addHandler(recorder)
    log.propagate = False
    try:
        yield recorder.errors
    finally:
        log.propagate = before
        log.removeHandler(recorder)


def _assignment(data: bytes) -> list[TopicPartition]:
    decoded = ConsumerProtocolMemberAssignment.decode(data)
    return [TopicPartition(topic, number) for topic, numbers in decoded.assignment for number in numbers]


def _raise(code: int) -> None:
    if code:
        raise for_code(code)


def _loop_time_s() -> float:
    return asyncio.get_running_loop().time()
