"""Faust's own view of a worker: its agents, sensors and command line. And an agent that dies ends the worker."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterable, Callable
from pathlib import Path
from typing import Any

import pytest
from faust.sensors.base import Sensor

from rater.bootstrap import AGENTS, engine_settings, make_agents
from rater.engine.app import EngineApp
from rater.engine.batches import Batch
from rater.engine.errors import FatalError
from rater.engine.groups import TaskGroup
from rater.engine.run import serve
from rater.settings import Settings
from tests.engine.calls import calls
from tests.engine.kafka_io import fill, make_topics
from tests.engine.toy import group, toy_app

RECORDS = 500


class Seeing(Sensor):
    """Records every event that an agent takes, as (topic, partition, offset)."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[str, int, int]] = []
        self.done = 0

    def on_stream_event_in(self, tp: Any, offset: int, stream: Any, event: Any) -> None:
        self.taken.append((tp.topic, tp.partition, offset))

    def on_stream_event_out(self, tp: Any, offset: int, stream: Any, event: Any, state: Any = None) -> None:
        self.done += 1


async def test_the_app_lists_its_agents(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        payment_gateway="stripe",
        stripe_api_key="sk_test_1",  # type: ignore[arg-type]
        mail_host="127.0.0.1",
        mail_from="credit@rater.example",
    )
    assert [list(app.agents) for app in make_agents(settings, AGENTS)] == [[name] for name in AGENTS]


async def test_sensors_see_every_batch_with_its_place(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings]
) -> None:
    await make_topics(bootstrap, prefix, 1)
    await fill(bootstrap, f"{prefix}calls", 0, calls(0, RECORDS))
    app, stop, seeing = toy_app(settings_of(batch_records_max=100)), asyncio.Event(), Seeing()
    app.sensors.add(seeing)
    serving = asyncio.create_task(serve(app, stop))
    async with asyncio.timeout(30):
        while app.engine.stats.records < RECORDS:  # noqa: ASYNC110 - the test needs this metric
            await asyncio.sleep(0.02)
    stop.set()
    await serving
    assert len(seeing.taken) == app.engine.stats.batches == seeing.done
    assert seeing.taken[0] == (f"{prefix}calls", 0, 0)


@pytest.mark.parametrize("name", ["", *(f":{name}" for name in ("rating", "timer"))])
def test_fausts_command_line_lists_the_agents_with_their_topics(name: str) -> None:
    faust = Path(sys.executable).with_name("faust")
    listed = subprocess.run(
        [faust, "-A", f"rater.apps{name}", "agents"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert listed.returncode == 0, listed.stderr
    assert ("@timer" if name == ":timer" else "@rating") in listed.stdout
    assert ("credits.account.state.v1" if name == ":timer" else "telephony.cdr.v1") in listed.stdout


def dying_app(settings: Settings, how: str) -> EngineApp:
    app = EngineApp(engine_settings(settings))
    toy: TaskGroup = group(settings.topic_prefix)

    @app.agent(app.batches(toy), name="dying")
    async def dying(stream: AsyncIterable[Batch]) -> None:
        async for batch in stream:
            if how == "raises between batches":
                raise ValueError("outside of a batch")
            if how == "never enters":
                continue
            async with batch:
                pass
            if how == "returns":
                return

    return app


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raises between batches", "agent dying raised ValueError"),
        ("returns", "agent dying returned"),
        ("never enters", "without entering it"),
    ],
)
async def test_an_agent_that_dies_ends_the_worker(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], how: str, said: str
) -> None:
    await make_topics(bootstrap, prefix, 1)
    await fill(bootstrap, f"{prefix}calls", 0, calls(0, 10))
    async with asyncio.timeout(30):
        with pytest.raises(FatalError, match=said):
            await serve(dying_app(settings_of(), how), asyncio.Event())
