from pathlib import Path

import pytest

from rater.embedded.node import MESSAGE_BYTES_MAX
from rater.kafka.topics import TopicDefinitionError, load_topics
from rater.resources import topics_file

CONTRACT = {
    "telephony.cdr.v1": "7d",
    "telephony.cdr.dlq.v1": "30d",
    "telephony.call.rated.v1": "90d",
    "credits.account.command.v1": "30d",
    "credits.account.event.v1": "30d",
    "credits.account.state.v1": "compacted",
    "credits.ledger.transaction.v1": "forever",
    "credits.recharge.request.v1": "30d",
    "credits.notification.v1": "30d",
    "credits.account.directory.v1": "forever",
    "catalog.plan.v1": "compacted",
    "catalog.rate.v1": "compacted",
}
DAY_MS = 86_400_000


def test_every_topic_of_the_contract_is_defined_and_kept_as_promised() -> None:
    kept = {topic.name: topic.kept for topic in load_topics().definitions if topic.schema is not None}
    assert kept == CONTRACT


def test_every_name_has_the_prefix() -> None:
    topics = load_topics("staging.")
    assert topics.cdr == "staging.telephony.cdr.v1"
    assert all(topic.name.startswith("staging.") for topic in topics.definitions)


def test_a_prefix_that_kafka_would_refuse_is_refused() -> None:
    with pytest.raises(TopicDefinitionError, match="prefix"):
        load_topics("no spaces")


def test_all_account_topics_share_one_partition_count() -> None:
    topics = load_topics(account_partitions=7)
    counts = {topic.name: topic.partitions for topic in topics.definitions}
    assert {counts.pop(name) for name in (topics.plan, topics.rate)} == {1}
    assert set(counts.values()) == {7} == {topics.account_partitions}


def test_a_partition_count_below_one_is_refused() -> None:
    with pytest.raises(TopicDefinitionError, match="at least 1 partition"):
        load_topics(account_partitions=0)


def test_a_dead_letter_can_hold_the_largest_input() -> None:
    topics = load_topics()
    limit = topics[topics.dead_letter].max_message_bytes
    assert limit - 2**20 > max(topics[name].max_message_bytes for name in (topics.cdr, topics.command))
    assert limit <= MESSAGE_BYTES_MAX


@pytest.mark.parametrize(
    ("name", "configs"),
    [
        ("cdr", {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS)}),
        ("ledger", {"cleanup.policy": "delete", "retention.ms": "-1"}),
        ("state", {"cleanup.policy": "compact"}),
        ("changelog", {"cleanup.policy": "compact"}),
    ],
)
def test_how_long_a_topic_is_kept_becomes_kafka_settings(name: str, configs: dict[str, str]) -> None:
    topics = load_topics()
    found = topics[getattr(topics, name)].configs
    assert configs.items() <= found.items()
    assert ("retention.ms" in configs) == ("retention.ms" in found)


def test_an_unknown_name_raises_key_error() -> None:
    with pytest.raises(KeyError):
        load_topics()["nothing"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kept = "7d"', 'kept = "7 days"', "kept '7 days'"),
        ('kept = "7d"', "kept = 7", "Expected `str`"),
        ("[topics.cdr]", "[topics.calls]", "calls"),
        ("internal = true\n", "", "must be internal or have a schema"),
        ('group = "catalog"', 'group = "catalogue"', "Invalid enum value"),
        ("[groups.catalog]", "[groups.other]", "group catalog, which is not defined"),
    ],
)
def test_a_faulty_definition_is_refused_and_the_fault_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "topics.toml"
    text = topics_file().read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(TopicDefinitionError, match=message):
        load_topics(file=file)
