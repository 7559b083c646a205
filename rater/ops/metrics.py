"""The metrics of a worker, as `docs/metrics.md` lists them.

Nothing is computed where records are processed: the engine keeps plain figures, and a scrape reads them. What a processor
counts comes as (figure, label values …); `COUNTERS` and `GAUGES` say what that is called here. A figure that stands in neither
is a mistake, and fails the scrape.

What can be listed in advance begins at 0, so that the first of a kind is seen as an increase.
"""

import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

import rater
from rater import compiled
from rater.domain.rejection import DEAD_LETTER_CODES
from rater.engine.app import EngineApp
from rater.engine.stats import TaskStats

__all__ = ["WorkerCollector", "registry_of"]

_MICROS = 1_000_000


class _Named(NamedTuple):
    """How a figure is exported. `begins_at_0`: the label values that are there from the start, by label."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    scale: int = 1
    begins_at_0: tuple[tuple[str, ...], ...] | None = None


_CHANNELS = ("mail", "webhook")

COUNTERS: Mapping[str, _Named] = {
    "calls": _Named("rater_calls_rated", "Calls rated.", ("service", "funded_by")),
    "dead_letters": _Named("rater_dead_letters", "Records that could not be rated.", ("code",), 1, (DEAD_LETTER_CODES,)),
    "duplicates": _Named("rater_duplicates", "Records known already.", ("kind",), 1, (("call", "command"),)),
    "commands": _Named("rater_commands", "Commands carried out or refused.", ("type", "outcome")),
    "refused": _Named("rater_commands_refused", "Commands refused, by why.", ("code",)),
    "charged": _Named("rater_charged_amount", "Charges of calls, in units of the currency.", ("currency",), _MICROS),
    "collected": _Named("rater_collected_amount", "Charges paid from lots.", ("currency",), _MICROS),
    "overdrawn": _Named("rater_overdrawn_amount", "Charges beyond the balance.", ("currency",), _MICROS),
    "unfunded": _Named("rater_unfunded_amount", "Charges nobody pays.", ("currency",), _MICROS),
    "recharges": _Named(
        "rater_recharges", "Attempts to top up that ended.", ("outcome",), 1, (("succeeded", "soft_decline", "hard_decline"),)
    ),
    "recharge_tries_unresolved": _Named("rater_recharge_tries_unresolved", "Tries whose outcome is unknown.", (), 1, ()),
    "notifications": _Named(
        "rater_notifications", "Deliveries that ended.", ("channel", "outcome"), 1, (_CHANNELS, ("sent", "failed"))
    ),
    "notification_retries": _Named("rater_notification_retries", "Deliveries put off.", ("channel",), 1, (_CHANNELS,)),
    "timer_commands": _Named("rater_timer_commands", "Commands published because something fell due.", ("type",)),
}

#: Of a task: their samples bear its partition as the first label.
GAUGES: Mapping[str, _Named] = {
    "accounts": _Named("rater_accounts", "Accounts by how they stand.", ("status",)),
    "accounts_overdrawn": _Named("rater_accounts_overdrawn", "Accounts that owe."),
    "recharges_pending": _Named("rater_recharges_pending", "Attempts to top up without an outcome."),
    "recharges_pending_oldest_timestamp_seconds": _Named(
        "rater_recharges_pending_oldest_timestamp_seconds", "When the oldest of them was requested."
    ),
    "notifications_pending": _Named("rater_notifications_pending", "Deliveries not made yet."),
    "notifications_pending_oldest_timestamp_seconds": _Named(
        "rater_notifications_pending_oldest_timestamp_seconds", "When the oldest of them came in."
    ),
    "timers_pending": _Named("rater_timers_pending", "Organizations with something that will fall due."),
}

#: Of the process.
PROCESS_GAUGES: Mapping[str, _Named] = {
    "catalog_rows": _Named("rater_catalog_rows", "Rows in use.", ("kind",)),
    "catalog_faulty_rows": _Named("rater_catalog_faulty_rows", "Rows left out because of a fault."),
    "payment_gateway_open": _Named("rater_payment_gateway_open", "1 while charges may be begun."),
}

#: Which counters an agent has.
_OF_AGENT = {
    "rating": ("calls", "dead_letters", "duplicates", "commands", "refused", "charged", "collected", "overdrawn", "unfunded"),
    "recharge": ("recharges", "recharge_tries_unresolved"),
    "notification": ("notifications", "notification_retries"),
    "timer": ("timer_commands",),
}


def registry_of(apps: Sequence[EngineApp], is_alive: Callable[[], bool], is_ready: Callable[[], bool]) -> CollectorRegistry:
    """Everything a worker exposes."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    registry.register(WorkerCollector(apps, is_alive, is_ready))
    return registry


class WorkerCollector:
    """Reads the figures of a worker's apps when it is asked."""

    def __init__(self, apps: Sequence[EngineApp], is_alive: Callable[[], bool], is_ready: Callable[[], bool]) -> None:
        self._apps = apps
        self._is_alive = is_alive
        self._is_ready = is_ready

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: registering must not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families, each once."""
        yield from self._worker()
        yield from self._engine()
        yield from self._tasks()
        yield from self._histograms()
        yield from self._figures()
        yield from self._gauges()

    def _worker(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("rater_build_info", "What runs here.", labels=("version", "python", "core"))
        core = "compiled" if compiled.is_used() else "interpreted"
        build.add_metric((rater.__version__, platform.python_version(), core), 1)
        yield build
        free = GaugeMetricFamily("rater_data_dir_free_bytes", "Disk that is left under RATER_DATA_DIR.")
        folder = self._apps[0].settings.data_dir
        if folder.exists():
            free.add_metric((), shutil.disk_usage(folder).free)
        yield free
        yield GaugeMetricFamily("rater_alive", "1 while /livez says yes.", value=int(self._is_alive()))
        yield GaugeMetricFamily("rater_ready", "1 while /readyz says yes.", value=int(self._is_ready()))

    def _engine(self) -> Iterator[Metric]:
        def counter(name: str, meaning: str, value: Callable[[TaskStats], int]) -> Metric:
            family = CounterMetricFamily(name, meaning, labels=("agent",))
            for agent, app in self._agents():
                family.add_metric((agent,), sum(value(task) for task in app.engine.stats.tasks.values()))
            return family

        yield counter("rater_output_records", "Records written.", lambda task: task.outputs)
        yield counter("rater_due_work", "Transactions of due work.", lambda task: task.ticks)
        yield counter("rater_transaction_aborts", "Transactions given up.", lambda task: task.aborts)
        yield counter("rater_task_reopens", "Partitions opened again after an error.", lambda task: task.reopens)
        yield counter("rater_merge_waits_given_up", "Waits for a topic given up.", lambda task: task.merge_waits_given_up)
        rebalances = CounterMetricFamily("rater_rebalances", "Assignments of partitions.", labels=("agent",))
        records = CounterMetricFamily("rater_input_records", "Records processed.", labels=("agent", "topic"))
        tasks = GaugeMetricFamily("rater_tasks", "Partitions of this worker.", labels=("agent", "state"))
        for agent, app in self._agents():
            rebalances.add_metric((agent,), app.engine.stats.rebalances)
            for topic in app.engine.input_topics:
                records.add_metric((agent, topic), sum(t.input_records[topic] for t in app.engine.stats.tasks.values()))
            mine = [task for _, task in self._mine(app)]
            tasks.add_metric((agent, "open"), sum(task.open for task in mine))
            tasks.add_metric((agent, "opening"), sum(not task.open for task in mine))
        yield from (rebalances, records, tasks)

    def _tasks(self) -> Iterator[Metric]:
        of_topic, of_task = ("agent", "topic", "partition"), ("agent", "partition")
        records = GaugeMetricFamily("rater_lag_records", "Records not processed yet.", labels=of_topic)
        seconds = GaugeMetricFamily("rater_lag_seconds", "Age of the first record not processed yet.", labels=of_topic)
        stalled = GaugeMetricFamily("rater_stalled_seconds", "Time since the last commit while there is lag.", labels=of_task)
        restored = CounterMetricFamily("rater_restored_records", "Changelog records restored.", labels=of_task)
        remaining = GaugeMetricFamily("rater_restore_remaining_records", "Changelog offsets to restore.", labels=of_task)
        size = GaugeMetricFamily("rater_store_size_bytes", "The local store.", labels=of_task)
        for agent, app in self._agents():
            for partition, task in self._mine(app):
                place = (agent, str(partition))
                for topic, lag in task.lag.items():
                    records.add_metric((agent, topic, str(partition)), lag.records)
                    seconds.add_metric((agent, topic, str(partition)), lag.seconds)
                stalled.add_metric(place, task.stalled_s)
                restored.add_metric(place, task.restored_records)
                remaining.add_metric(place, task.restore_remaining)
                size.add_metric(place, task.store_bytes)
        yield from (records, seconds, stalled, restored, remaining, size)

    def _histograms(self) -> Iterator[Metric]:
        for attribute in ("records", "stage", "age"):
            family: HistogramMetricFamily | None = None
            for agent, app in self._agents():
                for source in getattr(app.engine.stats.histograms, attribute).collect():
                    if family is None:
                        family = HistogramMetricFamily(source.name, source.documentation)
                    for sample in source.samples:
                        if not sample.name.endswith("_created"):
                            family.add_sample(sample.name, {"agent": agent, **sample.labels}, sample.value)
            if family is not None:
                yield family

    def _figures(self) -> Iterator[Metric]:
        for agent, app in self._agents():
            counts: dict[str, Counter[tuple[str, ...]]] = {what: Counter() for what in _OF_AGENT.get(agent, ())}
            for task in app.engine.stats.tasks.values():
                for (what, *labels), count in task.counts.items():
                    counts[what][tuple(labels)] += count
            for what, found in counts.items():
                yield _counter(COUNTERS[what], found)

    def _gauges(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for _, app in self._agents():
            for partition, task in self._mine(app):
                for (what, *labels), value in task.gauges.items():
                    _gauge(families, GAUGES[what], ("partition",)).add_metric((str(partition), *labels), value)
            for (what, *labels), value in app.gauges().items():
                _gauge(families, PROCESS_GAUGES[what]).add_metric(labels, value)
        yield from families.values()

    def _agents(self) -> Iterator[tuple[str, EngineApp]]:
        for app in self._apps:
            yield app.engine.groups[0].name, app

    @staticmethod
    def _mine(app: EngineApp) -> Iterator[tuple[int, TaskStats]]:
        for group, partition in app.engine.assigned:
            yield partition, app.engine.stats.tasks[group, partition]


def _counter(named: _Named, counts: Mapping[tuple[str, ...], int]) -> Metric:
    family = CounterMetricFamily(named.name, named.meaning, labels=named.labels)
    zeros = {} if named.begins_at_0 is None else dict.fromkeys(product(*named.begins_at_0), 0)
    for labels, count in {**zeros, **counts}.items():
        family.add_metric(labels, count / named.scale if named.scale > 1 else count)
    return family


def _gauge(families: dict[str, GaugeMetricFamily], named: _Named, before: tuple[str, ...] = ()) -> GaugeMetricFamily:
    family = families.get(named.name)
    if family is None:
        family = families[named.name] = GaugeMetricFamily(named.name, named.meaning, labels=(*before, *named.labels))
    return family
