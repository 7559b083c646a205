"""Rights: which roles of `deploy/kafka/roles.toml` this user has.

For every topic and group the brokers report what the user may do with it. Kafka doesn't report rights on transactional ids, nor
rights on groups by prefix, so those are not checked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aiokafka.errors import GroupAuthorizationFailedError

from rater.doctor.cluster_reader import ClusterReader
from rater.doctor.cluster_views import ClusterView, TopicView
from rater.doctor.findings import DoctorFinding, listed, note, ok, warning
from rater.kafka.acls import OPERATIONS, Acl, acls_of, load_roles
from rater.kafka.topics import Topics
from rater.settings import Settings

_NOT_ALLOWED = 29
_GUIDE = "docs/how-to/secure-kafka.md"


@dataclass(frozen=True, slots=True)
class Rights:
    """What the user may do, as bit fields of Kafka's operations. Groups not known to exist are omitted."""

    topics: Mapping[str, TopicView]
    cluster: int = -1
    groups: Mapping[str, int] = field(default_factory=dict)


async def check(cluster: ClusterReader, settings: Settings, topics: Topics, view: ClusterView) -> list[DoctorFinding]:
    """Ask for the rights on groups; those on topics and the cluster are in the view."""
    configs = await cluster.broker_configs(view)
    if configs is not None and not configs.get("authorizer.class.name"):
        what = "the brokers have no authorizer: anyone who reaches them can read all calls and change balances"
        return [note("acl.none", what, f"set up an authorizer and a role for each user: {_GUIDE}")]
    needed = {name: acls_of(role, topics, settings.app_id) for name, role in load_roles().items()}
    group_ids = {acl.name for acls in needed.values() for acl in acls if acl.resource == "group" and acl.pattern == "literal"}
    groups = {group_id: await _may(cluster, group_id) for group_id in sorted(group_ids & await cluster.groups(view))}
    return judge_rights(needed, Rights(view.topics, view.may, groups))


def judge_rights(needed: Mapping[str, list[Acl]], rights: Rights) -> list[DoctorFinding]:
    """`needed`: role → the ACLs it consists of. Ok if the user has all ACLs of at least one role."""
    lacking = {role: list(_lacking(acls, rights)) for role, acls in needed.items()}
    complete = [role for role, lacks in lacking.items() if not lacks]
    if complete:
        return [ok("acl.roles", f"this user has the rights of: {', '.join(complete)}")]
    nearest = min(lacking, key=lambda role: len(lacking[role]))
    what = f"this user lacks rights for every role; nearest is {nearest}, without {listed(lacking[nearest])}"
    return [warning("acl.no_role", what, f"rater topics acls {nearest} --user NAME --apply, or grant another role: {_GUIDE}")]


def _lacking(acls: Iterable[Acl], rights: Rights) -> Iterable[str]:
    for acl in acls:
        if acl.resource == "topic":
            topic = rights.topics.get(acl.name)
            if topic is None or topic.error not in (0, _NOT_ALLOWED):
                continue  # the topic is missing, which is another finding
            may = 0 if topic.error else topic.may
        elif acl.resource == "group":
            may = rights.groups.get(acl.name, -1)
        elif acl.resource == "cluster":
            may = rights.cluster
        else:
            continue
        if not may >> OPERATIONS[acl.operation] & 1:
            yield f"{acl.operation} {acl.name}"


async def _may(cluster: ClusterReader, group_id: str) -> int:
    try:
        return (await cluster.group(group_id, [])).may
    except GroupAuthorizationFailedError:
        return 0
