"""An administrator's commands: published, and awaited until it is known what came of them.

A command ends in one of these ways
- its event: `done`, or `command.refused`;
- a dead letter that names its partition and offset: refused as well;
- nothing, although the worker's committed offset is past it: its command_id was used before, and it is `repeated`. Outputs and
  offset are committed in one transaction, so once all that was written by then can be read, nothing more will come;
- nothing within the time: `pending`. It stays published, and takes effect when a worker comes to it.

A command repeated under its id must be the same to the byte, else it is a conflicting duplicate: `issued_at` is made of the id.
"""

import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from rater.domain import reading
from rater.domain.dead_letters import reason_of
from rater.domain.rejection import Rejected
from rater.kafka.clients import producer, require_topics
from rater.kafka.connection import Brokers, client_options
from rater.kafka.partitioning import partition_of
from rater.kafka.topics import Topics

Command = dict[str, Any]
Result = Literal["done", "refused", "repeated", "pending"]

#: `issued_at` under an id of the user's own choice: it says no time, and must be the same at every repeat.
ISSUED_AT = "2025-01-01T00:00:00Z"
_OWN_ID = re.compile(r"\Acli-(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-")
_POLL_MS = 200
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a command. `event` is what it made happen, unless that is unknown or was refused."""

    command: Command
    result: Result
    event: dict[str, Any] | None = None
    code: str | None = None
    message: str | None = None

    @property
    def ok(self) -> bool:
        """Whether what was wanted holds: done now, or when the command was given before."""
        return self.result in ("done", "repeated") and self.code is None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command was published, and how far the workers have come there (None: none has ever been there)."""

    partition: int
    offset: int
    committed: int | None


def new_command_id() -> str:
    """An id nobody else makes, which says when it was made."""
    return f"cli-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(6)}"


def command(type_: str, org_id: str, command_id: str, **fields: Any) -> Command:
    """A whole command, checked; fields that are None are left out. Raises `Rejected` where the contract doesn't allow it."""
    said = {name: value for name, value in fields.items() if value is not None}
    made = {"command_id": command_id, "type": type_, "org_id": org_id, "issued_at": _issued_at(command_id), **said}
    _, payload = reading.read_envelope(msgspec.json.encode(made))
    reading.read_command(payload)
    return made


class Administration:
    """Commands for one organization, on one connection."""

    def __init__(self, brokers: Brokers, topics: Topics, app_id: str, org_id: str, timeout_s: float) -> None:
        """`timeout_s`: how long nothing may come of any command before waiting ends."""
        self.place: Place | None = None
        self._brokers = brokers
        self._topics = topics
        self._app_id = app_id
        self._org_id = org_id
        self._timeout_s = timeout_s

    async def carry_out(self, commands: Sequence[Command], tell: Callable[[Outcome], None]) -> list[Outcome]:
        """Publish commands and wait for what comes of each; `tell` hears of every outcome as it is known.

        Raises KafkaError; whether commands were published is unknown then, and giving them again under their ids is safe.
        """
        async with self._watching() as watch:
            self.place = Place(watch.partition, await self._publish(commands, watch.partition), None)
            waiting = {command["command_id"]: command for command in commands}
            outcomes = await self._wait(watch, waiting, tell)
            if waiting and watch.settled:
                outcomes += await self._repeated(watch, waiting)
            else:
                outcomes += [Outcome(command, "pending") for command in waiting.values()]
        return outcomes

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator["_Watch"]:
        """Readers that stand at the ends of the partition's outputs before anything is published."""
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
            watch = _Watch(committed, written, admin, self._app_id, topics, partition)
            await watch.begin()
            yield watch
        finally:
            await admin.close()
            await written.stop()
            await committed.stop()

    async def _publish(self, commands: Sequence[Command], partition: int) -> int:
        """Gives the offset of the last one, once all are acknowledged."""
        topic, key, offset = self._topics.command, self._org_id.encode(), -1
        async with producer(self._brokers) as out:
            sends = [await out.send(topic, msgspec.json.encode(each), key=key, partition=partition) for each in commands]
            await out.flush()
            for send in sends:
                offset = max(offset, (await send).offset)
        return offset

    async def _wait(self, watch: "_Watch", waiting: dict[str, Command], tell: Callable[[Outcome], None]) -> list[Outcome]:
        """Outcomes until all are there, or nothing more can come, or nothing came for too long. Empties `waiting`."""
        assert self.place is not None
        outcomes: list[Outcome] = []
        deadline_s = time.monotonic() + self._timeout_s
        while waiting and time.monotonic() < deadline_s:
            for outcome in await watch.poll(waiting):
                del waiting[outcome.command["command_id"]]
                outcomes.append(outcome)
                tell(outcome)
                deadline_s = time.monotonic() + self._timeout_s
            if await watch.look_whether_settled(self.place.offset):
                break
        self.place = Place(self.place.partition, self.place.offset, watch.committed_offset)
        return outcomes

    async def _repeated(self, watch: "_Watch", waiting: dict[str, Command]) -> list[Outcome]:
        """What came of commands when they were given the first time, as far as the event topic still has it."""
        earlier = await watch.earlier_events(set(waiting), self._timeout_s)
        outcomes = []
        for command_id, given in waiting.items():
            outcome = _outcome_of(given, earlier[command_id]) if command_id in earlier else Outcome(given, "done")
            outcomes.append(Outcome(given, "repeated", outcome.event, outcome.code, outcome.message))
        return outcomes


class _Watch:
    """The event and dead-letter partitions from the moment before publishing, and the workers' committed offset."""

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
        self._look_at_s = 0.0

    async def begin(self) -> None:
        self._reader.assign(self._outputs)
        ends = await self._reader.end_offsets(self._outputs)
        for tp, end in ends.items():
            self._reader.seek(tp, end)
        self._began_at = ends[self._events]

    async def poll(self, waiting: dict[str, Command]) -> list[Outcome]:
        """The outcomes that have come in: of each command the first thing that says so."""
        found: dict[str, Outcome] = {}
        for tp, records in (await self._reader.getmany(timeout_ms=_POLL_MS)).items():
            for record in records:
                outcome = self._of_event(record, waiting) if tp == self._events else self._of_letter(record, waiting)
                if outcome is not None:
                    found.setdefault(outcome.command["command_id"], outcome)
        return list(found.values())

    async def look_whether_settled(self, last_offset: int) -> bool:
        """Whether nothing more can come: the workers are past the last command, and all they had written is read."""
        if self._until is None and time.monotonic() >= self._look_at_s:
            self._look_at_s = time.monotonic() + _LOOK_EVERY_S
            self.committed_offset = await self._committed()
            if self.committed_offset is not None and self.committed_offset > last_offset:
                # Ends of what is written, committed or not: what was committed with the offset is before them.
                self._until = await self._written.end_offsets(self._outputs)
        if self._until is not None:
            self.settled = all([await self._reader.position(tp) >= end for tp, end in self._until.items()])
        return self.settled

    async def earlier_events(self, command_ids: set[str], timeout_s: float) -> dict[str, dict[str, Any]]:
        """The first event of each command among those from before publishing. What isn't found in time is left out."""
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
        except GroupCoordinatorNotAvailableError:  # no group has ever been here
            return None
        offset = held[self._commands].offset if self._commands in held else -1
        return None if offset < 0 else int(offset)

    def _of_event(self, record: Any, waiting: dict[str, Command]) -> Outcome | None:
        event = msgspec.json.decode(record.value)
        given = waiting.get(event["data"].get("command_id"))
        return _outcome_of(given, event) if given is not None and event["org_id"] == given["org_id"] else None

    def _of_letter(self, record: Any, waiting: dict[str, Command]) -> Outcome | None:
        reason = reason_of(record.headers)
        if reason.topic != self._commands.topic:
            return None
        try:
            envelope, _ = reading.read_envelope(record.value)
        except Rejected:
            return None
        given = waiting.get(envelope.command_id)
        if given is None or msgspec.json.encode(given) != record.value:
            return None
        return Outcome(given, "refused", None, reason.code, reason.message)


def _outcome_of(given: Command, event: dict[str, Any]) -> Outcome:
    if event["type"] == "command.refused":
        return Outcome(given, "refused", None, event["data"]["code"], event["data"]["message"])
    return Outcome(given, "done", event)


def _issued_at(command_id: str) -> str:
    made = _OWN_ID.match(command_id)
    if made is None:
        return ISSUED_AT
    year, month, day, hour, minute, second = made.groups()
    return f"{year}-{month}-{day}T{hour}:{minute}:{second}Z"
