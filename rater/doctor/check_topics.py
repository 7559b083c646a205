"""Topics: whether all exist as defined, with enough replicas, and a leader for each partition."""

from collections.abc import Callable, Iterable, Mapping

from rater.doctor.cluster_reader import ClusterReader
from rater.doctor.cluster_views import ClusterView, PartitionView, TopicView
from rater.doctor.findings import DoctorFinding, counted, fault, listed, note, ok, warning
from rater.kafka.topic_admin import Difference, compare
from rater.kafka.topics import Topics

COPIES_WANTED = 3
_NOT_ALLOWED = 29
_APPLY = "rater topics apply"
_DIFF = "rater topics diff lists all differences; kafka-configs.sh --alter --entity-type topics changes settings"


async def check(cluster: ClusterReader, topics: Topics, view: ClusterView) -> list[DoctorFinding]:
    """Ask for the topics' settings and compare them with their definitions."""
    return judge_topics(topics, view, await cluster.topic_configs(view.present()))


def judge_topics(topics: Topics, view: ClusterView, configs: Mapping[str, Mapping[str, str]]) -> list[DoctorFinding]:
    """`configs`: topic → its settings in Kafka. Topics whose settings this user may not see are omitted."""
    hidden = sorted(name for name, topic in view.topics.items() if topic.error == _NOT_ALLOWED)
    counts = {name: len(view.topics[name].partitions) for name in view.present()}

    def is_known(difference: Difference) -> bool:
        if difference.what == "topic":
            return difference.topic not in hidden
        return difference.what == "partitions" or difference.topic in configs

    differences = [difference for difference in compare(topics, counts, configs) if is_known(difference)]
    findings = [*_differences(differences), *_copies(view, configs), *_partitions(view)]
    if not findings and counts:
        seen = f"{counted(len(counts), 'topic')} as defined, all replicas of every partition in sync"
        findings = [ok("topics.defined", seen)]
    if hidden:
        findings.append(
            note("topics.hidden", f"this user may not see {listed(hidden)}", "run it as a user with DESCRIBE on them")
        )
    return findings


def _differences(differences: list[Difference]) -> Iterable[DoctorFinding]:
    missing = [difference.topic for difference in differences if difference.what == "topic"]
    if missing:
        yield fault("topics.missing", f"missing: {listed(missing)}", _APPLY)
    for difference in (d for d in differences if d.what == "partitions"):
        yield fault(
            "topics.partitions",
            f"{difference}: two workers would write for the same organization",
            "set RATER_PARTITIONS to what the topics have; if the topics differ from each other, they must be recreated",
        )
    altered = [str(d) for d in differences if d.what not in ("topic", "partitions") and not _loses(d)]
    if altered:
        yield warning("topics.altered", listed(altered), _DIFF)
    lossy = [str(difference) for difference in differences if _loses(difference)]
    if lossy:
        yield fault("topics.loses_records", f"{listed(lossy)}: Kafka deletes records too early", _DIFF)


def _loses(difference: Difference) -> bool:
    """Whether Kafka deletes records that the rater, or another reader of the topic, still needs."""
    if difference.what == "cleanup.policy":
        return True
    if difference.what != "retention.ms" or not difference.found.lstrip("-").isdigit():
        return False
    found_ms, wanted_ms = int(difference.found), int(difference.wanted)
    return found_ms >= 0 and (wanted_ms < 0 or found_ms < wanted_ms)


def _copies(view: ClusterView, configs: Mapping[str, Mapping[str, str]]) -> Iterable[DoctorFinding]:
    if len(view.brokers) < COPIES_WANTED:
        return
    few = [
        name
        for name in view.present()
        if min((len(p.replicas) for p in view.topics[name].partitions), default=3) < COPIES_WANTED
    ]
    if few:
        todo = "add replicas with kafka-reassign-partitions.sh; for new topics leave RATER_REPLICATION_FACTOR unset"
        yield warning("topics.few_copies", f"fewer than three replicas on {len(view.brokers)} brokers: {listed(few)}", todo)
    unsafe = [name for name, found in configs.items() if name not in few and found.get("min.insync.replicas") == "1"]
    if unsafe:
        what = f"min.insync.replicas is 1, so losing one broker can lose acknowledged records: {listed(unsafe)}"
        yield warning("topics.min_insync", what, "set min.insync.replicas=2 (kafka-configs.sh --alter)")


def _partitions(view: ClusterView) -> Iterable[DoctorFinding]:
    leaderless = list(_named(view.topics, lambda p: p.leader < 0))
    if leaderless:
        todo = "start the brokers that hold them; until then nothing in these partitions is rated"
        yield fault("topics.no_leader", f"no leader: {listed(leaderless)}", todo)
    short = list(_named(view.topics, lambda p: p.leader >= 0 and len(p.in_sync) < len(p.replicas)))
    if short:
        away = sorted({n for t in view.topics.values() for p in t.partitions for n in set(p.replicas) - set(p.in_sync)})
        todo = "is it down or slow? Check its log and disk"
        what = f"replicas on broker {listed([str(n) for n in away])} are not in sync: {listed(short)}"
        yield warning("topics.under_replicated", what, todo)


def _named(topics: Mapping[str, TopicView], is_wanted: Callable[[PartitionView], bool]) -> Iterable[str]:
    for name, topic in topics.items():
        yield from (f"{name}[{p.number}]" for p in topic.partitions if is_wanted(p))
