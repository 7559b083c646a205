"""Exports the metrics of a worker, as `docs/metrics.md` lists them.

Nothing is computed where records are processed: the engine and the agents keep plain numbers, and a scrape reads them. What an
agent counts is declared beside it (`MetricDefinition`); this module only exports. A number that is not declared is a mistake,
and fails the scrape.
"""

import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

import rater
from rater import compiled
from rater.engine.app import EngineApp
from rater.engine.groups import TaskGroup
from rater.engine.stats import MetricDefinition, TaskStats

__all__ = ["WorkerCollector", "registry_of"]


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
        yield from self._counters()
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

    def _counters(self) -> Iterator[Metric]:
        for group, app in self._groups():
            declared = {metric.key: metric for metric in group.metrics if metric.kind == "counter"}
            counts: dict[str, Counter[tuple[str, ...]]] = {key: Counter() for key in declared}
            for (name, _), task in app.engine.stats.tasks.items():
                for (key, *labels), count in task.counts.items() if name == group.name else ():
                    counts[key][tuple(labels)] += count
            for key, found in counts.items():
                yield _counter(declared[key], found)

    def _gauges(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for group, app in self._groups():
            declared = _gauges_of(group.metrics)
            for partition, task in self._mine(app):
                for (key, *labels), value in task.gauges.items():
                    _gauge(families, declared[key], ("partition",)).add_metric((str(partition), *labels), value)
        for app in self._apps:
            declared = _gauges_of(app.metrics)
            for (key, *labels), value in app.gauges().items():
                _gauge(families, declared[key]).add_metric(labels, value)
        yield from families.values()

    def _groups(self) -> Iterator[tuple[TaskGroup, EngineApp]]:
        for app in self._apps:
            for group in app.engine.groups:
                yield group, app

    def _agents(self) -> Iterator[tuple[str, EngineApp]]:
        for app in self._apps:
            yield app.engine.groups[0].name, app

    @staticmethod
    def _mine(app: EngineApp) -> Iterator[tuple[int, TaskStats]]:
        for group, partition in app.engine.assigned:
            yield partition, app.engine.stats.tasks[group, partition]


def _gauges_of(metrics: Iterable[MetricDefinition]) -> dict[str, MetricDefinition]:
    return {metric.key: metric for metric in metrics if metric.kind == "gauge"}


def _counter(metric: MetricDefinition, counts: Mapping[tuple[str, ...], int]) -> Metric:
    family = CounterMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    zeros = {} if metric.begins_at_0 is None else dict.fromkeys(product(*metric.begins_at_0), 0)
    for labels, count in {**zeros, **counts}.items():
        family.add_metric(labels, count / metric.scale if metric.scale > 1 else count)
    return family


def _gauge(families: dict[str, GaugeMetricFamily], metric: MetricDefinition, before: tuple[str, ...] = ()) -> GaugeMetricFamily:
    family = families.get(metric.name)
    if family is None:
        labels = (*before, *metric.labels)
        family = families[metric.name] = GaugeMetricFamily(metric.name, metric.meaning, labels=labels)
    return family
