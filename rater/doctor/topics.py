"""The topics: whether all are there, as they are defined, with their copies, each partition with a leader."""

from collections.abc import Callable, Iterable, Mapping

from rater.doctor.asking import Cluster, PartitionView, TopicView, View
from rater.doctor.findings import Finding, counted, fault, listed, note, ok, warning
from rater.kafka.topic_admin import Difference, compare
from rater.kafka.topics import Topics

COPIES_WANTED = 3
_NOT_ALLOWED = 29
_APPLY = "rater topics apply"
_DIFF = "rater topics diff shows all; kafka-configs.sh --alter --entity-type topics changes them"


async def look(cluster: Cluster, topics: Topics, view: View) -> list[Finding]:
    """Ask for the topics' settings."""
    return judge_topics(topics, view, await cluster.topic_configs(view.present()))


def judge_topics(topics: Topics, view: View, configs: Mapping[str, Mapping[str, str]]) -> list[Finding]:
    """`configs`: Kafka's settings of the topics that may be described."""
    hidden = sorted(name for name, topic in view.topics.items() if topic.error == _NOT_ALLOWED)
    counts = {name: len(view.topics[name].partitions) for name in view.present()}

    def is_known(difference: Difference) -> bool:
        if difference.what == "topic":
            return difference.topic not in hidden
        return difference.what == "partitions" or difference.topic in configs

    differences = [difference for difference in compare(topics, counts, configs) if is_known(difference)]
    findings = [*_differences(differences), *_copies(view, configs), *_partitions(view)]
    if not findings and counts:
        seen = f"{counted(len(counts), 'topic')} as defined, every partition with all its copies"
        findings = [ok("topics.defined", seen)]
    if hidden:
        findings.append(note("topics.hidden", f"this user may not see {listed(hidden)}", "look as one who may DESCRIBE them"))
    return findings


def _differences(differences: list[Difference]) -> Iterable[Finding]:
    missing = [difference.topic for difference in differences if difference.what == "topic"]
    if missing:
        yield fault("topics.missing", f"missing: {listed(missing)}", _APPLY)
    for difference in (d for d in differences if d.what == "partitions"):
        yield fault(
            "topics.partitions",
            f"{difference}: an organization's records would meet two writers",
            "set RATER_PARTITIONS to what the topics have; where they differ among each other, they must be made anew",
        )
    altered = [str(d) for d in differences if d.what not in ("topic", "partitions") and not _loses(d)]
    if altered:
        yield warning("topics.altered", listed(altered), _DIFF)
    lossy = [str(difference) for difference in differences if _loses(difference)]
    if lossy:
        yield fault("topics.loses_records", f"{listed(lossy)}: records go sooner than they may", _DIFF)


def _loses(difference: Difference) -> bool:
    """Whether Kafka throws away what the rater, or whoever reads it, still counts on."""
    if difference.what == "cleanup.policy":
        return True
    if difference.what != "retention.ms" or not difference.found.lstrip("-").isdigit():
        return False
    found_ms, wanted_ms = int(difference.found), int(difference.wanted)
    return found_ms >= 0 and (wanted_ms < 0 or found_ms < wanted_ms)


def _copies(view: View, configs: Mapping[str, Mapping[str, str]]) -> Iterable[Finding]:
    if len(view.brokers) < COPIES_WANTED:
        return
    few = [
        name
        for name in view.present()
        if min((len(p.replicas) for p in view.topics[name].partitions), default=3) < COPIES_WANTED
    ]
    if few:
        todo = "kafka-reassign-partitions.sh gives them three; and leave RATER_REPLICATION_FACTOR unset for new ones"
        yield warning("topics.few_copies", f"fewer than three copies on {len(view.brokers)} brokers: {listed(few)}", todo)
    unsafe = [name for name, found in configs.items() if name not in few and found.get("min.insync.replicas") == "1"]
    if unsafe:
        what = f"min.insync.replicas is 1: a lost broker takes acknowledged records with it: {listed(unsafe)}"
        yield warning("topics.min_insync", what, "min.insync.replicas=2 (kafka-configs.sh --alter)")


def _partitions(view: View) -> Iterable[Finding]:
    leaderless = list(_named(view.topics, lambda p: p.leader < 0))
    if leaderless:
        todo = "start the brokers that hold them: nothing of these partitions is rated meanwhile"
        yield fault("topics.no_leader", f"no leader: {listed(leaderless)}", todo)
    short = list(_named(view.topics, lambda p: p.leader >= 0 and len(p.in_sync) < len(p.replicas)))
    if short:
        away = sorted({n for t in view.topics.values() for p in t.partitions for n in set(p.replicas) - set(p.in_sync)})
        todo = "is it down, or behind? Look at its log and disk"
        what = f"copies on broker {listed([str(n) for n in away])} are not in sync: {listed(short)}"
        yield warning("topics.under_replicated", what, todo)


def _named(topics: Mapping[str, TopicView], is_meant: Callable[[PartitionView], bool]) -> Iterable[str]:
    for name, topic in topics.items():
        yield from (f"{name}[{p.number}]" for p in topic.partitions if is_meant(p))
