"""Publishes an operator's commands and waits for their outcomes.

A command ends in one of these ways:

- An event with its id: `done`, or `command.refused`.
- A dead letter that names its partition and offset: refused too.
- Neither, although the workers have committed an offset past it: its id was used before, so it is `repeated`. A worker commits
  outputs and offset in one transaction, so once everything written up to then is read, no answer can follow.
- Neither within the timeout: `pending`. It stays published and takes effect when a worker reaches it.

A command repeated under its id must have the same bytes, or it is a conflicting duplicate.
"""

import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from rater.accounts.outcomes import CommandOutcome, outcome_of_event, outcome_of_letter
from rater.domain.command_records import CommandFields, operator_command_id
from rater.kafka.clients import producer, require_topics
from rater.kafka.connection import Brokers, client_options
from rater.kafka.partitioning import partition_of
from rater.kafka.topics import Topics

_POLL_MS = 200
_COMMITTED_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """Where the last published command stands in its partition. `committed_offset`: how far the workers have committed there,
    None if they never have."""

    partition: int
    last_offset: int
    committed_offset: int | None

    @property
    def commands_ahead(self) -> int | None:
        """How many commands the workers have still to read, including the last one. None if they have never read any."""
        return None if self.committed_offset is None else self.last_offset + 1 - self.committed_offset


def new_command_id() -> str:
    """A new, unique id for an operator's command, made of the time and a random part."""
    return operator_command_id(datetime.now(UTC), secrets.token_hex(6))


class Administration:
    """Carries out commands for one organization. `position` is set once they are published."""

    def __init__(self, brokers: Brokers, topics: Topics, app_id: str, org_id: str, timeout_s: float) -> None:
        """`app_id`: consumer group of the workers. `timeout_s`: stop waiting after so long without any new outcome."""
        self.position: QueuePosition | None = None
        self._brokers = brokers
        self._topics = topics
        self._app_id = app_id
        self._org_id = org_id
        self._timeout_s = timeout_s

    async def carry_out(
        self, commands: Sequence[CommandFields], on_outcome: Callable[[CommandOutcome], None]
    ) -> list[CommandOutcome]:
        """Publish commands and return all their outcomes. Calls `on_outcome` for each `done` or `refused` as it arrives.

        Raises TopicAdminError if a topic is missing, KafkaError if Kafka fails. After a KafkaError the commands may or may not
        be published; carrying them out again under the same ids is safe.
        """
        async with self._watching() as watch:
            self.position = QueuePosition(watch.partition, await self._publish(commands, watch.partition), None)
            waiting = {command["command_id"]: command for command in commands}
            outcomes = await self._wait(watch, waiting, on_outcome)
            if waiting and watch.settled:
                outcomes += await self._repeated(watch, waiting)
            else:
                outcomes += [CommandOutcome(command, "pending") for command in waiting.values()]
        return outcomes

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator["_OutcomeWatch"]:
        """Open a watch at the ends of the outputs. Publish only once it is open, or it may miss an outcome."""
        topics = self._topics
        committed = AIOKafkaConsumer(
            **client_options(self._brokers), isolation_level="read_committed", enable_auto_commit=False
        )
        written = AIOKafkaConsumer(**client_options(self._brokers))
        admin = AIOKafkaAdminClient(**client_options(self._brokers))
        try:
            await committed.start()
            await require_topics(committed._client, [topics.command, topics.event, topics.dead_letter])
            await written.start()
            await admin.start()
            partitions = len(await committed._client._wait_on_metadata(topics.command))
            partition = partition_of(self._org_id, partitions)
            watch = _OutcomeWatch(committed, written, admin, self._app_id, topics, partition)
            await watch.begin()
            yield watch
        finally:
            await admin.close()
            await written.stop()
            await committed.stop()

    async def _publish(self, commands: Sequence[CommandFields], partition: int) -> int:
        """Return the highest offset, once every command is acknowledged."""
        topic, key, offset = self._topics.command, self._org_id.encode(), -1
        async with producer(self._brokers) as out:
            sends = [await out.send(topic, msgspec.json.encode(each), key=key, partition=partition) for each in commands]
            await out.flush()
            for send in sends:
                offset = max(offset, (await send).offset)
        return offset

    async def _wait(
        self, watch: "_OutcomeWatch", waiting: dict[str, CommandFields], on_outcome: Callable[[CommandOutcome], None]
    ) -> list[CommandOutcome]:
        """Collect outcomes until all are known, no more can come, or the timeout passes. Removes them from `waiting`."""
        assert self.position is not None
        outcomes: list[CommandOutcome] = []
        deadline_s = time.monotonic() + self._timeout_s
        while waiting and time.monotonic() < deadline_s:
            for outcome in await watch.poll(waiting):
                del waiting[outcome.command["command_id"]]
                outcomes.append(outcome)
                on_outcome(outcome)
                deadline_s = time.monotonic() + self._timeout_s
            if await watch.check_settled(self.position.last_offset):
                break
        self.position = QueuePosition(self.position.partition, self.position.last_offset, watch.committed_offset)
        return outcomes

    async def _repeated(self, watch: "_OutcomeWatch", waiting: dict[str, CommandFields]) -> list[CommandOutcome]:
        """The first outcomes of repeated commands, as far as the event topic still has them."""
        earlier = await watch.earlier_events(set(waiting), self._timeout_s)
        outcomes = []
        for command_id, command in waiting.items():
            known = command_id in earlier
            first = outcome_of_event(command, earlier[command_id]) if known else CommandOutcome(command, "done")
            outcomes.append(CommandOutcome(command, "repeated", first.event, first.code, first.message))
        return outcomes


class _OutcomeWatch:
    """Follows the event and dead-letter partitions from just before publishing, and the workers' committed offset.

    `settled`: the workers are past the last command and all they wrote up to then is read, so no outcome can follow.
    """

    def __init__(
        self,
        committed: AIOKafkaConsumer,
        written: AIOKafkaConsumer,
        admin: AIOKafkaAdminClient,
        app_id: str,
        topics: Topics,
        partition: int,
    ) -> None:
        self.partition = partition
        self.settled = False
        self.committed_offset: int | None = None
        self._reader = committed
        self._written = written
        self._admin = admin
        self._app_id = app_id
        self._commands = TopicPartition(topics.command, partition)
        self._events = TopicPartition(topics.event, partition)
        self._outputs = [self._events, TopicPartition(topics.dead_letter, partition)]
        self._began_at = 0
        self._until: dict[TopicPartition, int] | None = None
        self._next_check_s = 0.0

    async def begin(self) -> None:
        """Go to the ends of the outputs."""
        self._reader.assign(self._outputs)
        ends = await self._reader.end_offsets(self._outputs)
        for tp, end in ends.items():
            self._reader.seek(tp, end)
        self._began_at = ends[self._events]

    async def poll(self, waiting: dict[str, CommandFields]) -> list[CommandOutcome]:
        """Outcomes that have arrived; for each command the first record counts."""
        found: dict[str, CommandOutcome] = {}
        for tp, records in (await self._reader.getmany(timeout_ms=_POLL_MS)).items():
            for record in records:
                if tp == self._events:
                    outcome = _outcome_in_event(record, waiting)
                else:
                    outcome = outcome_of_letter(record, self._commands.topic, waiting)
                if outcome is not None:
                    found.setdefault(outcome.command["command_id"], outcome)
        return list(found.values())

    async def check_settled(self, last_offset: int) -> bool:
        """Update `settled`, for a last command at `last_offset`. Asks for the committed offset every 0.5 s at most."""
        if self._until is None and time.monotonic() >= self._next_check_s:
            self._next_check_s = time.monotonic() + _COMMITTED_POLL_S
            self.committed_offset = await self._committed()
            if self.committed_offset is not None and self.committed_offset > last_offset:
                # Ends of all that is written, committed or not: the outputs committed with the offset lie before them.
                self._until = await self._written.end_offsets(self._outputs)
        if self._until is not None:
            self.settled = all([await self._reader.position(tp) >= end for tp, end in self._until.items()])
        return self.settled

    async def earlier_events(self, command_ids: set[str], timeout_s: float) -> dict[str, dict[str, Any]]:
        """The first event of each command from before publishing. Events not found in time are left out."""
        found: dict[str, dict[str, Any]] = {}
        deadline_s = time.monotonic() + timeout_s
        self._reader.assign([self._events])
        await self._reader.seek_to_beginning(self._events)
        while await self._reader.position(self._events) < self._began_at and time.monotonic() < deadline_s:
            for record in (await self._reader.getmany(self._events, timeout_ms=_POLL_MS)).get(self._events, ()):
                event = msgspec.json.decode(record.value)
                command_id = event["data"].get("command_id")
                if command_id in command_ids and event["org_id"].encode() == record.key:
                    found.setdefault(command_id, event)
            if len(found) == len(command_ids):
                break
        return found

    async def _committed(self) -> int | None:
        try:
            held = await self._admin.list_consumer_group_offsets(self._app_id, partitions=[self._commands])
        except GroupCoordinatorNotAvailableError:  # the group has never been used
            return None
        offset = held[self._commands].offset if self._commands in held else -1
        return None if offset < 0 else int(offset)


def _outcome_in_event(record: Any, waiting: dict[str, CommandFields]) -> CommandOutcome | None:
    event = msgspec.json.decode(record.value)
    command = waiting.get(event["data"].get("command_id"))
    return outcome_of_event(command, event) if command is not None and event["org_id"] == command["org_id"] else None
