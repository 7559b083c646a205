"""What the doctor asks of Kafka. Only questions: nothing here changes anything there, not even by being asked.

So topics are asked about without being created, consumers read without a group, and a coordinator is looked for only of groups
that are known to be there: Kafka makes its offsets topic for the first who looks. Each answer takes a few seconds at most.
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
from rater.engine.broker import client_options, let_go
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
    """No broker answers at the address there is."""


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator["ClusterReader"]:
    """Raises UnreachableError within seconds where no broker answers."""
    client = AIOKafkaClient(**client_options(settings), request_timeout_ms=_ANSWER_MS)
    with _listening() as heard:
        try:
            try:
                async with asyncio.timeout(CONNECT_S):
                    await client.bootstrap()
            except (KafkaError, OSError, TimeoutError, ValueError) as error:
                why = f" ({heard[-1]})" if heard else ""
                raise UnreachableError(f"no broker answers at {settings.bootstrap}{why}") from error
            yield ClusterReader(settings, client)
        finally:
            await let_go(client.close())


class ClusterReader:
    """The cluster, to be asked. A question that is not answered raises KafkaError or TimeoutError."""

    def __init__(self, settings: Settings, client: Any) -> None:
        self._settings = settings
        self._client = client
        self._answering: Any = None

    async def view(self, topics: Collection[str]) -> ClusterView:
        """Brokers and these topics."""
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
        """What a broker speaks."""
        answer = await self._ask(protocol.api_versions(), node_id)
        supported, settled = protocol.features_of(answer)
        apis = {key: (low, high) for key, low, high, _ in answer.api_versions}
        return BrokerView(apis, supported.get("metadata.version"), settled.get("metadata.version"))

    async def topic_configs(self, topics: Collection[str]) -> dict[str, dict[str, str]]:
        """Kafka's settings of each topic; of one that may not be described there are none."""
        found = await self._configs(ConfigResourceType.TOPIC, list(topics), None) if topics else {}
        return {name: configs for name, (error, configs) in found.items() if error == 0}

    async def broker_configs(self, view: ClusterView) -> dict[str, str] | None:
        """The settings of the first broker that answers, or None where they may not be described."""
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
        """The consumer groups there are, of those that this user may see."""
        answers = await asyncio.gather(*(self._ask(ListGroupsRequest(), node_id) for node_id in view.brokers))
        return {group for answer in answers for group, _ in answer.groups}

    async def sees_all_groups(self) -> bool:
        """Whether a group that `groups` does not tell of is not there: whoever sees their offsets' topic sees all."""
        return (await self.view([_OFFSETS_TOPIC])).topics[_OFFSETS_TOPIC].error != _NOT_ALLOWED

    async def group(self, group_id: str, partitions: Collection[TopicPartition]) -> GroupView:
        """The members of a group that is there, and the offsets it has committed of these partitions."""
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
        """First offset and last stable offset of each."""
        if not partitions:
            return {}
        async with self._consumer() as consumer:
            first = await consumer.beginning_offsets(list(partitions))
            last = await consumer.end_offsets(list(partitions))
        return {tp: (first[tp], last[tp]) for tp in partitions}

    async def offsets_since(self, partitions: Collection[TopicPartition], since_ms: int) -> dict[TopicPartition, int]:
        """The first offset of each with a record of that time or later; one without such a record is left out."""
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
        """The batch before the offset `end`; None where there is none any more."""
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
        """Ask that broker, or any that answers."""
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
        """The brokers there are; before there is a topic, perhaps none but the one that was asked first."""
        return [broker.nodeId for broker in self._client.cluster.brokers()] or [self._client.get_random_node()]

    @asynccontextmanager
    async def _consumer(self, **options: Any) -> AsyncIterator[Any]:
        consumer = AIOKafkaConsumer(
            **client_options(self._settings),
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


class _Listener(logging.Handler):
    """What aiokafka says of a connection that fails: it logs it, and raises something that does not tell why."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.args[-1] if isinstance(record.args, tuple) and record.args else record.getMessage()
        self.heard.append(str(cause) or type(cause).__name__)


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Meanwhile aiokafka's errors go into the list, and nowhere else: there are findings to tell them."""
    log, listener = logging.getLogger("aiokafka"), _Listener()
    before = log.propagate
    log.addHandler(listener)
    log.propagate = False
    try:
        yield listener.heard
    finally:
        log.propagate = before
        log.removeHandler(listener)


def _assignment(data: bytes) -> list[TopicPartition]:
    decoded = ConsumerProtocolMemberAssignment.decode(data)
    return [TopicPartition(topic, number) for topic, numbers in decoded.assignment for number in numbers]


def _raise(code: int) -> None:
    if code:
        raise for_code(code)


def _loop_time_s() -> float:
    return asyncio.get_running_loop().time()
