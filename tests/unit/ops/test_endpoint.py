"""Health and metrics over HTTP: what a worker answers, to whom, and on which port."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from rater.bootstrap import make_agents
from rater.engine.errors import FatalError
from rater.ops.endpoint import PORTS, Health, watched
from rater.settings import Settings

TOKEN = "correct-horse-battery"


class Engine:
    """The part of an engine that `Health` uses."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.lacking: list[str] = []

    def alive(self) -> bool:
        return not self.wrong

    def troubles(self) -> list[str]:
        return self.wrong

    def missing(self) -> list[str]:
        return self.lacking


def app() -> Any:
    return SimpleNamespace(engine=Engine(), conf=SimpleNamespace(id="rater"))


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


@pytest.fixture
def port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings_of(tmp_path: Path, **given: Any) -> Settings:
    return Settings(data_dir=tmp_path, **given)


async def test_a_worker_that_has_no_partitions_yet_is_alive_and_not_ready(
    http: ClientSession, tmp_path: Path, port: int
) -> None:
    settings = settings_of(tmp_path, http_port=port)
    async with watched(settings, make_agents(settings, ["rating"])):
        async with http.get(f"http://127.0.0.1:{port}/livez") as answer:
            assert (answer.status, await answer.text()) == (200, "alive\n")
        async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
            assert answer.status == 503
            assert "no partitions have been assigned yet" in await answer.text()


def test_a_process_is_healthy_only_if_all_of_its_agents_are() -> None:
    well, ill = app(), app()
    health = Health([well, ill])
    assert health.is_alive()
    assert health.is_ready()
    ill.engine.lacking = ["rating[0] is being opened"]
    assert health.is_alive()
    assert not health.is_ready()
    ill.engine.wrong = ["rating[0] makes no progress"]
    assert not health.is_alive()
    assert health.troubles() == ["rating[0] makes no progress"]


async def test_metrics_can_be_read_by_prometheus(http: ClientSession, tmp_path: Path, port: int) -> None:
    settings = settings_of(tmp_path, http_port=port)
    url = f"http://127.0.0.1:{port}/metrics"
    async with watched(settings, make_agents(settings, ["rating", "timer"])), http.get(url) as answer:
        families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
    assert {sample.labels["code"] for sample in families["rater_dead_letters"].samples} >= {"no_rate", "malformed_json"}
    assert families["rater_alive"].samples[0].value == 1
    assert {sample.labels["agent"] for sample in families["rater_rebalances"].samples} == {"rating", "timer"}


@pytest.mark.parametrize("path", ["livez", "readyz", "metrics"])
async def test_if_there_is_a_token_requests_without_it_are_refused(
    http: ClientSession, tmp_path: Path, port: int, path: str
) -> None:
    settings = settings_of(tmp_path, http_port=port, http_token=TOKEN)
    async with watched(settings, make_agents(settings, ["timer"])):
        url = f"http://127.0.0.1:{port}/{path}"
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            async with http.get(url, headers=headers) as answer:
                assert answer.status == 401
                assert "rater" not in await answer.text()
        async with http.get(url, headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
            assert answer.status in (200, 503)


def test_an_endpoint_that_is_not_on_loopback_needs_a_token() -> None:
    with pytest.raises(ValueError, match="http_token"):
        Settings(http_host="0.0.0.0")


async def test_each_worker_on_a_machine_finds_a_port_of_its_own(http: ClientSession, tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    async with watched(settings, make_agents(settings, ["timer"])), watched(settings, make_agents(settings, ["timer"])):
        answering = 0
        for port in PORTS:
            try:
                async with http.get(f"http://127.0.0.1:{port}/livez") as answer:
                    answering += answer.status == 200
            except OSError:
                continue
        assert answering >= 2


async def test_a_configured_port_that_is_taken_ends_the_worker(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = settings_of(tmp_path, http_port=taken.getsockname()[1])
        with pytest.raises(FatalError, match="http_port"):
            async with watched(settings, make_agents(settings, ["timer"])):
                pass


async def test_fausts_own_pages_are_off(tmp_path: Path) -> None:
    (rating,) = make_agents(settings_of(tmp_path), ["rating"])
    assert not rating.conf.web_enabled
    assert not rating.conf.web_tables_enabled
    assert not any("web" in type(service).__module__ for service in rating.boot_strategy.server())


async def test_the_probe_asks_the_machines_own_worker(tmp_path: Path, port: int) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    settings = settings_of(tmp_path, http_port=port, http_token=TOKEN)
    environment = {"RATER_HTTP_PORT": str(port), "RATER_HTTP_TOKEN_FILE": str(token_file)}
    assert await probe("livez", environment) == (1, True)
    async with watched(settings, make_agents(settings, ["timer"])):
        assert await probe("livez", environment) == (0, False)
        assert await probe("readyz", environment) == (1, False)
        assert await probe("livez", {"RATER_HTTP_PORT": str(port)}) == (1, False)


async def probe(path: str, environment: dict[str, str]) -> tuple[int, bool]:
    """Run the probe. Returns its exit code, and whether it printed that it got no answer."""
    command = [sys.executable, "-m", "rater.ops.probe", path]
    process = await asyncio.create_subprocess_exec(*command, env=os.environ | environment, stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, b"no answer" in said
