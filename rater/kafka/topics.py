"""The definitions of the topics: names, partitions and settings, from `topics/topics.toml`.

The attributes of what `load_topics` returns are the physical names, prefix included, for producers, consumers and tests.
`topic_admin` creates the topics on a cluster and compares them.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from rater.resources import topics_file

_DAY_MS = 24 * 60 * 60 * 1000
_AGE = re.compile(r"([1-9][0-9]{0,4})d")
_PREFIX = re.compile(r"[A-Za-z0-9._-]{0,100}")
_AHEAD_MS_MAX = 60 * 60 * 1000
_COMPACTED_SEGMENT_BYTES = 128 * 1024 * 1024


class TopicDefinitionError(Exception):
    """The prefix or the definition file is not valid; the message says what is wrong."""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic. `name`: physical, prefix included. `kept`: days ("7d"), "forever" or "compacted". `schema`: a file in
    schemas/, None for an internal topic."""

    name: str
    description: str
    key: str
    partitions: int
    kept: str
    written_by: str
    owner: str
    schema: str | None
    max_message_bytes: int

    @property
    def configs(self) -> dict[str, str]:
        """The topic's settings in Kafka, by Kafka's own names."""
        configs = {"max.message.bytes": str(self.max_message_bytes)}
        if self.kept == "compacted":
            configs["cleanup.policy"] = "compact"
            # Kafka compacts only full segments, so their size bounds the stale records that a full read must pass.
            configs["segment.bytes"] = str(_COMPACTED_SEGMENT_BYTES)
            # A reader that stops for less than this still sees which keys were removed.
            configs["delete.retention.ms"] = str(_DAY_MS)
        else:
            configs["cleanup.policy"] = "delete"
            configs["retention.ms"] = str(_retention_ms(self.kept))
        if self.written_by == "rater":
            # An output has the timestamp of its input, which a broker has already accepted. Another broker, whose clock is
            # behind, must not refuse the output: that would stop the partition.
            configs["message.timestamp.after.max.ms"] = str(2**63 - 1)
        else:
            # The rater takes a record's timestamp as the current time. A timestamp in the far future would make the
            # partition forget calls it must still recognise.
            configs["message.timestamp.after.max.ms"] = str(_AHEAD_MS_MAX)
        return configs


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Physical names by purpose. `definitions` holds the rest; `topics[name]` is the definition of a physical name, and
    raises KeyError if there is none."""

    cdr: str
    dead_letter: str
    rated: str
    command: str
    event: str
    state: str
    ledger: str
    recharge_request: str
    notification: str
    directory: str
    plan: str
    rate: str
    changelog: str
    recharge_changelog: str
    timer_changelog: str
    notification_changelog: str
    account_partitions: int
    definitions: tuple[Topic, ...]

    def __getitem__(self, physical_name: str) -> Topic:
        for topic in self.definitions:
            if topic.name == physical_name:
                return topic
        raise KeyError(physical_name)


class _Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    partitions: int


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    description: str
    key: str
    group: Literal["account", "catalog"]
    kept: str
    written_by: str
    owner: str
    max_message_bytes: int
    schema: str | None = None
    internal: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    groups: dict[str, _Group]
    topics: dict[str, _Entry]


def load_topics(prefix: str = "", account_partitions: int | None = None, file: Path | None = None) -> Topics:
    """Read the definitions. `account_partitions` overrides the partition count that all account topics share.

    Raises TopicDefinitionError if the prefix or the file is not valid.
    """
    if not _PREFIX.fullmatch(prefix):
        raise TopicDefinitionError(f"topic prefix {prefix!r}: only letters, digits, '.', '_' and '-', at most 100 of them")
    path = file or topics_file()
    try:
        content = msgspec.convert(tomllib.loads(path.read_text()), _File)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise TopicDefinitionError(f"{path}: {error}") from error
    partitions = {name: group.partitions for name, group in content.groups.items()}
    if account_partitions is not None:
        partitions["account"] = account_partitions
    for name, count in partitions.items():
        if count < 1:
            raise TopicDefinitionError(f"{path}: group {name} needs at least 1 partition, not {count}")
    definitions = {use: _topic(use, entry, prefix, partitions, path) for use, entry in content.topics.items()}
    try:
        return Topics(
            account_partitions=partitions["account"],
            definitions=tuple(definitions.values()),
            **{use: topic.name for use, topic in definitions.items()},
        )
    except TypeError as error:
        raise TopicDefinitionError(f"{path}: {error}") from error


def _topic(use: str, entry: _Entry, prefix: str, partitions: dict[str, int], path: Path) -> Topic:
    if entry.internal == (entry.schema is not None):
        raise TopicDefinitionError(f"{path}: topic {use} must be internal or have a schema, and not both")
    if entry.group not in partitions:
        raise TopicDefinitionError(f"{path}: topic {use} is of group {entry.group}, which is not defined")
    topic = Topic(
        name=prefix + entry.name,
        description=entry.description,
        key=entry.key,
        partitions=partitions[entry.group],
        kept=entry.kept,
        written_by=entry.written_by,
        owner=entry.owner,
        schema=entry.schema,
        max_message_bytes=entry.max_message_bytes,
    )
    if topic.kept != "compacted" and _retention_ms(topic.kept) is None:
        raise TopicDefinitionError(f"{path}: topic {use} is kept {topic.kept!r}: neither days ('7d'), forever nor compacted")
    return topic


def _retention_ms(kept: str) -> int | None:
    if kept == "forever":
        return -1
    days = _AGE.fullmatch(kept)
    return int(days[1]) * _DAY_MS if days else None
