"""Lag: how many records wait for each agent, how long the oldest has waited, and whether workers are there to process them.

Lag is judged by the timestamp of the oldest unprocessed record, because the number of records says little. Transaction markers
take up offsets but are not records: a partition with only markers left is up to date.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from rater.bootstrap import AGENTS, lacking
from rater.doctor.cluster_reader import ClusterReader
from rater.doctor.cluster_views import ClusterView, GroupView
from rater.doctor.findings import DoctorFinding, counted, fault, listed, note, ok, since, warning
from rater.domain.dead_letters import reason_of
from rater.kafka.topics import Topics
from rater.settings import Settings

_BEHIND_WARNING_MS = 5 * 60_000
_BEHIND_FAULT_MS = 60 * 60_000
_RETENTION_SHARE = 2  # a record may wait for half its retention time
_READ_S = 4.0
_DEAD_LETTERS_MS = 24 * 3_600_000
_DEAD_LETTERS_S = 5.0
_START = "rater worker"

#: Agent → the topics its consumer group reads, by their names in `Topics`.
INPUTS = {
    "rating": ("command", "cdr"),
    "timer": ("state",),
    "recharge": ("recharge_request",),
    "notification": ("notification",),
}


@dataclass(frozen=True, slots=True)
class PartitionBacklog:
    """The unprocessed records of a partition.

    `offsets`: how many at most. `oldest_ms`: timestamp of the first, None if not known. `lost`: how many retention deleted.
    """

    offsets: int
    oldest_ms: int | None
    lost: int = 0


@dataclass(frozen=True, slots=True)
class GroupLag:
    """An agent's group and its backlog.

    `is_set_up`: whether the agent can run with these settings. `unowned`: partitions that no worker has.
    """

    agent: str
    group: GroupView
    partitions: int
    is_set_up: bool
    waiting: Mapping[TopicPartition, PartitionBacklog] = field(default_factory=dict)
    unowned: frozenset[TopicPartition] = frozenset()


@dataclass(slots=True)
class DeadLetterCounts:
    """The dead letters of a day, counted by code; `others` can't be retried."""

    retryable: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def take(self, record: Any) -> None:
        """Count a record of the dead-letter topic."""
        reason = reason_of(record.headers)
        (self.retryable if reason.retryable else self.others)[reason.code] += 1


async def check(
    cluster: ClusterReader, settings: Settings, topics: Topics, view: ClusterView, now_ms: int
) -> list[DoctorFinding]:
    """Read each agent's group and the oldest record that waits for it, and the dead letters of the last day."""
    groups, sees_all = await cluster.groups(view), await cluster.sees_all_groups()
    not_set_up = lacking(settings, AGENTS)
    retention_ms = _retention_ms(await cluster.topic_configs(view.present()))
    findings: list[DoctorFinding] = []
    for agent, uses in INPUTS.items():
        names = [getattr(topics, use) for use in uses]
        if unreadable := view.unreadable(names):
            what = f"{agent}: lag is unknown because {listed(unreadable)} can't be read"
            findings.append(note("lag.unreadable", what, "see the areas topics and acl"))
            continue
        inputs, group_id = view.partitions(names), group_of(settings, agent)
        if group_id not in groups and not sees_all:
            what = f"{agent}: group {group_id} doesn't exist yet, or this user may not see it"
            findings.append(note("lag.unseen", what, "see the area acl"))
            continue
        try:
            group = await cluster.group(group_id, inputs) if group_id in groups else GroupView("Dead", committed={})
            lag = await _group_lag(cluster, agent, group, inputs, agent not in not_set_up)
        except (KafkaError, TimeoutError) as error:
            what = f"{agent}: reading group {group_id} failed: {type(error).__name__}"
            findings.append(warning("lag.unknown", what, "run it as a user with DESCRIBE on the group and READ on its topics"))
            continue
        findings += judge_lag(lag, retention_ms, now_ms)
    dead = [] if view.unreadable([topics.dead_letter]) else view.partitions([topics.dead_letter])
    return [*findings, *await _dead_letters(cluster, dead, now_ms)]


def group_of(settings: Settings, agent: str) -> str:
    """The consumer group of an agent."""
    return settings.app_id if agent == "rating" else f"{settings.app_id}-{agent}"


def judge_lag(lag: GroupLag, retention_ms: Mapping[str, int], now_ms: int) -> list[DoctorFinding]:
    """`retention_ms`: topic → how long it keeps records; topics without an entry keep them for ever."""
    group = lag.group
    findings = [*_retention(lag, retention_ms, now_ms)]
    oldest_ms = min((w.oldest_ms for w in lag.waiting.values() if w.oldest_ms is not None), default=None)
    if not group.members and lag.waiting:
        what = f"{lag.agent}: {_amount(lag, now_ms)}, but no worker is running"
        todo = (
            _START
            if lag.is_set_up
            else f"start rater worker with the {lag.agent} agent's settings (docs/how-to/find-what-is-wrong.md)"
        )
        findings.append(fault("lag.no_worker", what, todo) if lag.is_set_up else warning("lag.no_worker", what, todo))
    elif not group.members:
        if lag.is_set_up:
            findings.append(note("lag.idle", f"{lag.agent}: nothing waits, and no worker is running", _START))
    elif lag.unowned and group.state == "Stable":
        what = f"{lag.agent}: no worker has {listed([_name(tp) for tp in sorted(lag.unowned)])}"
        findings.append(fault("lag.unowned", what, "do all workers run the same version with the same RATER_PARTITIONS?"))
    elif oldest_ms is not None and now_ms - oldest_ms >= _BEHIND_WARNING_MS:
        what = f"{lag.agent}: {_amount(lag, now_ms)}, with {counted(group.members, 'worker')}"
        todo = "is a worker stuck (see its log, /livez)? Else start more, up to one per partition (docs/performance.md)"
        late = now_ms - oldest_ms >= _BEHIND_FAULT_MS
        findings.append(fault("lag.behind", what, todo) if late else warning("lag.behind", what, todo))
    else:
        findings.append(ok("lag.group", f"{lag.agent}: {counted(group.members, 'worker')}, {_amount(lag, now_ms)}"))
    return [*findings, *_membership(lag)]


def judge_dead_letters(letters: DeadLetterCounts, *, is_whole: bool) -> list[DoctorFinding]:
    """Calls of the last day that could not be rated. `is_whole`: whether all dead letters were read."""
    findings = []
    least = "" if is_whole else "at least "
    if letters.retryable:
        what = f"{least}{_by_code(letters.retryable)} in 24 h: calls that were not rated but can be retried"
        todo = "fix the cause (rater replay lists calls and reasons), then rater replay --go"
        findings.append(warning("lag.retryable_letters", what, todo))
    if letters.others:
        what = f"{least}{_by_code(letters.others)} in 24 h: calls that can't be rated as they are"
        findings.append(
            note("lag.dead_letters", what, "tell their senders; the dead-letter topic has each call with its reason")
        )
    if not findings and is_whole:
        findings.append(ok("lag.letters", "no dead letters in 24 h"))
    return findings


def _retention(lag: GroupLag, retention_ms: Mapping[str, int], now_ms: int) -> Iterable[DoctorFinding]:
    lost = {tp: waiting.lost for tp, waiting in lag.waiting.items() if waiting.lost}
    if lost:
        amount, partitions = counted(sum(lost.values()), "record"), listed([_name(tp) for tp in lost])
        what = f"{lag.agent}: retention deleted {amount} of {partitions} before they were processed"
        todo = "publish those calls again from the switches; RATER_ACCEPT_LOST_INPUT=true lets a worker continue without them"
        yield fault("lag.lost", what, todo)
    for tp, waiting in lag.waiting.items():
        kept_ms = retention_ms.get(tp.topic)
        if waiting.lost or waiting.oldest_ms is None or kept_ms is None:
            continue
        if (now_ms - waiting.oldest_ms) * _RETENTION_SHARE >= kept_ms:
            age = since(now_ms - waiting.oldest_ms)
            what = f"{lag.agent}: {_name(tp)} has waited for {age}; Kafka deletes records after {since(kept_ms)}"
            yield fault("lag.retention", what, "process them now, or first raise the topic's retention.ms")
            return


def _membership(lag: GroupLag) -> Iterable[DoctorFinding]:
    group = lag.group
    if group.members and group.state != "Stable":
        what = f"{lag.agent}: the group is rebalancing ({group.state})"
        yield note(
            "lag.rebalancing", what, "run it again in a minute; if it continues, a worker keeps restarting: see the logs"
        )
    if group.members > 1 and group.static < group.members:
        what = (
            f"{lag.agent}: {group.members - group.static} of {group.members} workers have no instance id: a restart pauses all"
        )
        yield note("lag.no_instance_id", what, "give each worker its own permanent RATER_INSTANCE_ID")
    if group.members > lag.partitions > 0:
        what = f"{lag.agent}: {group.members} workers for {counted(lag.partitions, 'partition')}: some are idle"
        yield note("lag.too_many_workers", what, "fine as standby; more workers won't make it faster")


def _amount(lag: GroupLag, now_ms: int) -> str:
    if not lag.waiting:
        return "nothing waits"
    oldest_ms = [waiting.oldest_ms for waiting in lag.waiting.values() if waiting.oldest_ms is not None]
    age = f", the oldest for {since(now_ms - min(oldest_ms))}" if oldest_ms else ""
    most = counted(sum(waiting.offsets for waiting in lag.waiting.values()), "record")
    return f"at most {most} waiting{age}"


def _name(tp: TopicPartition) -> str:
    return f"{tp.topic}[{tp.partition}]"


def _by_code(counts: Counter[str]) -> str:
    return listed([f"{count} {code}" for code, count in counts.most_common()])


def _retention_ms(configs: Mapping[str, Mapping[str, str]]) -> dict[str, int]:
    """Topic → how long it keeps records. Topics that are only compacted, or keep records for ever, are omitted."""
    return {
        name: int(found["retention.ms"])
        for name, found in configs.items()
        if "delete" in found.get("cleanup.policy", "") and int(found.get("retention.ms", -1)) >= 0
    }


async def _group_lag(
    cluster: ClusterReader, agent: str, group: GroupView, inputs: list[TopicPartition], is_set_up: bool
) -> GroupLag:
    bounds = await cluster.bounds(inputs)
    committed = group.committed or {}
    spans = {tp: (max(begin, committed.get(tp, begin)), end) for tp, (begin, end) in bounds.items()}
    oldest = await cluster.oldest(spans, _READ_S)
    lost = {tp: max(0, begin - committed.get(tp, begin)) for tp, (begin, _) in bounds.items()}
    waiting = {
        tp: PartitionBacklog(spans[tp][1] - spans[tp][0], oldest.get(tp), lost[tp]) for tp in inputs if tp in oldest or lost[tp]
    }
    numbers = len({tp.partition for tp in inputs})
    return GroupLag(
        agent, group, numbers, is_set_up, waiting, frozenset(inputs) - group.owned if group.members else frozenset()
    )


async def _dead_letters(cluster: ClusterReader, dead: list[TopicPartition], now_ms: int) -> list[DoctorFinding]:
    if not dead:
        return []
    letters = DeadLetterCounts()
    starts, ends = await cluster.offsets_since(dead, now_ms - _DEAD_LETTERS_MS), await cluster.bounds(dead)
    is_whole = await cluster.read({tp: (start, ends[tp][1]) for tp, start in starts.items()}, letters.take, _DEAD_LETTERS_S)
    return judge_dead_letters(letters, is_whole=is_whole)
