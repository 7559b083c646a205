"""`rater simulate` over a month of a real operator: a million CDRs; time and memory."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from rater.kafka.log import LogRecord, LogWriter
from rater.kafka.topics import Topics, load_topics
from tests.bench import traffic

CDRS = 1_000_000
ORGANIZATIONS = 200
MONTH_MS = 31 * 86_400_000


async def run(console: Console, quick: bool) -> None:
    """Measure and print, also for a tenth of the CDRs, to see what grows."""
    cdrs = CDRS // 10 if quick else CDRS
    table = Table("CDRs", "s", "CPU s", "peak memory, MB")
    with tempfile.TemporaryDirectory() as name:
        for count in (cdrs // 10, cdrs):
            log = Path(name) / "month.jsonl"
            _write(log, count)
            wall_s, cpu_s, memory_mb = _simulate(log)
            table.add_row(f"{count:,}", f"{wall_s:.1f}", f"{cpu_s:.1f}", f"{memory_mb:.0f}")
    console.print(table)


def _write(log: Path, cdrs: int) -> None:
    topics, writer = load_topics(), LogWriter()
    with log.open("wb") as file:
        for record in [*traffic.catalog(topics), *traffic.accounts(topics, ORGANIZATIONS)]:
            file.write(writer.line(record))
        file.writelines(map(writer.line, _month(topics, cdrs)))


def _month(topics: Topics, cdrs: int) -> Iterator[LogRecord]:
    """The calls of `traffic`, spread over a month."""
    first_ms = None
    for i, call in enumerate(traffic.calls(topics, cdrs, ORGANIZATIONS)):
        first_ms = first_ms or call.timestamp
        at_ms = first_ms + i * MONTH_MS // cdrs
        cdr = msgspec.json.decode(call.value or b"")
        cdr["answered_at"] = datetime.fromtimestamp(at_ms / 1000, UTC)
        yield LogRecord(call.topic, at_ms, call.key, msgspec.json.encode(cdr))


def _simulate(log: Path) -> tuple[float, float, float]:
    """Seconds, CPU seconds, and peak memory in MB."""
    start_s = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "rater", "simulate", str(log)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, status
    return time.perf_counter() - start_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000
