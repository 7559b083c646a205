"""What each role may do on the brokers: turns `deploy/kafka/roles.toml` into Kafka ACLs.

A group or transactional id that ends in a hyphen is granted as a prefix, any other name literally. Read and Write imply
Describe. A transaction needs rights on its id, its group and its topics, but none on the cluster.
"""

import shlex
import tomllib
from collections.abc import Iterator

import msgspec
from aiokafka.errors import for_code
from aiokafka.protocol.admin import CreateAclsRequest

from rater.kafka.connection import Brokers
from rater.kafka.topic_admin import TopicAdminError, admin_client
from rater.kafka.topics import Topics
from rater.resources import resource

__all__ = ["OPERATIONS", "Acl", "Role", "acls_of", "command_lines", "grant_acls", "load_roles"]

# The numbers that stand for these in Kafka's protocol.
_RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactional-id": 5}
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
_PATTERNS = {"literal": 3, "prefixed": 4}
_ALLOW = 3
_CLUSTER = "kafka-cluster"


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A role from the file. `user`: the Kafka user that gets it by default. `reads`, `writes`, `describes` and `creates` name
    topics by purpose, as attributes of `Topics`, or `("*",)` for all."""

    description: str
    user: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    describes: tuple[str, ...] = ()
    creates: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    describes_groups: tuple[str, ...] = ()
    transactions: tuple[str, ...] = ()
    cluster: tuple[str, ...] = ()


class Acl(msgspec.Struct, frozen=True, order=True):
    """One right. `resource`: topic, group, transactional-id or cluster; `pattern`: literal or prefixed."""

    resource: str
    name: str
    pattern: str
    operation: str


def load_roles() -> dict[str, Role]:
    """All roles by name."""
    return msgspec.convert(tomllib.loads(resource("deploy", "kafka", "roles.toml").read_text()), dict[str, Role], strict=False)


def acls_of(role: Role, topics: Topics, app_id: str) -> list[Acl]:
    """The rights of a role, for topics with these names and agents with this app id."""
    return sorted(set(_acls(role, topics, app_id)))


def command_lines(role: Role, acls: list[Acl], bootstrap: str, user: str) -> Iterator[str]:
    """Commands for Kafka's own `kafka-acls.sh` that grant the rights to `user`: a comment, then one line per resource."""
    resources: dict[tuple[str, str, str], list[str]] = {}
    for acl in acls:
        resources.setdefault((acl.resource, acl.name, acl.pattern), []).append(acl.operation)
    yield f"# {role.description}"
    for (kind, name, pattern), operations in resources.items():
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap, "--command-config", "admin.properties", "--add"]
        words += ["--allow-principal", f"User:{user}"]
        words += [word for operation in operations for word in ("--operation", operation)]
        words += [f"--{kind}"] if kind == "cluster" else [f"--{kind}", name, "--resource-pattern-type", pattern]
        yield shlex.join(words)


async def grant_acls(brokers: Brokers, user: str, acls: list[Acl]) -> None:
    """Grant rights to a user, in addition to those it has. Raises TopicAdminError if the brokers refuse."""
    async with admin_client(brokers) as client:
        for acl in acls:
            granted_on = (_RESOURCES[acl.resource], acl.name, _PATTERNS[acl.pattern])
            request = CreateAclsRequest(*granted_on, f"User:{user}", "*", OPERATIONS[acl.operation], _ALLOW)
            for code, message in (await client._send_request(request)).creation_responses:
                if code:
                    raise TopicAdminError(
                        f"Kafka at {brokers} refused the ACLs of {user}: {message or for_code(code).__name__}"
                    )


def _acls(role: Role, topics: Topics, app_id: str) -> Iterator[Acl]:
    everything = [topic.name for topic in topics.definitions]

    def names(uses: tuple[str, ...]) -> list[str]:
        return everything if uses == ("*",) else [str(getattr(topics, use)) for use in uses]

    for uses, operations in (
        (role.reads, ("Read",)),
        (role.writes, ("Write",)),
        (role.describes, ("Describe", "DescribeConfigs")),
        (role.creates, ("Create",)),
    ):
        for name in names(uses):
            for operation in operations:
                yield Acl("topic", name, "literal", operation)
    for groups, operation in ((role.groups, "Read"), (role.describes_groups, "Describe")):
        for group in groups:
            yield _named("group", group.format(app_id=app_id), operation)
    for transaction in role.transactions:
        yield _named("transactional-id", transaction.format(app_id=app_id), "Write")
    for operation in role.cluster:
        yield Acl("cluster", _CLUSTER, "literal", operation)


def _named(kind: str, name: str, operation: str) -> Acl:
    return Acl(kind, name, "prefixed" if name.endswith("-") else "literal", operation)
