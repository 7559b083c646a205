"""Brokers: whether they answer, whether they are recent enough, and whether their settings suit a rater."""

import asyncio
from collections.abc import Iterable, Mapping

from aiokafka.errors import KafkaError

from rater.doctor.cluster_reader import ClusterReader
from rater.doctor.cluster_views import BrokerView, ClusterView
from rater.doctor.findings import DoctorFinding, counted, fault, listed, note, ok, warning
from rater.settings import Settings

BROKERS_WANTED = 3
_STEPS_OF_A_TRANSACTION = 4

#: API key → (name, lowest version a worker needs). Kafka 2.5 has all of them.
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
    """Ask every broker for its versions, and the first one that answers for its settings."""
    nodes = dict(zip(view.brokers, await _nodes(cluster, view), strict=True))
    findings = judge_brokers(view, nodes)
    if any(nodes.values()):
        findings += judge_configs(await cluster.broker_configs(view), len(view.brokers), settings)
    return findings


def judge_brokers(view: ClusterView, nodes: Mapping[int, BrokerView | None]) -> list[DoctorFinding]:
    """`nodes`: broker id → its versions, None if it doesn't answer."""
    findings = []
    silent = [view.brokers[node] for node, found in nodes.items() if found is None]
    if silent:
        todo = "start it; if it is running, its advertised.listeners must name an address this machine can reach"
        findings.append(fault("broker.unreachable", f"brokers of the cluster that don't answer: {listed(silent)}", todo))
    for node, found in nodes.items():
        lacking = [] if found is None else list(_missing_apis(found))
        if lacking:
            todo = "upgrade the broker: Kafka 2.5 is the minimum, 3.6 or later is what this is tested with"
            findings.append(fault("broker.too_old", f"{view.brokers[node]} is too old for {listed(lacking)}", todo))
    releases = {release_of(found) for found in nodes.values() if found is not None}
    if len(releases) > 1:
        what = f"the brokers run different releases: {listed(sorted(releases))}"
        findings.append(note("broker.mixed", what, "finish the upgrade of the cluster"))
    if view.controller < 0:
        todo = "the controllers have no majority: read their logs and start those that are down"
        findings.append(fault("broker.no_controller", "the cluster has no controller", todo))
    if len(view.brokers) < BROKERS_WANTED:
        what = f"the cluster has only {counted(len(view.brokers), 'broker')}"
        findings.append(note("broker.few", what, f"fine for a trial; with {BROKERS_WANTED} brokers nothing stops if one fails"))
    addresses = listed(list(view.brokers.values()))
    summary = f"{counted(len(view.brokers), 'broker')} ({addresses}), {listed(sorted(releases))}"
    return [ok("broker.reachable", summary), *findings] if not silent else findings


def judge_configs(configs: Mapping[str, str] | None, brokers: int, settings: Settings) -> list[DoctorFinding]:
    """`configs`: a broker's settings, None if this user may not see them. `brokers`: how many there are."""
    if configs is None:
        what = "this user may not see the brokers' settings"
        return [note("broker.configs_hidden", what, "run it as a user with DESCRIBE_CONFIGS")]
    known = {name: int(value) for name, value in configs.items() if value and value.lstrip("-").isdigit()}
    return [*_limits(known, settings), *_safety(configs, known, brokers)]


def release_of(node: BrokerView) -> str:
    """The release, like `Kafka 4.1`, as far as the broker tells it."""
    if node.supported is None:
        return "a Kafka before 3.0, or one that doesn't tell"
    if node.supported > _LEVEL_KNOWN_MAX:
        return f"a Kafka after {_RELEASES[-1][1]}"
    release = [name for level, name in _RELEASES if level <= node.supported][-1:]
    behind = node.in_use is not None and node.in_use < node.supported
    level = f", metadata.version {node.in_use} of {node.supported}" if behind else ""
    return f"Kafka {release[0] if release else 'before 3.0'}{level}"


def _limits(known: Mapping[str, int], settings: Settings) -> Iterable[DoctorFinding]:
    wanted_ms = settings.broker_timeout_ms * _STEPS_OF_A_TRANSACTION
    limit_ms = known.get("transaction.max.timeout.ms", wanted_ms)
    if limit_ms < wanted_ms:
        yield fault(
            "broker.transaction_timeout",
            f"transaction.max.timeout.ms is {limit_ms}; a worker needs 4 x RATER_BROKER_TIMEOUT_MS = {wanted_ms}",
            f"raise it on the brokers to {wanted_ms}, or set RATER_BROKER_TIMEOUT_MS={limit_ms // _STEPS_OF_A_TRANSACTION}",
        )
    low_ms = known.get("group.min.session.timeout.ms", 0)
    high_ms = known.get("group.max.session.timeout.ms", settings.session_timeout_ms)
    if not low_ms <= settings.session_timeout_ms <= high_ms:
        yield fault(
            "broker.session_timeout",
            f"RATER_SESSION_TIMEOUT_MS is {settings.session_timeout_ms}; the brokers accept only {low_ms} to {high_ms}",
            f"set RATER_SESSION_TIMEOUT_MS to a value from {low_ms} to {high_ms}",
        )


def _safety(configs: Mapping[str, str], known: Mapping[str, int], brokers: int) -> Iterable[DoctorFinding]:
    if configs.get("auto.create.topics.enable") == "true":
        what = "auto.create.topics.enable is true: a mistyped topic name creates a topic with default settings"
        yield note("broker.auto_create", what, "set auto.create.topics.enable=false on every broker")
    if configs.get("unclean.leader.election.enable") == "true":
        what = "unclean.leader.election.enable is true: a failing broker may lose acknowledged records, money included"
        yield warning("broker.unclean_election", what, "set unclean.leader.election.enable=false on every broker")
    if brokers < BROKERS_WANTED:
        return
    for name, wanted in (
        ("transaction.state.log.replication.factor", 3),
        ("transaction.state.log.min.isr", 2),
        ("offsets.topic.replication.factor", 3),
    ):
        if known.get(name, wanted) < wanted:
            what = f"{name} is {known[name]}: losing one broker loses transactions or offsets"
            todo = f"set {name}={wanted}, and add replicas to the internal topic: {_KAFKA_DOCS}"
            yield warning("broker.few_copies", what, todo)


def _missing_apis(node: BrokerView) -> Iterable[str]:
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
