"""Each role has the rights it needs, and no others."""

import pytest

from rater.bootstrap import make_agents
from rater.kafka.acls import Acl, acls_of, command_lines, load_roles
from rater.kafka.topics import load_topics
from rater.settings import Settings

TOPICS = load_topics("t.")
AGENTS = ("rating", "timer")


def may(role: str, resource: str, operation: str, app_id: str = "app") -> set[str]:
    return {a.name for a in acls_of(load_roles()[role], TOPICS, app_id) if (a.resource, a.operation) == (resource, operation)}


@pytest.mark.parametrize("agent", AGENTS)
async def test_an_agent_may_use_exactly_the_topics_it_is_wired_to(agent: str) -> None:
    (app,) = make_agents(Settings(topic_prefix="t.", app_id="app"), [agent])
    (group,) = app.engine.groups
    catalog = {TOPICS.plan, TOPICS.rate} if agent == "rating" else set()
    assert may(agent, "topic", "Read") == {*group.topics, group.changelog} | catalog
    assert may(agent, "topic", "Write") == {*group.outputs, group.changelog}
    assert may(agent, "group", "Read") == {app.conf.id}
    (transaction,) = may(agent, "transactional-id", "Write")
    assert f"{app.conf.id}-{group.name}-0".startswith(transaction)


def test_no_agent_may_use_anothers_group_or_transactions() -> None:
    granted = [
        acl for agent in ("rating", "timer", "recharge", "notification") for acl in acls_of(load_roles()[agent], TOPICS, "app")
    ]
    groups = [acl for acl in granted if acl.resource == "group"]
    assert all(acl.pattern == "literal" for acl in groups)
    assert len({acl.name for acl in groups}) == 4
    transactions = [acl.name for acl in granted if acl.resource == "transactional-id"]
    assert not any(a != b and a.startswith(b) for a in transactions for b in transactions)


def test_only_the_rating_agent_may_write_what_billing_reads() -> None:
    for topic in (TOPICS.rated, TOPICS.ledger, TOPICS.state, TOPICS.event):
        writers = {name for name in load_roles() if topic in may(name, "topic", "Write")}
        assert writers == {"rating"}


def test_rights_can_be_printed_as_commands_for_kafkas_own_tool() -> None:
    acls = [Acl("topic", "t.a", "literal", "Read"), Acl("topic", "t.a", "literal", "Write")]
    _, line = command_lines(load_roles()["switch"], acls, "kafka:9093", "sw-1")
    assert line == (
        "kafka-acls.sh --bootstrap-server kafka:9093 --command-config admin.properties --add --allow-principal User:sw-1 "
        "--operation Read --operation Write --topic t.a --resource-pattern-type literal"
    )
