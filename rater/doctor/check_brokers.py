"""The brokers: whether they answer, whether they are recent enough, and whether their settings suit a rater."""

import asyncio
from collections.abc import Iterable, Mapping

from aiokafka.errors import KafkaError

from rater.doctor.cluster_reader import ClusterReader
from rater.doctor.cluster_views import BrokerView, ClusterView
from rater.doctor.findings import DoctorFinding, counted, fault, listed, note, ok, warning
from rater.settings import Settings

BROKERS_WANTED = 3
_STEPS_OF_A_TRANSACTION = 4

#: API key → (name, lowest version a worker can do with). What a broker of Kafka 2.5 speaks.
_APIS_NEEDED = {
    0: ("Produce", 3),
    1: ("Fetch", 4),
    2: ("ListOffsets", 2),
    11: ("JoinGroup", 5),
    22: ("InitProducerId", 0),
    24: ("AddPartitionsToTxn", 0),
    25: ("AddOffsetsToTxn", 0),
    26: ("EndTxn", 0),
    28: ("TxnOffsetCommit", 0),
}
#: The first level of metadata.version of each release (Kafka's MetadataVersion.java).
_RELEASES = (
    (1, "3.0"), (2, "3.1"), (3, "3.2"), (5, "3.3"), (8, "3.4"), (9, "3.5"), (12, "3.6"), (15, "3.7"), (20, "3.8"),
    (21, "3.9"), (22, "4.0"), (26, "4.1"), (28, "4.2"),
)  # fmt: skip
_LEVEL_KNOWN_MAX = 29

_KAFKA_DOCS = "https://kafka.apache.org/documentation/#brokerconfigs"


async def check(cluster: ClusterReader, settings: Settings, view: ClusterView) -> list[DoctorFinding]:
    """Ask every broker what it speaks, and one that answers how it is set."""
    nodes = dict(zip(view.brokers, await _nodes(cluster, view), strict=True))
    findings = judge_brokers(view, nodes)
    if any(nodes.values()):
        findings += judge_configs(await cluster.broker_configs(view), len(view.brokers), settings)
    return findings


def judge_brokers(view: ClusterView, nodes: Mapping[int, BrokerView | None]) -> list[DoctorFinding]:
    """`nodes`: what each broker speaks, None for one that does not answer."""
    findings = []
    silent = [view.brokers[node] for node, found in nodes.items() if found is None]
    if silent:
        todo = "start it; if it runs, its advertised.listeners must name an address that this machine reaches"
        findings.append(fault("broker.unreachable", f"the cluster names {listed(silent)}, where no broker answers", todo))
    for node, found in nodes.items():
        lacking = [] if found is None else list(_lacking(found))
        if lacking:
            todo = "upgrade the broker: Kafka 2.5 is the least, 3.6 or later is what this is tested for"
            findings.append(fault("broker.too_old", f"{view.brokers[node]} lacks {listed(lacking)}", todo))
    releases = {release_of(found) for found in nodes.values() if found is not None}
    if len(releases) > 1:
        what = f"the brokers are of several releases: {listed(sorted(releases))}"
        findings.append(note("broker.mixed", what, "finish the upgrade of the cluster"))
    if view.controller < 0:
        todo = "the controllers have no majority: look at their logs, start those that are down"
        findings.append(fault("broker.no_controller", "the cluster has no controller", todo))
    if len(view.brokers) < BROKERS_WANTED:
        what = f"there {'is' if len(view.brokers) == 1 else 'are'} {counted(len(view.brokers), 'broker')} now, no spare one"
        findings.append(note("broker.few", what, f"fine for a trial; {BROKERS_WANTED} brokers let one fail and nothing stop"))
    addresses = listed(list(view.brokers.values()))
    summary = f"{counted(len(view.brokers), 'broker')} ({addresses}), {listed(sorted(releases))}"
    return [ok("broker.reachable", summary), *findings] if not silent else findings


def judge_configs(configs: Mapping[str, str] | None, brokers: int, settings: Settings) -> list[DoctorFinding]:
    """A broker's settings, None where the user may not see them."""
    if configs is None:
        return [
            note("broker.configs_hidden", "this user may not see the brokers' settings", "look as one who may DESCRIBE_CONFIGS")
        ]
    known = {name: int(value) for name, value in configs.items() if value and value.lstrip("-").isdigit()}
    return [*_limits(known, settings), *_safety(configs, known, brokers)]


def release_of(node: BrokerView) -> str:
    """`Kafka 4.1`, as far as the broker lets it be known."""
    if node.supported is None:
        return "a Kafka before 3.0, or one that does not say"
    if node.supported > _LEVEL_KNOWN_MAX:
        return f"a Kafka after {_RELEASES[-1][1]}"
    release = [name for level, name in _RELEASES if level <= node.supported][-1:]
    behind = node.settled is not None and node.settled < node.supported
    settled = f", metadata.version {node.settled} of {node.supported}" if behind else ""
    return f"Kafka {release[0] if release else 'before 3.0'}{settled}"


def _limits(known: Mapping[str, int], settings: Settings) -> Iterable[DoctorFinding]:
    wanted_ms = settings.broker_timeout_ms * _STEPS_OF_A_TRANSACTION
    limit_ms = known.get("transaction.max.timeout.ms", wanted_ms)
    if limit_ms < wanted_ms:
        yield fault(
            "broker.transaction_timeout",
            f"transaction.max.timeout.ms is {limit_ms}; a worker wants 4 RATER_BROKER_TIMEOUT_MS: {wanted_ms}",
            f"raise the broker's to {wanted_ms}, or RATER_BROKER_TIMEOUT_MS={limit_ms // _STEPS_OF_A_TRANSACTION}",
        )
    low_ms = known.get("group.min.session.timeout.ms", 0)
    high_ms = known.get("group.max.session.timeout.ms", settings.session_timeout_ms)
    if not low_ms <= settings.session_timeout_ms <= high_ms:
        yield fault(
            "broker.session_timeout",
            f"RATER_SESSION_TIMEOUT_MS is {settings.session_timeout_ms}; the brokers take {low_ms} to {high_ms} alone",
            f"set RATER_SESSION_TIMEOUT_MS between {low_ms} and {high_ms}",
        )


def _safety(configs: Mapping[str, str], known: Mapping[str, int], brokers: int) -> Iterable[DoctorFinding]:
    if configs.get("auto.create.topics.enable") == "true":
        what = "auto.create.topics.enable: a mistyped topic name makes a topic, with other settings than it should have"
        yield note("broker.auto_create", what, "auto.create.topics.enable=false on every broker")
    if configs.get("unclean.leader.election.enable") == "true":
        what = "unclean.leader.election.enable: a failing broker may lose what was acknowledged, money among it"
        yield warning("broker.unclean_election", what, "unclean.leader.election.enable=false on every broker")
    if brokers < BROKERS_WANTED:
        return
    for name, wanted in (
        ("transaction.state.log.replication.factor", 3),
        ("transaction.state.log.min.isr", 2),
        ("offsets.topic.replication.factor", 3),
    ):
        if known.get(name, wanted) < wanted:
            what = f"{name} is {known[name]}: one broker that is lost takes transactions or offsets with it"
            yield warning("broker.few_copies", what, f"{name}={wanted}, and give the internal topic its copies: {_KAFKA_DOCS}")


def _lacking(node: BrokerView) -> Iterable[str]:
    for key, (name, lowest) in _APIS_NEEDED.items():
        if node.apis.get(key, (0, -1))[1] < lowest:
            yield name


async def _nodes(cluster: ClusterReader, view: ClusterView) -> list[BrokerView | None]:
    async def ask(node: int) -> BrokerView | None:
        try:
            return await cluster.node(node)
        except (KafkaError, TimeoutError, OSError):
            return None

    return list(await asyncio.gather(*map(ask, view.brokers)))
