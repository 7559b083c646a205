"""Worker processes for tests: start them, kill them, ask them to end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rater.settings import Settings

TOY = Path(__file__).with_name("toy.py")
ROOT = Path(__file__).parents[2]


class WorkerProcess:
    """One run of a worker program (by default the toy). Its log is appended to the file `log`."""

    def __init__(self, settings: Settings, log: Path, program: Path = TOY) -> None:
        given = settings.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        variables = {f"RATER_{name.upper()}": str(value) for name, value in given.items()}
        self._log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, str(program)],
                env={**os.environ, **variables, "PYTHONPATH": str(ROOT)},
                stdout=out,
                stderr=out,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def wait(self, timeout_s: float) -> int:
        """Wait for the end and return the exit code. Raises TimeoutExpired."""
        return self._process.wait(timeout_s)

    def terminate(self) -> tuple[int, float]:
        """Send SIGTERM. Returns the exit code, and the seconds until the process ended."""
        started_s = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30), time.monotonic() - started_s

    def end(self) -> None:
        """Kill it if it is still running."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
