"""Findings about brokers, topics and rights."""

from dataclasses import replace

import pytest

from rater.doctor.check_acl import Rights, judge_rights
from rater.doctor.check_brokers import judge_brokers, judge_configs, release_of
from rater.doctor.check_topics import judge_topics
from rater.doctor.cluster_views import BrokerView, ClusterView, PartitionView, TopicView
from rater.doctor.findings import DoctorFinding
from rater.kafka.acls import acls_of, load_roles
from rater.kafka.topics import load_topics
from rater.settings import Settings

TOPICS = load_topics()
ROLES = load_roles()
NEEDED = {name: acls_of(role, TOPICS, "rater") for name, role in ROLES.items()}
THREE = {1: "a:1", 2: "b:1", 3: "c:1"}
APIS = dict.fromkeys(range(75), (0, 20))
NODE = BrokerView(APIS, 27, 27)
READ, WRITE = 1 << 3, 1 << 4
NOT_ALLOWED, UNKNOWN = 29, 3


def topic(partitions: int = 4, copies: int = 3, in_sync: int = 3, leader: int = 1, may: int = -1) -> TopicView:
    replicas = tuple(range(1, copies + 1))
    return TopicView(0, may, tuple(PartitionView(n, leader, replicas, replicas[:in_sync]) for n in range(partitions)))


VIEW = ClusterView(THREE, 1, {t.name: topic(t.partitions) for t in TOPICS.definitions})
CONFIGS = {t.name: t.configs | {"min.insync.replicas": "2"} for t in TOPICS.definitions}


def with_topic(name: str, found: TopicView) -> ClusterView:
    return replace(VIEW, topics=VIEW.topics | {name: found})


def severities(findings: list[DoctorFinding]) -> dict[str, str]:
    return {finding.code: finding.severity for finding in findings}


def test_three_brokers_that_answer_are_in_order() -> None:
    assert severities(judge_brokers(VIEW, dict.fromkeys(THREE, NODE))) == {"broker.reachable": "ok"}


def test_a_broker_of_the_cluster_that_does_not_answer_is_a_fault() -> None:
    (found,) = judge_brokers(VIEW, {1: NODE, 2: NODE, 3: None})
    assert (found.code, found.severity, "c:1" in found.what) == ("broker.unreachable", "fault", True)


def test_a_broker_without_transactions_is_too_old() -> None:
    old = BrokerView({key: versions for key, versions in APIS.items() if key != 26}, None, None)
    assert severities(judge_brokers(VIEW, {1: NODE, 2: NODE, 3: old}))["broker.too_old"] == "fault"


def test_a_cluster_without_controller_is_a_fault() -> None:
    assert severities(judge_brokers(replace(VIEW, controller=-1), {1: NODE}))["broker.no_controller"] == "fault"


@pytest.mark.parametrize(
    ("supported", "settled", "release"),
    [
        (27, 27, "Kafka 4.1"),
        (21, 21, "Kafka 3.9"),
        (27, 21, "Kafka 4.1, metadata.version 21 of 27"),
        (500, 500, "a Kafka after 4.2"),
        (None, None, "a Kafka before 3.0, or one that doesn't tell"),
    ],
)
def test_which_release_a_broker_is(supported: int | None, settled: int | None, release: str) -> None:
    assert release_of(BrokerView(APIS, supported, settled)) == release


@pytest.mark.parametrize(
    ("configs", "code", "severity"),
    [
        ({"transaction.max.timeout.ms": "30000"}, "broker.transaction_timeout", "fault"),
        ({"group.max.session.timeout.ms": "5000"}, "broker.session_timeout", "fault"),
        ({"group.min.session.timeout.ms": "30000"}, "broker.session_timeout", "fault"),
        ({"unclean.leader.election.enable": "true"}, "broker.unclean_election", "warning"),
        ({"transaction.state.log.replication.factor": "1"}, "broker.few_copies", "warning"),
        ({"auto.create.topics.enable": "true"}, "broker.auto_create", "note"),
        (None, "broker.configs_hidden", "note"),
    ],
)
def test_broker_settings_that_dont_suit_are_reported(configs: dict[str, str] | None, code: str, severity: str) -> None:
    assert severities(judge_configs(configs, 3, Settings())) == {code: severity}


def test_the_transaction_timeout_is_compared_with_the_workers() -> None:
    assert judge_configs({"transaction.max.timeout.ms": "30000"}, 3, Settings(broker_timeout_ms=7500)) == []


def test_topics_as_they_are_defined_are_in_order() -> None:
    assert severities(judge_topics(TOPICS, VIEW, CONFIGS)) == {"topics.defined": "ok"}


def test_a_missing_topic_is_a_fault() -> None:
    found = judge_topics(TOPICS, with_topic(TOPICS.cdr, TopicView(UNKNOWN, 0)), CONFIGS)
    assert (severities(found), found[0].todo) == ({"topics.missing": "fault"}, "rater topics apply")


def test_a_topic_the_user_may_not_see_is_not_reported_missing() -> None:
    assert "topics.missing" not in severities(judge_topics(TOPICS, with_topic(TOPICS.cdr, TopicView(NOT_ALLOWED, 0)), CONFIGS))


def test_settings_the_user_may_not_see_are_not_reported_altered() -> None:
    assert severities(judge_topics(TOPICS, VIEW, {})) == {"topics.defined": "ok"}


def test_another_number_of_partitions_is_a_fault() -> None:
    assert severities(judge_topics(TOPICS, with_topic(TOPICS.cdr, topic(8)), CONFIGS)) == {"topics.partitions": "fault"}


@pytest.mark.parametrize(
    ("name", "setting", "value", "code"),
    [
        (TOPICS.cdr, "retention.ms", "3600000", "topics.loses_records"),
        (TOPICS.ledger, "retention.ms", "3600000", "topics.loses_records"),
        (TOPICS.state, "cleanup.policy", "delete", "topics.loses_records"),
        (TOPICS.cdr, "retention.ms", "-1", "topics.altered"),
        (TOPICS.cdr, "max.message.bytes", "1000", "topics.altered"),
    ],
)
def test_a_setting_that_loses_records_is_a_fault_and_any_other_a_warning(
    name: str, setting: str, value: str, code: str
) -> None:
    configs = CONFIGS | {name: CONFIGS[name] | {setting: value}}
    severity = {"topics.loses_records": "fault", "topics.altered": "warning"}[code]
    assert severities(judge_topics(TOPICS, VIEW, configs)) == {code: severity}


def test_a_partition_without_leader_is_a_fault() -> None:
    assert severities(judge_topics(TOPICS, with_topic(TOPICS.cdr, topic(leader=-1)), CONFIGS)) == {"topics.no_leader": "fault"}


def test_copies_that_are_behind_too_few_or_unsafe_are_warnings() -> None:
    behind = judge_topics(TOPICS, with_topic(TOPICS.cdr, topic(in_sync=2)), CONFIGS)
    assert severities(behind) == {"topics.under_replicated": "warning"}
    few = judge_topics(TOPICS, with_topic(TOPICS.cdr, topic(copies=1, in_sync=1)), CONFIGS)
    assert severities(few) == {"topics.few_copies": "warning"}
    unsafe = CONFIGS | {TOPICS.cdr: CONFIGS[TOPICS.cdr] | {"min.insync.replicas": "1"}}
    assert severities(judge_topics(TOPICS, VIEW, unsafe)) == {"topics.min_insync": "warning"}


def test_on_one_broker_one_copy_is_in_order() -> None:
    one = ClusterView({1: "a:1"}, 1, {t.name: topic(t.partitions, 1, 1) for t in TOPICS.definitions})
    assert severities(judge_topics(TOPICS, one, CONFIGS)) == {"topics.defined": "ok"}


def test_a_user_with_all_rights_has_every_role() -> None:
    (found,) = judge_rights(NEEDED, Rights(VIEW.topics))
    assert found.what == f"this user has the rights of: {', '.join(ROLES)}"


def test_a_user_with_the_rights_of_one_role_has_only_that_role() -> None:
    may = {TOPICS.state: READ, TOPICS.command: WRITE, TOPICS.timer_changelog: READ | WRITE}
    topics = {t.name: topic(may=may[t.name]) if t.name in may else TopicView(NOT_ALLOWED, 0) for t in TOPICS.definitions}
    (found,) = judge_rights(NEEDED, Rights(topics, 0, {"rater-timer": READ}))
    assert (found.severity, found.what) == ("ok", "this user has the rights of: timer")


def test_without_rights_on_its_group_the_user_lacks_the_agents_role() -> None:
    (found,) = judge_rights({"timer": NEEDED["timer"]}, Rights(VIEW.topics, -1, {"rater-timer": 0}))
    assert found.severity == "warning"
    assert "nearest is timer, without Read rater-timer" in found.what


def test_a_missing_topic_does_not_count_as_a_missing_right() -> None:
    assert severities(judge_rights(NEEDED, Rights(with_topic(TOPICS.cdr, TopicView(UNKNOWN, 0)).topics))) == {"acl.roles": "ok"}


def test_a_missing_right_on_the_cluster_is_reported() -> None:
    (found,) = judge_rights({"monitor": NEEDED["monitor"]}, Rights(VIEW.topics, 0))
    assert "Describe kafka-cluster" in found.what
