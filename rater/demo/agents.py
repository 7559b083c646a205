"""The worker processes of the demo: started, watched, and ended as an operator would."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_TAIL_CHARACTERS = 3000


class DemoError(Exception):
    """The demo can't go on; the message says why."""


class Agents:
    """Some of the agents, each in a `rater worker` of its own. `check` wherever something is awaited of them."""

    def __init__(self, bootstrap: str, app_id: str, directory: Path, names: Sequence[str]) -> None:
        self._names = names
        self._directory = directory
        self._settings = {"RATER_BOOTSTRAP": bootstrap, "RATER_APP_ID": app_id, "RATER_DATA_DIR": str(directory / "data")}
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self) -> None:
        """Start them all; returns before they are ready."""
        for name in self._names:
            with self._log(name).open("wb") as log:
                self._processes[name] = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "rater", "worker", "--agents", name),
                    env=os.environ | self._settings,
                    stdout=log,
                    stderr=log,
                )

    def check(self) -> None:
        """Raise `DemoError` if one of them is no more."""
        for name, process in self._processes.items():
            if process.returncode is not None:
                raise self._ended(name, process.returncode)

    async def until_one_ends(self) -> None:
        """Return when one of them has ended, which none should."""
        waits = [asyncio.ensure_future(process.wait()) for process in self._processes.values()]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in waits:
                waiting.cancel()

    async def stop(self) -> None:
        """Ask them to end, and wait for that."""
        for process in self._processes.values():
            if process.returncode is None:
                process.terminate()
        for process in self._processes.values():
            await process.wait()

    def check_ended_well(self) -> None:
        """Raise `DemoError` if one of them has ended with anything but 0."""
        for name, process in self._processes.items():
            if process.returncode:
                raise self._ended(name, process.returncode)

    def _ended(self, name: str, code: int) -> DemoError:
        tail = self._log(name).read_text(errors="replace")[-_TAIL_CHARACTERS:]
        return DemoError(f"the {name} worker ended with {code}:\n{tail}")

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"
