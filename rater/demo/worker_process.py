"""The demo's `rater worker` process: started, watched and stopped as an operator would do it."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_TAIL_CHARACTERS = 3000


class DemoError(Exception):
    """The demo can't continue; the message says why."""


class WorkerProcess:
    """A `rater worker` with these agents, its output in `log`. Call `check` regularly while you wait for it."""

    def __init__(self, agents: Sequence[str], settings: Mapping[str, str], log: Path) -> None:
        self._agents = agents
        self._settings = settings
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it. Returns before it is ready."""
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "rater", "worker", "--agents", ",".join(self._agents)),
                env={**os.environ, **self._settings},
                stdout=log,
                stderr=log,
            )

    def check(self) -> None:
        """Raise `DemoError` if it has ended."""
        if self._process is None or self._process.returncode is not None:
            raise self._ended()

    async def until_ended(self) -> None:
        """Wait for it to end by itself, which it shouldn't."""
        assert self._process is not None
        await self._process.wait()

    async def stop(self) -> None:
        """Send SIGTERM and wait until it has ended. Raises `DemoError` if its exit code is not 0."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.terminate()
            if await self._process.wait():
                raise self._ended()

    def _ended(self) -> DemoError:
        code = None if self._process is None else self._process.returncode
        tail = self._log.read_text(errors="replace")[-_TAIL_CHARACTERS:]
        return DemoError(f"the worker ended with exit code {code}. The end of its log:\n{tail}")
