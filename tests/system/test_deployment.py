"""Runs the services of `docker-compose.yml` without containers: the same commands and variables, on the embedded Kafka.

Only addresses, ports and folders differ.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rater.demo.mailbox import Mailbox
from rater.embedded import EmbeddedKafka
from tests.deploy_files import ROOT, compose_services, image_entrypoint, image_environment, raters

PREFIX = "compose."
ONCE_TIMEOUT_S = 60
PROMPT_TIMEOUT_S = 40.0
POLL_S = 0.2
LOADS = ("load-rates", "load-plans", "load-organizations", "publish-calls")


class Bare:
    """The services of the compose file, run as plain processes."""

    def __init__(self, kafka: EmbeddedKafka, mail_port: int, folder: Path) -> None:
        self._services = compose_services()
        self._kafka = kafka
        self._mail_port = mail_port
        self._folder = folder
        (folder / "run").mkdir()

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start the service's entry point (by default the image's) with the service's command, as a container would."""
        service = self._services[name]
        with (self._folder / f"{name}.log").open("wb") as log:
            command = [*service.get("entrypoint", image_entrypoint()), *service["command"]]
            return subprocess.Popen(self._here(command), env=self._environment(name), stdout=log, stderr=log)

    def run(self, name: str) -> None:
        """Run a service that ends by itself, and check that its exit code is 0."""
        assert self.start(name).wait(ONCE_TIMEOUT_S) == 0, self.log(name)

    def is_healthy(self, name: str) -> bool:
        """Whether the service's health check succeeds."""
        kind, *command = self._services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        asked = subprocess.run(self._here(command), env=self._environment(name), capture_output=True, timeout=10, check=False)
        return asked.returncode == 0

    @contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a service, and kill it at the end of the block."""
        process = self.start(name)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def _environment(self, name: str) -> dict[str, str]:
        outside = {variable: value for variable, value in os.environ.items() if not variable.startswith("RATER_")}
        inside = raters(image_environment() | self._services[name]["environment"])
        elsewhere = {
            "RATER_BOOTSTRAP": self._kafka.bootstrap,
            "RATER_HTTP_HOST": "127.0.0.1",
            "RATER_HTTP_PORT": self._port(name),
            "RATER_DATA_DIR": str(self._folder / name),
            "RATER_MAIL_HOST": "127.0.0.1",
            "RATER_MAIL_PORT": str(self._mail_port),
        }
        moved = {variable: elsewhere.get(variable, self._moved(value)) for variable, value in inside.items()}
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return outside | moved | {"PATH": programs, "RATER_TOPIC_PREFIX": PREFIX, "RATER_APP_ID": "compose"}

    def _here(self, command: list[str]) -> list[str]:
        return list(map(self._moved, command))

    def _moved(self, text: str) -> str:
        return text.replace("/run/rater", str(self._folder / "run")).replace("/samples/", f"{ROOT}/samples/")

    def _port(self, name: str) -> str:
        file = self._folder / f"{name}.port"
        if not file.exists():
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                file.write_text(str(probe.getsockname()[1]))
        return file.read_text()


async def test_the_services_of_the_compose_file_start_load_rate_and_write_mails(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    async with Mailbox(tmp_path / "mails") as mailbox:
        bare = Bare(kafka, mailbox.port, tmp_path)
        for once in ("token", "topics"):
            await asyncio.to_thread(bare.run, once)
        with bare.running("worker") as worker, bare.running("notification") as notification:
            for name in ("worker", "notification"):
                await until(partial(bare.is_healthy, name), bare, name)
            for once in LOADS:
                await asyncio.to_thread(bare.run, once)
            await until(lambda: "balance" in " ".join(mailbox.subjects).lower(), bare, "notification")
            for process in (worker, notification):
                process.terminate()
                assert await asyncio.to_thread(process.wait, 20) == 0


async def until(met: Callable[[], bool], bare: Bare, name: str) -> None:
    """Wait until the condition is met. `name` is the service whose log is shown if it is not met in time."""
    deadline_s = time.monotonic() + PROMPT_TIMEOUT_S
    while not await asyncio.to_thread(met):
        assert time.monotonic() < deadline_s, bare.log(name)
        await asyncio.sleep(POLL_S)
