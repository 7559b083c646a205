"""Workers under a supervisor, which restarts those that end by themselves, like any orchestrator.

A worker's *identity* is its instance id and its data folder. Normally one process has it, for a short time two: a twin, or a
zombie and its successor.

A process may end by itself only if it was fenced. Any other reason fails the run.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.chaos.journal import Journal

__all__ = ["Worker"]

_UP = "read to the end, following"
_FENCED = "FencedError"
_RESTART_S = 0.5
_POLL_S = 0.05
_UP_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 45.0
_SHUTDOWN_S_MAX = 10.0  # the worker's own limit is 4.5 s, but the machine may be busy


class WorkerRun:
    """One run of `rater worker`, with its own log file."""

    def __init__(self, name: str, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as out:
            command = [sys.executable, "-m", "rater", "worker", "--agents", "rating"]
            self._process = subprocess.Popen(command, env=dict(environment), stdout=out, stderr=out)

    @property
    def code(self) -> int | None:
        return self._process.poll()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def last_words(self) -> str:
        critical = [line for line in self.log.splitlines() if '"level":"critical"' in line]
        return critical[-1] if critical else f"no critical log line; its log ends: {self.log[-300:]}"

    def send(self, sign: signal.Signals) -> None:
        if self.code is None:
            self._process.send_signal(sign)

    async def ended(self, timeout_s: float) -> int:
        """Wait for its end; returns its exit code. Raises subprocess.TimeoutExpired."""
        return await asyncio.to_thread(self._process.wait, timeout_s)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self._process.wait()


class Worker:
    """One identity. With `is_static` it is a static member; otherwise the group gives it a new member id at each start."""

    def __init__(self, number: int, is_static: bool, directory: Path, environment: Mapping[str, str], journal: Journal) -> None:
        self.name = f"worker {number}"
        self._directory = directory
        self._data = directory / f"worker-{number}"
        self._environment = {**os.environ, **environment, "RATER_DATA_DIR": str(self._data)}
        if is_static:
            self._environment["RATER_INSTANCE_ID"] = f"worker-{number}"
        self._journal = journal
        self._wanted = False
        self._processes: list[WorkerRun] = []
        self.runs: list[WorkerRun] = []
        self.failures: list[str] = []

    def start(self) -> None:
        """Start it, and restart it whenever it ends."""
        self._wanted = True
        self._launch()

    async def supervise(self) -> None:
        """Watch and restart the processes until cancelled."""
        gone_since_s = time.monotonic()
        while True:
            for process in [process for process in self._processes if process.code is not None]:
                self._processes.remove(process)
                self._has_ended(process)
            if not self._wanted or self._processes:
                gone_since_s = time.monotonic()
            elif time.monotonic() - gone_since_s > _RESTART_S:
                self._launch()
            await asyncio.sleep(_POLL_S)

    async def kill(self, for_s: float, *, lose_store: bool = False) -> None:
        """Send SIGKILL; restart after `for_s`, without its local store if `lose_store`."""
        self._wanted = False
        self.kill_now()
        if lose_store:
            await asyncio.to_thread(shutil.rmtree, self._data, ignore_errors=True)
        await asyncio.sleep(for_s)
        self.start()

    async def terminate(self, for_s: float) -> None:
        """Send SIGTERM once it is up; restart after `for_s`."""
        await self.until_up()
        await self.stop()
        await asyncio.sleep(for_s)
        self.start()

    async def stop(self) -> None:
        """Send SIGTERM. It must end in time, and with exit code 0 unless it was fenced at that moment."""
        self._wanted = False
        for process in self._take_processes():
            was_up = _UP in process.log
            sent_s = time.monotonic()
            process.send(signal.SIGTERM)
            code = await process.ended(_END_TIMEOUT_S)
            took_s = time.monotonic() - sent_s
            self._journal.note(f"{process.name} ended with {code} after SIGTERM in {took_s:.1f} s")
            if _FENCED in process.last_words:
                self._journal.counts["fenced"] += 1
            elif code != 0 and not (code == -signal.SIGTERM and not was_up):
                self._fail(process, f"ended with {code} after SIGTERM: {process.last_words}")
            if took_s > _SHUTDOWN_S_MAX:
                self._fail(process, f"took {took_s:.1f} s to end after SIGTERM")

    async def freeze(self, for_s: float) -> None:
        """Send SIGSTOP, and SIGCONT after `for_s`."""
        frozen = list(self._processes)
        for process in frozen:
            process.send(signal.SIGSTOP)
        await asyncio.sleep(for_s)
        for process in frozen:
            process.send(signal.SIGCONT)

    async def join_twin(self) -> None:
        """Start a second process with the same identity; one of the two must end."""
        twins = [*self._processes]
        twins.append(self._launch())
        await self._until_one_is_left(twins)

    async def outlive(self, for_s: float) -> None:
        """Freeze it, start its successor, and wake it after `for_s`: one must end, normally the zombie."""
        zombies = list(self._processes)
        for zombie in zombies:
            zombie.send(signal.SIGSTOP)
        successor = self._launch()
        await asyncio.sleep(for_s)
        for zombie in zombies:
            zombie.send(signal.SIGCONT)
        await self._until_one_is_left([*zombies, successor])

    def kill_now(self) -> None:
        """Kill all its processes, and don't restart them."""
        self._wanted = False
        for process in self._take_processes():
            process.kill()

    async def until_up(self) -> None:
        """Wait until it handles signals; gives up after `_UP_TIMEOUT_S`."""
        deadline_s = time.monotonic() + _UP_TIMEOUT_S
        while not any(_UP in process.log for process in self._processes):
            if time.monotonic() > deadline_s:
                return
            await asyncio.sleep(_POLL_S)

    async def _until_one_is_left(self, processes: list[WorkerRun]) -> None:
        deadline_s = time.monotonic() + _END_TIMEOUT_S
        while sum(process.code is None for process in processes) > 1:
            if time.monotonic() > deadline_s:
                self._fail(processes[0], f"still runs {_END_TIMEOUT_S:.0f} s after its twin started")
                processes[0].kill()
            await asyncio.sleep(_POLL_S)

    def _launch(self) -> WorkerRun:
        name = f"{self.name}, run {len(self.runs) + 1}"
        log = self._directory / f"{self._data.name}-{len(self.runs) + 1}.log"
        process = WorkerRun(name, log, self._environment)
        self._journal.note(f"{name} starts")
        self.runs.append(process)
        self._processes.append(process)
        return process

    def _take_processes(self) -> list[WorkerRun]:
        taken, self._processes = self._processes, []
        return taken

    def _has_ended(self, process: WorkerRun) -> None:
        self._journal.note(f"{process.name} ended by itself with {process.code}: {process.last_words}")
        if process.code == 1 and _FENCED in process.last_words:
            self._journal.counts["fenced"] += 1
        else:
            self._fail(process, f"ended by itself with {process.code}: {process.last_words}")

    def _fail(self, process: WorkerRun, what: str) -> None:
        self._journal.note(f"FAILURE: {process.name} {what}")
        self.failures.append(f"{process.name} {what}")
