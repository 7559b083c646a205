"""What this user may do: which agents could run under its name. Kafka says of itself what it would allow."""

from collections.abc import Iterable, Mapping

from aiokafka.errors import KafkaError

from rater.doctor.asking import Cluster, View
from rater.doctor.findings import Finding, listed, note, ok, warning
from rater.doctor.work import WORK, Work, group_of
from rater.settings import Settings
from rater.topics import Topics

_READ, _WRITE = 3, 4  # Kafka's numbers of the operations
_NAMES = {_READ: "READ", _WRITE: "WRITE"}
_NOT_ALLOWED = 29
_GUIDE = "docs/how-to/find-what-is-wrong.md#what-a-user-may-do"


async def look(cluster: Cluster, settings: Settings, topics: Topics, view: View) -> list[Finding]:
    """Ask for what may be done with groups; with topics, the view says so."""
    configs = await cluster.broker_configs(view)
    groups: dict[str, bool] = {}
    if configs is None or configs.get("authorizer.class.name"):
        for agent in WORK:
            groups[agent] = await _may_join(cluster, group_of(settings, agent))
    return judge_access(topics, view, groups, has_authorizer=configs is None or bool(configs.get("authorizer.class.name")))


def judge_access(topics: Topics, view: View, groups: Mapping[str, bool], *, has_authorizer: bool) -> list[Finding]:
    """`groups`: agent → whether the user may read as its consumer group."""
    if not has_authorizer:
        what = "the cluster asks nobody for leave: whoever reaches it reads all calls and writes money"
        return [note("acl.none", what, "set authorizer.class.name on the brokers, and an ACL for each role: " + _GUIDE)]
    denied = {agent: list(_denied(topics, view, agent, work, groups)) for agent, work in WORK.items()}
    may = [agent for agent, lacking in denied.items() if not lacking]
    findings = [ok("acl.agents", f"this user may run: {', '.join(may)}")] if may else []
    for agent, lacking in denied.items():
        if lacking:
            said = f"this user may not run the {agent} agent: {listed(lacking)}"
            todo = f"fine if it is not to; else give it those rights: {_GUIDE}"
            findings.append(note("acl.denied", said, todo) if may else warning("acl.denied", said, todo))
    return findings


def _denied(topics: Topics, view: View, agent: str, work: Work, groups: Mapping[str, bool]) -> Iterable[str]:
    needed = [
        *((use, _READ) for use in (*work.inputs, *work.follows, work.changelog)),
        *((use, _WRITE) for use in (*work.outputs, work.changelog)),
    ]
    for use, operation in needed:
        name = getattr(topics, use)
        topic = view.topics.get(name)
        if topic is None or topic.error not in (0, _NOT_ALLOWED):
            continue  # missing: another finding
        if topic.error == _NOT_ALLOWED or not topic.may >> operation & 1:
            yield f"{_NAMES[operation]} {name}"
    if not groups.get(agent, True):
        yield "READ its consumer group"


async def _may_join(cluster: Cluster, group_id: str) -> bool:
    try:
        if not await cluster.has_groups():
            return True
        return bool((await cluster.group(group_id, [])).may >> _READ & 1)
    except KafkaError:
        return False
