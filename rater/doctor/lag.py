"""How far the agents are behind: what waits, for how long, and whether anyone is there to do it.

What waits is judged by the time of the oldest record that was not processed, since a number of records says little. The ends
of transactions count as offsets and not as records: a partition with nothing else left is up to date.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from rater.bootstrap import AGENTS, lacking
from rater.doctor.asking import Cluster, GroupView, View
from rater.doctor.findings import Finding, counted, fault, listed, note, ok, since, warning
from rater.domain.dead_letters import reason_of
from rater.kafka.topics import Topics
from rater.settings import Settings

_BEHIND_WARNING_MS = 5 * 60_000
_BEHIND_FAULT_MS = 60 * 60_000
_RETENTION_SHARE = 2  # of what is kept, so much may have passed: a half
_READ_S = 4.0
_LETTERS_MS = 24 * 3_600_000
_LETTERS_S = 5.0
_START = "rater worker"

#: What each agent reads as a group, by the topics' names in `Topics`.
INPUTS = {
    "rating": ("command", "cdr"),
    "timer": ("state",),
    "recharge": ("recharge_request",),
    "notification": ("notification",),
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A partition's records that wait: how many at most, since when (None: not known), how many retention has taken."""

    offsets: int
    oldest_ms: int | None
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Lag:
    """An agent's group, and what waits for it. `is_set_up`: by the settings of the one who asks."""

    agent: str
    group: GroupView
    partitions: int
    is_set_up: bool
    waiting: Mapping[TopicPartition, Waiting] = field(default_factory=dict)
    unowned: frozenset[TopicPartition] = frozenset()


@dataclass(slots=True)
class Letters:
    """Dead letters of a day, by code."""

    retryable: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def take(self, record: Any) -> None:
        reason = reason_of(record.headers)
        (self.retryable if reason.retryable else self.others)[reason.code] += 1


async def look(cluster: Cluster, settings: Settings, topics: Topics, view: View, now_ms: int) -> list[Finding]:
    """Ask each agent's group, and for the oldest record that waits for it."""
    groups, sees_all = await cluster.groups(view), await cluster.sees_all_groups()
    not_set_up = lacking(settings, AGENTS)
    retention_ms = _retention_ms(await cluster.topic_configs(view.present()))
    findings: list[Finding] = []
    for agent, uses in INPUTS.items():
        names = [getattr(topics, use) for use in uses]
        if unreadable := view.unreadable(names):
            what = f"{agent}: what waits can't be told without reading {listed(unreadable)}"
            findings.append(note("lag.unreadable", what, "see the areas topics and acl"))
            continue
        inputs, group_id = view.partitions(names), group_of(settings, agent)
        if group_id not in groups and not sees_all:
            what = f"{agent}: group {group_id} is not there yet, or this user may not see it"
            findings.append(note("lag.unseen", what, "see the area acl"))
            continue
        try:
            group = await cluster.group(group_id, inputs) if group_id in groups else GroupView("Dead", committed={})
            lag = await _lag(cluster, agent, group, inputs, agent not in not_set_up)
        except (KafkaError, TimeoutError) as error:
            what = f"{agent}: group {group_id} can't be looked at: {type(error).__name__}"
            findings.append(warning("lag.unknown", what, "look as a user who may DESCRIBE the group and READ its topics"))
            continue
        findings += judge_lag(lag, retention_ms, now_ms)
    dead = [] if view.unreadable([topics.dead_letter]) else view.partitions([topics.dead_letter])
    return [*findings, *await _letters(cluster, dead, now_ms)]


def group_of(settings: Settings, agent: str) -> str:
    """The consumer group of an agent."""
    return settings.app_id if agent == "rating" else f"{settings.app_id}-{agent}"


def judge_lag(lag: Lag, retention_ms: Mapping[str, int], now_ms: int) -> list[Finding]:
    """`retention_ms`: how long each topic keeps records; without an entry, for ever."""
    group = lag.group
    findings = [*_losing(lag, retention_ms, now_ms)]
    oldest_ms = min((w.oldest_ms for w in lag.waiting.values() if w.oldest_ms is not None), default=None)
    if not group.members and lag.waiting:
        what = f"{lag.agent}: {_amount(lag, now_ms)}, and no worker is there"
        todo = (
            _START
            if lag.is_set_up
            else f"rater worker with the {lag.agent} agent's settings (docs/how-to/find-what-is-wrong.md)"
        )
        findings.append(fault("lag.no_worker", what, todo) if lag.is_set_up else warning("lag.no_worker", what, todo))
    elif not group.members:
        if lag.is_set_up:
            findings.append(note("lag.idle", f"{lag.agent}: nothing waits, and no worker is there", _START))
    elif lag.unowned and group.state == "Stable":
        what = f"{lag.agent}: nobody has {listed([_name(tp) for tp in sorted(lag.unowned)])}"
        findings.append(fault("lag.unowned", what, "do all workers run the same version, and know the same RATER_PARTITIONS?"))
    elif oldest_ms is not None and now_ms - oldest_ms >= _BEHIND_WARNING_MS:
        what = f"{lag.agent}: {_amount(lag, now_ms)}, with {counted(group.members, 'worker')}"
        todo = "is a worker stuck (its log, /livez)? Else start more, up to one a partition (docs/performance.md)"
        late = now_ms - oldest_ms >= _BEHIND_FAULT_MS
        findings.append(fault("lag.behind", what, todo) if late else warning("lag.behind", what, todo))
    else:
        findings.append(ok("lag.group", f"{lag.agent}: {counted(group.members, 'worker')}, {_amount(lag, now_ms)}"))
    return [*findings, *_membership(lag)]


def judge_letters(letters: Letters, *, is_whole: bool) -> list[Finding]:
    """Calls that could not be rated, of the last day."""
    findings = []
    least = "" if is_whole else "at least "
    if letters.retryable:
        what = f"{least}{_by_code(letters.retryable)} in 24 h: not rated when they came, retryable"
        todo = "mend the cause (rater replay shows which and why), then rater replay --go"
        findings.append(warning("lag.retryable_letters", what, todo))
    if letters.others:
        what = f"{least}{_by_code(letters.others)} in 24 h: not to be rated as they are"
        findings.append(note("lag.dead_letters", what, "tell those who send them; the topic has each with its reason"))
    if not findings and is_whole:
        findings.append(ok("lag.letters", "no dead letter in 24 h"))
    return findings


def _losing(lag: Lag, retention_ms: Mapping[str, int], now_ms: int) -> Iterable[Finding]:
    lost = {tp: waiting.lost for tp, waiting in lag.waiting.items() if waiting.lost}
    if lost:
        amount, places = counted(sum(lost.values()), "record"), listed([_name(tp) for tp in lost])
        what = f"{lag.agent}: retention has taken {amount} of {places} unprocessed"
        todo = "publish those calls again from the switches; RATER_ACCEPT_LOST_INPUT=true lets a worker go on without them"
        yield fault("lag.lost", what, todo)
    for tp, waiting in lag.waiting.items():
        kept_ms = retention_ms.get(tp.topic)
        if waiting.lost or waiting.oldest_ms is None or kept_ms is None:
            continue
        if (now_ms - waiting.oldest_ms) * _RETENTION_SHARE >= kept_ms:
            age = since(now_ms - waiting.oldest_ms)
            what = f"{lag.agent}: {_name(tp)} waits for {age} and is kept for {since(kept_ms)}: then it is gone"
            yield fault("lag.retention", what, "have it processed now, or raise the topic's retention.ms first")
            return


def _membership(lag: Lag) -> Iterable[Finding]:
    group = lag.group
    if group.members and group.state != "Stable":
        what = f"{lag.agent}: the group is {group.state}: partitions are being handed out"
        yield note("lag.rebalancing", what, "look again in a minute; if it goes on, a worker comes and goes: see the logs")
    if group.members > 1 and group.static < group.members:
        what = (
            f"{lag.agent}: {group.members - group.static} of {group.members} workers have no instance id: a restart halts all"
        )
        yield note("lag.no_instance_id", what, "give each worker a RATER_INSTANCE_ID of its own that stays")
    if group.members > lag.partitions > 0:
        what = f"{lag.agent}: {group.members} workers for {counted(lag.partitions, 'partition')}: some have nothing to do"
        yield note("lag.too_many_workers", what, "that many in reserve are enough")


def _amount(lag: Lag, now_ms: int) -> str:
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
    """How long each topic keeps records; one that is compacted keeps them by key."""
    return {
        name: int(found["retention.ms"])
        for name, found in configs.items()
        if "delete" in found.get("cleanup.policy", "") and int(found.get("retention.ms", -1)) >= 0
    }


async def _lag(cluster: Cluster, agent: str, group: GroupView, inputs: list[TopicPartition], is_set_up: bool) -> Lag:
    bounds = await cluster.bounds(inputs)
    committed = group.committed or {}
    spans = {tp: (max(begin, committed.get(tp, begin)), end) for tp, (begin, end) in bounds.items()}
    oldest = await cluster.oldest(spans, _READ_S)
    lost = {tp: max(0, begin - committed.get(tp, begin)) for tp, (begin, _) in bounds.items()}
    waiting = {tp: Waiting(spans[tp][1] - spans[tp][0], oldest.get(tp), lost[tp]) for tp in inputs if tp in oldest or lost[tp]}
    numbers = len({tp.partition for tp in inputs})
    return Lag(agent, group, numbers, is_set_up, waiting, frozenset(inputs) - group.owned if group.members else frozenset())


async def _letters(cluster: Cluster, dead: list[TopicPartition], now_ms: int) -> list[Finding]:
    if not dead:
        return []
    letters = Letters()
    starts, ends = await cluster.offsets_since(dead, now_ms - _LETTERS_MS), await cluster.bounds(dead)
    is_whole = await cluster.read({tp: (start, ends[tp][1]) for tp, start in starts.items()}, letters.take, _LETTERS_S)
    return judge_letters(letters, is_whole=is_whole)
