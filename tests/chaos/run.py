"""One chaos run: brokers, workers, a steady load, faults according to a schedule, and a check of all outputs at the end."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from rater.kafka.clients import lag, read_all
from rater.kafka.log import LogRecord
from rater.kafka.partitioning import partition_of
from rater.kafka.topic_admin import apply
from rater.kafka.topics import load_topics
from tests.chaos.brokers import BROKERS, Brokers
from tests.chaos.journal import Journal
from tests.chaos.schedule import BROKER_FAULTS, Fault, Step, make_schedule
from tests.chaos.verify import CdrCounts, Evidence, verify
from tests.chaos.workers import Worker
from tests.system.harness import OUTPUTS, publish
from tests.system.random_log import RandomLog

__all__ = ["ChaosError", "Plan", "Report", "run"]

_PARTITIONS = 4
_ORGANIZATIONS = 24
_DRAIN_TIMEOUT_S = 120.0
_SEND_TIMEOUT_MS = 90_000
_TICK_S = 0.02
_LOG_TAIL_CHARACTERS = 6000


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: `seconds` of load and faults. The seed determines schedule and load."""

    seed: int
    seconds: float
    cdrs_per_s: int = 300
    workers: int = 2
    session_ms: int = 4000

    @property
    def schedule(self) -> list[Step]:
        return make_schedule(self.seed, self.seconds, self.workers, BROKERS, self.session_ms / 1000)


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a successful run. `fenced`: how many processes ended because they were fenced."""

    plan: Plan
    faults: int
    starts: int
    fenced: int
    seconds: float
    counts: CdrCounts

    def __str__(self) -> str:
        counts = self.counts
        return (
            f"seed {self.plan.seed}: {self.faults} faults in {self.plan.seconds:.0f} s of load, {self.starts} worker starts, "
            f"{self.fenced} fenced; {counts.cdrs} CDRs = {counts.rated} rated + {counts.dead_lettered} dead-lettered + "
            f"{counts.duplicates} duplicates, {counts.commands} commands, {counts.transactions} transactions; same outputs "
            f"as simulate; took {self.seconds:.0f} s"
        )


class ChaosError(AssertionError):
    """A run failed. The message has the seed, what happened when, and the workers' logs."""


async def run(plan: Plan, directory: Path) -> Report:
    """Run the plan. Raises ChaosError if anything is wrong. Logs and stores stay in `directory`."""
    journal = Journal()
    chaos = _Chaos(plan, directory, journal)
    try:
        return await chaos.run()
    except Exception as error:
        raise ChaosError(chaos.story(error)) from error


class _Chaos:
    def __init__(self, plan: Plan, directory: Path, journal: Journal) -> None:
        self._plan = plan
        self._journal = journal
        self._directory = directory
        prefix = f"chaos-{uuid.uuid4().hex[:8]}."
        self._app_id = f"{prefix}rater"
        self._topics = load_topics(prefix, _PARTITIONS)
        self._log = RandomLog(self._topics, plan.seed, int(plan.cdrs_per_s * plan.seconds), _ORGANIZATIONS)
        self._brokers = Brokers(directory / "kafka")
        self._environment = {
            "RATER_TOPIC_PREFIX": prefix,
            "RATER_APP_ID": self._app_id,
            "RATER_PARTITIONS": str(_PARTITIONS),
            "RATER_SESSION_TIMEOUT_MS": str(plan.session_ms),
            "RATER_HEARTBEAT_INTERVAL_MS": "500",
            "RATER_REBALANCE_TIMEOUT_MS": "10000",
            "RATER_BROKER_TIMEOUT_MS": "10000",  # longer than the cluster needs to notice that a broker is dead
            "RATER_RETRY_WAIT_MS_MAX": "1000",
            "RATER_BATCH_RECORDS_MAX": "50",  # many transactions, so that faults hit some of them
        }
        self._workers: list[Worker] = []
        self._faults = 0

    async def run(self) -> Report:
        started_s = time.monotonic()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._brokers.close)
            await self._brokers.start()
            stack.callback(self._kill_workers)
            await apply(self._brokers.bootstrap, self._topics)
            await publish(self._brokers.bootstrap, self._topics, self._log.catalog)
            self._make_workers()
            async with asyncio.TaskGroup() as supervisors:
                supervising = [supervisors.create_task(worker.supervise()) for worker in self._workers]
                for worker in self._workers[: self._plan.workers]:
                    worker.start()
                    await worker.until_up()
                await self._load_under_fire()
                await self._drain()
                for task in supervising:
                    task.cancel()
            for worker in self._workers:
                await worker.stop()
            counts = verify(self._topics, await self._evidence())
            failures = [failure for worker in self._workers for failure in worker.failures]
            assert not failures, "; ".join(failures)
        starts = sum(len(worker.runs) for worker in self._workers)
        took_s = time.monotonic() - started_s
        return Report(self._plan, self._faults, starts, self._journal.counts["fenced"], took_s, counts)

    def story(self, error: Exception) -> str:
        """Everything you need to find out why a run failed."""
        steps = "\n".join(map(str, self._plan.schedule))
        parts = [
            f"chaos with seed {self._plan.seed} failed: {error!r}",
            f"The schedule:\n{steps}",
            f"What happened:\n{self._journal}",
        ]
        for worker in self._workers:
            parts += [
                f"The end of the log of {process.name}:\n{process.log[-_LOG_TAIL_CHARACTERS:]}" for process in worker.runs
            ]
        return "\n\n".join([*parts, f"All files are in {self._directory}."])

    def _make_workers(self) -> None:
        """Make static members, and one dynamic member that joins and leaves."""
        environment = self._environment | {"RATER_BOOTSTRAP": self._brokers.bootstrap}
        for number in range(self._plan.workers + 1):
            is_static = number < self._plan.workers
            self._workers.append(Worker(number, is_static, self._directory, environment, self._journal))

    def _kill_workers(self) -> None:
        for worker in self._workers:
            worker.kill_now()

    async def _load_under_fire(self) -> None:
        self._journal.note("the load begins")
        begun_s = time.monotonic()
        lanes: dict[int, list[Step]] = {}
        for step in self._plan.schedule:
            lane = -1 if step.fault in BROKER_FAULTS else step.target
            lanes.setdefault(lane, []).append(step)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publish_steadily(begun_s))
            for steps in lanes.values():
                tasks.create_task(self._inflict(steps, begun_s))

    async def _publish_steadily(self, begun_s: float) -> None:
        """Publish the traffic in order and at a steady rate. If a broker is away, it is delayed and then catches up."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._brokers.bootstrap, enable_idempotence=True, request_timeout_ms=_SEND_TIMEOUT_MS, linger_ms=5
        )
        await producer.start()
        try:
            sends: list[asyncio.Future[Any]] = []
            traffic = self._log.traffic
            while len(sends) < len(traffic):
                due = int(len(traffic) * min(1.0, (time.monotonic() - begun_s) / self._plan.seconds))
                for record in traffic[len(sends) : due]:
                    partition = partition_of((record.key or b"").decode(), _PARTITIONS)
                    sends.append(
                        await producer.send(
                            record.topic, record.value, key=record.key, partition=partition, timestamp_ms=record.timestamp
                        )
                    )
                await asyncio.sleep(_TICK_S)
            await producer.flush()
            for send in sends:
                await send
        finally:
            await producer.stop()
        self._journal.note(f"the load has ended: {len(sends)} records")

    async def _inflict(self, steps: Sequence[Step], begun_s: float) -> None:
        """Run the episodes of one target one after the other; late ones start at once."""
        for step in steps:
            await asyncio.sleep(max(0.0, begun_s + step.at_s - time.monotonic()))
            self._journal.note(f"begins: {step}")
            await self._inflict_one(step)
            self._journal.note(f"is over: {step}")
            self._journal.counts[step.fault] += 1
            self._faults += 1

    async def _inflict_one(self, step: Step) -> None:
        worker = None if step.fault in BROKER_FAULTS else self._workers[step.target]
        match step.fault, worker:
            case Fault.KILL, Worker():
                await worker.kill(step.for_s)
            case Fault.TERMINATE, Worker():
                await worker.terminate(step.for_s)
            case Fault.FREEZE, Worker():
                await worker.freeze(step.for_s)
            case Fault.TWIN, Worker():
                await worker.join_twin()
            case Fault.ZOMBIE, Worker():
                await worker.outlive(step.for_s)
            case Fault.LOSE_STORE, Worker():
                await worker.kill(step.for_s, lose_store=True)
            case Fault.JOIN, Worker():
                worker.start()
                await worker.until_up()
                await asyncio.sleep(step.for_s)
                await worker.stop()
            case Fault.KILL_BROKER, None:
                await self._brokers.kill(step.target, step.for_s)
            case Fault.BOUNCE_BROKER, None:
                await self._brokers.bounce(step.target, step.for_s)
            case Fault.MOVE_LEADERS, None:
                moved = await self._brokers.move_leaders(self._plan.seed)
                self._journal.note(f"{moved} leaders moved")

    async def _drain(self) -> None:
        """Wait until all input is committed."""
        deadline_s = time.monotonic() + _DRAIN_TIMEOUT_S
        left = -1
        while left != 0:
            if time.monotonic() > deadline_s:
                raise AssertionError(f"{left} records are not processed {_DRAIN_TIMEOUT_S:.0f} s after the end of the load")
            await asyncio.sleep(0.2)
            try:
                left = await lag(self._brokers.bootstrap, self._topics, self._app_id)
            except (KafkaError, OSError, TimeoutError):
                continue
        self._journal.note("all input has been processed")

    async def _evidence(self) -> Evidence:
        topics = self._topics
        inputs = await self._read([topics.command, topics.cdr])
        return Evidence(
            self._log.catalog,
            inputs,
            await self._read([topics.changelog]),
            await self._read([getattr(topics, name) for name in OUTPUTS]),
        )

    async def _read(self, names: Sequence[str]) -> list[LogRecord]:
        found, truncated = await read_all(self._brokers.bootstrap, names)
        assert not truncated
        return found
