"""A group of workers, faults that follow from a seed, and what must be true at the end.

`live_through(seed)` simulates one small cluster. Records, aborted ones among them, wait or arrive on two co-partitioned topics.
Workers start, are killed at any step, are stopped for longer than their session, are removed from the group without knowing it,
are told to leave, or are joined by others. Requests and answers are lost, and commits take effect late. Changelogs are
compacted. Disks lose their last writes or everything. Then the faults end, and the workers must process all remaining records.

At the end, every input record has had exactly one effect, in order, and outputs, state and offsets agree (`check`).
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from rater.engine import checkpoint, engine, output, task, watchdog
from rater.engine.api import Record, Sink, State
from rater.engine.broker import TopicPartition
from rater.engine.errors import FencedError
from rater.engine.groups import TaskGroup
from rater.engine.overlay import apply_changelog, read_meta
from rater.engine.store import MemoryStore
from rater.settings import Settings
from tests.engine.simulated.broker import Broker, Stored
from tests.engine.simulated.loop import VirtualLoop, run
from tests.engine.simulated.process import Disk, Faults, Process

PARTITIONS = 2
INPUTS = ("commands", "calls")
OUTPUT = "rated"
CHANGELOG = "changelog"
APP = "app"
TROUBLE_S = 12.0
PATIENCE_S = 300.0
_SESSION_S = 1.0

SETTINGS = Settings(
    app_id=APP,
    batch_records_max=4,
    broker_timeout_ms=500,
    merge_wait_ms_max=200,
    rebalance_timeout_ms=1000,
    retry_wait_ms_max=1000,
    stall_ms_max=60_000,
    stall_is_fatal=True,
    data_dir=Path("/nowhere"),
)


class Counting:
    """Counts an organization's records, adds up their values, and emits both with each record."""

    def __init__(self, state: State, sink: Sink) -> None:
        self._state = state
        self._sink = sink

    async def process(self, records: Sequence[Record]) -> None:
        for record in records:
            key = record.key or b""
            row = self._state.get(b"a" + key)
            number, total = (0, 0) if row is None else msgspec.json.decode(row, type=tuple[int, int])
            account = (number + 1, total + int(record.value or b"0"))
            self._state.put(b"a" + key, msgspec.json.encode(account))
            self._state.append(record.timestamp // 20, b"%s-%d" % (record.topic.encode(), record.offset), b"1")
            said = msgspec.json.encode((record.topic, record.offset, *account))
            self._sink.emit(OUTPUT, key, said, record.timestamp)


GROUP = TaskGroup("sums", INPUTS, CHANGELOG, (OUTPUT,), memory=lambda partition, state, sink: Counting(state, sink))


class WrongError(AssertionError):
    """The result is wrong. The message ends with the trace of all that happened."""


class World:
    """The cluster of one seed."""

    def __init__(self, seed: int) -> None:
        self.loop = VirtualLoop()
        self.draw = random.Random(seed)
        self.broker = Broker()
        self.trace: list[str] = [f"seed {seed}"]
        self.machines = {f"w{i}": Disk() for i in range(self.draw.choice((1, 2, 2, 3)))}
        self.processes: dict[str, Process] = {}
        self._members: list[Process] = []
        self._balancing = asyncio.Lock()
        self._trouble = self.draw.choice((0.0, 0.01, 0.05))
        self.wrong: list[str] = []
        self._calm = False

    def note(self, what: str) -> None:
        self.trace.append(f"{self.loop.time():8.3f} {what}")

    async def live(self) -> None:
        """Run with faults for a while, then without until all records are processed."""
        self._publish(self.draw.randrange(10))
        running = [asyncio.create_task(self._run_machine(name)) for name in self.machines]
        happening = [asyncio.create_task(self._befall()), asyncio.create_task(self._arrive())]
        await asyncio.wait(happening)
        for event in happening:
            event.result()
        self._calm = True
        self.note("calm")
        for process in self.processes.values():
            process.trouble = 0.0
            process.resume()
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not self._is_done():  # noqa: ASYNC110 - virtual time
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise WrongError(f"not done {PATIENCE_S} s after the trouble ended") from None
        for machine in running:
            machine.cancel()

    async def _do_as(self, process: Process, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as the process. Returns when it is done or the process has been killed."""
        await asyncio.wait([self.loop.start_as(process, work)])

    def _publish(self, count: int) -> None:
        """Publish records of a few organizations, some in transactions that are committed or aborted."""
        for _ in range(count):
            org = b"org%d" % self.draw.randrange(5)
            tp = TopicPartition(self.draw.choice((*INPUTS, "calls", "calls")), org[-1] % PARTITIONS)
            record = (int(self.loop.time() * 1000), org, b"%d" % self.draw.randrange(100), ())
            switch = self.draw.choice((None, None, None, "switch"))
            epoch = 0 if switch is None else self.broker.init_producer(switch)
            self.broker.append(switch, epoch, tp, [record])
            if switch is not None:
                self.broker.end_transaction(switch, epoch, commit=self.draw.random() < 0.6)

    async def _arrive(self) -> None:
        while self.loop.time() < TROUBLE_S:
            await asyncio.sleep(self.draw.random())
            self._publish(self.draw.randrange(4))

    async def _befall(self) -> None:
        """Do things to the workers, one after another."""
        things = (self._kill, self._kill, self._stop_for_long, self._put_out, self._leave, self._compact, self._rebalance)
        while self.loop.time() < TROUBLE_S:
            await asyncio.sleep(self.draw.random() * 2.0)
            process = self.processes.get(self.draw.choice(list(self.machines)))
            if process is not None and process.alive:
                thing = self.draw.choice(things)
                self.note(f"{thing.__name__} {process.name}")
                await thing(process)

    async def _kill(self, process: Process) -> None:
        process.kill()

    async def _stop_for_long(self, process: Process) -> None:
        process.stop()
        await asyncio.sleep(_SESSION_S * self.draw.choice((0.3, 1.5)))
        if process.stopped and process.member and self.draw.random() < 0.7:
            await self._forget(process)
        process.resume()

    async def _put_out(self, process: Process) -> None:
        """Remove it from the group. It learns that later, or never if it is killed before."""
        await self._forget(process)

    async def _leave(self, process: Process) -> None:
        """End it as after SIGTERM."""
        await self._do_as(process, process.engine.close(1.0))
        self._end(process)
        await self._rebalance(process)

    async def _compact(self, process: Process) -> None:
        for partition in range(PARTITIONS):
            self.broker.compact(TopicPartition(CHANGELOG, partition))

    async def _forget(self, process: Process) -> None:
        process.member = False
        await self._rebalance(process)
        self.loop.call_later(self.draw.random() * 2.0, self._tell, process)

    def _tell(self, process: Process) -> None:
        """Its heartbeat is answered with "unknown member": it closes its tasks and joins again."""
        if process.alive and not process.member:
            self.note(f"told {process.name}")
            self.loop.start_as(process, self._join_anew(process))

    async def _join_anew(self, process: Process) -> None:
        process.consumer.assign(())
        await process.engine.revoke()
        await process.step()
        process.member = True
        self.loop.create_task(self._rebalance(process))

    async def _rebalance(self, _: Process) -> None:
        """Revoke all partitions, then assign them again. A process that doesn't respond in time is removed from the group."""
        async with self._balancing:
            members = [process for process in self.processes.values() if process.alive and process.member]
            revoking = [self.loop.start_as(process, _revoke(process)) for process in members]
            if revoking:
                await asyncio.wait(revoking, timeout=_SESSION_S)
            for process, revoked in zip(members, revoking, strict=True):
                if not revoked.done():
                    process.member = False
                    self.loop.call_later(self.draw.random() * 2.0, self._tell, process)
            members = [process for process in members if process.alive and process.member]
            for i, process in enumerate(members):
                mine = [p for p in range(PARTITIONS) if p % len(members) == i]
                tps = [TopicPartition(topic, partition) for topic in INPUTS for partition in mine]
                self.note(f"assigned {process.name} {mine}")
                process.consumer.assign(tps)
                await self._do_as(process, process.engine.assign(tps))

    async def _run_machine(self, name: str) -> None:
        """Start a worker, and start it again whenever it has ended."""
        disk = self.machines[name]
        while True:
            await asyncio.sleep(self.draw.random())
            die_at = self.draw.randrange(1, 400) if not self._calm and self.draw.random() < 0.7 else None
            faults = Faults(self.draw, 0.0 if self._calm else self._trouble, die_at)
            process = Process(name, self.loop, self.broker, disk, GROUP, SETTINGS, faults)
            self.processes[name] = process
            self.note(f"start {name}, to die at step {die_at}")
            await self._run_process(process)
            await self._rebalance(process)

    async def _run_process(self, process: Process) -> None:
        starting = self.loop.start_as(process, process.engine.start())
        await asyncio.wait([starting])
        if not starting.cancelled() and starting.exception() is None:
            process.member = True
            await self._rebalance(process)
        while process.alive and process.engine.failure is None and starting.exception() is None:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.1)
        if process.alive:
            failure = process.engine.failure
            self.note(f"{process.name} ended: {failure!r}")
            self._end(process)
            if failure is not None and not isinstance(failure, FencedError):
                self.wrong.append(f"{process.name} ended by {failure!r}")
        else:
            self.note(f"{process.name} was killed at step {process.steps}")
            self._crash(process.disk)

    def _end(self, process: Process) -> None:
        process.member = False
        process.kill()

    def _crash(self, disk: Disk) -> None:
        """Apply a crash to the disk: usually it keeps everything, sometimes it loses the last writes, sometimes everything."""
        chance = self.draw.random()
        if chance < 0.15:
            disk.wipe()
        elif chance < 0.4:
            disk.lose_last(self.draw.randrange(4))

    def _is_done(self) -> bool:
        wanted = sum(len(self.broker.partitions[tp].committed()) for tp in _tps(*INPUTS))
        return sum(len(self.broker.partitions[tp].committed()) for tp in _tps(OUTPUT)) >= wanted

    def check(self) -> None:
        """Raise `WrongError` unless every record was processed once and correctly."""
        if self.wrong:
            raise WrongError("; ".join(self.wrong))
        for partition in range(PARTITIONS):
            inputs = {topic: self.broker.partitions[TopicPartition(topic, partition)].committed() for topic in INPUTS}
            outputs = self.broker.partitions[TopicPartition(OUTPUT, partition)].committed()
            accounts = _check_outputs(inputs, outputs)
            self._check_state(partition, inputs, accounts)

    def _check_state(self, partition: int, inputs: dict[str, list[Stored]], accounts: dict[bytes, tuple[int, int]]) -> None:
        """Check that the changelog alone restores every account, and says how far the input has been read."""
        store = MemoryStore()
        changelog = self.broker.partitions[TopicPartition(CHANGELOG, partition)]
        apply_changelog(store, ((r.key or b"", r.value) for r in changelog.committed()), changelog.end)
        rows = {key[2:]: tuple(msgspec.json.decode(value[1:])) for key, value in store.scan(b"ra")}
        _agree("accounts in the changelog", rows, accounts)
        meta = read_meta(store)
        for topic, records in inputs.items():
            position = 0 if meta is None else meta.positions[topic]
            _agree(f"{topic}[{partition}] left to read", [r.offset for r in records if r.offset >= position], [])
            committed = self.broker.offsets.get((APP, TopicPartition(topic, partition)))
            if records:
                _agree(f"the group's offset of {topic}[{partition}]", committed, position)


def live_through(seed: int) -> World:
    """Simulate the cluster of one seed. Raises `WrongError`, with the trace, if anything is wrong at the end."""
    world = World(seed)
    try:
        with _virtual_time(world.loop):
            run(world.loop, world.live)
        world.check()
    except WrongError as wrong:
        raise WrongError(f"{wrong}\n" + "\n".join(world.trace)) from None
    return world


def _check_outputs(inputs: dict[str, list[Stored]], outputs: list[Stored]) -> dict[bytes, tuple[int, int]]:
    """Check that every record came out once, in its topic's order, with the right count and sum. Returns the last by key."""
    said = [msgspec.json.decode(record.value or b"", type=tuple[str, int, int, int]) for record in outputs]
    for topic, records in inputs.items():
        _agree(f"outputs of {topic}", [s[1] for s in said if s[0] == topic], [record.offset for record in records])
    amounts = {(topic, record.offset): int(record.value or b"0") for topic, records in inputs.items() for record in records}
    accounts: dict[bytes, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for record, (topic, offset, number, total) in zip(outputs, said, strict=True):
        before = accounts[record.key or b""]
        accounts[record.key or b""] = (before[0] + 1, before[1] + amounts[topic, offset])
        _agree(f"{record.key!r} at {topic} {offset}", (number, total), accounts[record.key or b""])
    return dict(accounts)


def _agree(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise WrongError(f"{what}: found {found}, should be {wanted}")


async def _revoke(process: Process) -> None:
    process.consumer.assign(())
    await process.engine.revoke()
    await process.step()


def _tps(*topics: str) -> Iterator[TopicPartition]:
    return (TopicPartition(topic, partition) for topic in topics for partition in range(PARTITIONS))


@contextmanager
def _virtual_time(loop: VirtualLoop) -> Iterator[None]:
    """Make the engine's clocks those of the loop."""
    clock = SimpleNamespace(time=loop.time, monotonic=loop.time, time_ns=lambda: int(loop.time() * 1e9))
    modules = (engine, task, checkpoint, output, watchdog)
    real = modules[0].time
    for module in modules:
        module.time = clock  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in modules:
            module.time = real  # type: ignore[attr-defined]
