"""Worker processes for tests: started, killed, asked to end."""

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
    """One run of a worker program, the toy by default. Its log is appended to a file of its own."""

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
        """Exit code; raises TimeoutExpired."""
        return self._process.wait(timeout_s)

    def terminate(self) -> tuple[int, float]:
        """SIGTERM: the exit code, and the seconds it took."""
        started_s = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30), time.monotonic() - started_s

    def end(self) -> None:
        """Whatever state it is in."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
