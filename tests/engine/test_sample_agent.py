"""The agent of docs/how-to/write-an-agent.md: the page shows the code that runs, and the code counts exactly once."""

import asyncio
import importlib.util
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import msgspec

from rater.engine.app import wall_clock_ms
from rater.settings import Settings
from tests.engine.kafka_io import create, fill, read_all
from tests.engine.processes import WorkerProcess

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "samples" / "calls_by_country.py"
PAGE = ROOT / "docs" / "how-to" / "write-an-agent.md"
PARTITIONS, CALLS, KILLS = 2, 4000, 5


def sample() -> ModuleType:
    spec = importlib.util.spec_from_file_location("calls_by_country", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_code_of_the_sample() -> None:
    shown = PAGE.read_text().split("```python\n")[1].split("```")[0]
    assert shown in PROGRAM.read_text()


async def test_every_call_is_counted_once_though_the_worker_is_killed_again_and_again(
    bootstrap: str, prefix: str, settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = settings_of(batch_records_max=100)
    rated = f"{prefix}telephony.call.rated.v1"
    await create(bootstrap, [rated], PARTITIONS)
    draw, now_ms = random.Random(7), wall_clock_ms()
    wanted: Counter[tuple[int, str]] = Counter()
    for partition in range(PARTITIONS):
        countries = [draw.choice(("DE", "FR", "US", None)) for _ in range(CALLS)]
        wanted.update((partition, country or "-") for country in countries)
        calls = [msgspec.json.encode({"destination_country": country}) for country in countries]
        records = [(b"org", call, now_ms + n) for n, call in enumerate(calls)]
        await fill(bootstrap, rated, partition, records)
    await sample().create_topics(settings)

    counts = f"{prefix}calls-by-country"
    for life in range(KILLS + 1):
        worker = WorkerProcess(settings, tmp_path / "log", PROGRAM)
        try:
            async with asyncio.timeout(60):
                enough = PARTITIONS * CALLS if life == KILLS else (life + 1) * PARTITIONS * CALLS // (KILLS + 2)
                while len(await read_all(bootstrap, [counts], PARTITIONS)) < enough:  # noqa: ASYNC110 - the test needs the written records
                    await asyncio.sleep(0.05)
            if life == KILLS:
                assert worker.terminate()[0] == 0
        finally:
            worker.end()

    written = await read_all(bootstrap, [counts], PARTITIONS)
    latest = {(record.partition, record.key.decode()): int(record.value) for record in written}
    assert latest == dict(wanted)
    assert len(written) == PARTITIONS * CALLS, "no count is written twice"
