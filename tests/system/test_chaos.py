"""Everything fails at the same time, for a short while. `make chaos` does the same for as long as you like."""

from pathlib import Path

import pytest

from tests.chaos.run import Plan, run

SEED = 6  # has all kinds of fault, and each kind of broker fault only once, because those take longest
SECONDS = 20.0


@pytest.mark.timeout(300)
async def test_nothing_is_lost_and_nothing_is_charged_twice_whatever_fails(tmp_path: Path) -> None:
    report = await run(Plan(SEED, SECONDS), tmp_path)
    print(report)
    assert report.counts.rated > 0
